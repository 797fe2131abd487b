"""Playfair in his own image, hardened like a sandbox: one worker that is asked many times, for the tests."""

import json
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any
from uuid import uuid4

from tests.docker_lab import built, docker_lab

ROOT = Path(__file__).parents[1]
HARDENED = (
    *("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=10001:10001"),
    *("--memory=1536m", "--memory-swap=1536m", "--pids-limit=128", "--cpus=2"),
    "--tmpfs=/workspace:size=512m,uid=10001,gid=10001",
    *("--env=TMPDIR=/workspace", "--env=HOME=/workspace"),
)
_INSIDE = "tests.integration.playfair_inside"
_CODE = f"import runpy, sys; sys.path.append('/tests-of'); runpy.run_module('{_INSIDE}', run_name='__main__')"
LIMIT_S = 300.0  # an upper bound only: nothing is measured


@dataclass(frozen=True)
class Answer:
    """What one call came to."""

    result: dict[str, Any]
    fault: dict[str, str]
    evidence: dict[str, Any]
    files: dict[str, bytes]
    seconds: float

    @property
    def picture(self) -> bytes:
        """The one picture."""
        [content] = self.files.values()
        return content


class Worker:
    """A container with Playfair, who answers calls one by one."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def __call__(
        self,
        tool: str = "create_chart",
        data: bytes | str | None = None,
        *,
        name: str = "",
        into: str = "data",
        **arguments: Any,
    ) -> Answer:
        order: dict[str, Any] = {"tool": tool, "arguments": arguments, "name": name, "into": into}
        if data is not None:
            order["data"] = b64encode(data.encode() if isinstance(data, str) else data).decode()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        timer = Timer(LIMIT_S, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        assert line, "the worker ended"
        said = json.loads(line)
        files = {name: b64decode(content) for name, content in said["files"].items()}
        return Answer(said.get("result", {}), said.get("fault", {}), said["evidence"], files, said["seconds"])


@contextmanager
def a_worker() -> Iterator[Worker]:
    """Starts the container; it is gone on leaving."""
    built("playfair")
    name = f"playfair-{uuid4().hex[:12]}"
    command = [
        *("docker", "run", "--rm", "-i", "--name", name, *HARDENED),
        *("-v", f"{ROOT}/tests:/tests-of/tests:ro", f"madlab-{docker_lab()[:8]}/playfair:current"),
        *("python3", "-c", _CODE),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Worker(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                subprocess.run(["docker", "rm", "-f", name], capture_output=True)
