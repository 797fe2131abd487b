"""A hand in Hopper's place: the same two tools, in the core's own process, with edits instead of an agent.

It unpacks real trees, changes real files and runs a real test command, so that what the foreman does with the outcome
can be tried without sandboxes and models.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from anyio import to_thread
from typing_extensions import TypedDict

from periphery.hopper.controls import plant
from protos import tree
from protos.blobs import fetch, store
from protos.tools import Call, tool
from protos.v1.session_pb2 import OUTCOME_STUCK, OUTCOME_SUCCEEDED

Edits = Mapping[str, str | None]  # by path: the new content, None to remove the file
COMMAND = "python -m unittest -q"


class Said(TypedDict):
    """Whatever is said."""

    outcome: str


class Hand:
    """Makes the edits of each developer in turn, and tests trees."""

    def __init__(self, edits: Callable[[str], Edits], *, outcome: str = "succeeded") -> None:
        self._edits, self._outcome = edits, outcome

    @tool(effects="write", steerable=True)
    async def work(
        self,
        call: Call,
        *,
        source: str,
        goal: str,
        test: str = "",
        model: str = "",
        agent: str = "hopper",
        role: str = "",
        notes: str = "",
        changes: str = "",
        max_steps: int = 60,
    ) -> Said:
        """Makes the edits."""
        with TemporaryDirectory() as place:
            root = await _unpacked(call, source, Path(place))
            edits = {} if role in ("planner", "reviewer") else self._edits(call.message.conversation.rsplit("/", 1)[1])
            gone = [path for path, content in edits.items() if content is None]
            for path, content in edits.items():
                if content is not None:
                    (root / path).parent.mkdir(parents=True, exist_ok=True)
                    (root / path).write_text(content)
            names = {path for path, content in edits.items() if content is not None}
            if changes:
                await _unpacked(call, changes, Path(place), over=root)
                with (Path(place) / changes[-12:]).open("rb") as begun:
                    names |= {each.name for each in tree.members(iter(lambda: begun.read(65536), b""))}
            packed = b"".join(tree.pack(root, sorted(names)))
            files, verdict = call.ctx.files, call.ctx.verdict
            verdict.artifacts.append(await store(files, packed, name="changes.tar"))
            verdict.artifacts.append(await store(files, str(gone).replace("'", '"').encode(), name="deleted.json"))
            verdict.outcome = OUTCOME_SUCCEEDED if self._outcome == "succeeded" else OUTCOME_STUCK
            worked: Any = {"outcome": self._outcome, "summary": f"as {role or 'all'}: {notes[:40]}", "model": "none"}
            return worked  # type: ignore[no-any-return]

    @tool(effects="read")
    async def test(
        self,
        call: Call,
        *,
        source: str,
        command: str = "",
        changes: str = "",
        deleted: str = "",
        timeout_s: int = 600,
        control: list[str] | None = None,
    ) -> Said:
        """Tests the tree."""
        await self.before_tests()
        with TemporaryDirectory() as place:
            root = await _unpacked(call, source, Path(place))
            if changes:
                await _unpacked(call, changes, Path(place), over=root)
            if deleted:
                await fetch(call.ctx.files, deleted, Path(place) / "deleted.json")
                for each in __import__("json").loads((Path(place) / "deleted.json").read_text()):
                    (root / each).unlink()
            planted = {} if control is None else plant(root, control)
            ran = await to_thread.run_sync(
                lambda: subprocess.run([sys.executable, "-m", "unittest", "-q"], cwd=root, capture_output=True)
            )
            result: Any = {"command": command or COMMAND, "detected": not command, "found": True, "timed_out": False}
            result |= {"passed": ran.returncode == 0, "exit_code": ran.returncode, "seconds": 0.1, "counts": None}
            if control is not None:
                noticed = [path for word, path in planted.items() if word.encode() in ran.stderr]
                result["control"] = {"planted": list(planted.values()), "noticed": noticed}
            return result | {"tail": ran.stderr.decode()[-2000:]}  # type: ignore[no-any-return]

    async def before_tests(self) -> None:
        """What a hand of a test's own waits for before it tests; this one for nothing."""


async def _unpacked(call: Call, digest: str, place: Path, *, over: Path | None = None) -> Path:
    """A tree in a folder of its own, or laid over another one."""
    packed = place / digest[-12:]
    await fetch(call.ctx.files, digest, packed)
    root = over or place / "tree"

    def unpack() -> None:
        with packed.open("rb") as stream:
            for member in tree.members(iter(lambda: stream.read(65536), b"")):
                if member.kind == "file":
                    (root / member.name).parent.mkdir(parents=True, exist_ok=True)
                    (root / member.name).write_bytes(b"".join(member.chunks))

    await to_thread.run_sync(unpack)
    return root
