"""The MCP Inspector's command line against the gateway: a client that none of us wrote, in another language."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.commands import COMMAND, ROOT, Madlab, a_lab, environment
from tests.sizes import full

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(
        not full(),
        reason="npx fetches some 300 packages, and each question takes seconds: MADLAB_FULL=1",
    ),
    pytest.mark.skipif(shutil.which("npx") is None, reason="there is no Node on this machine"),
]

INSPECTOR = ("npx", "--yes", "@modelcontextprotocol/inspector@2.12.0", "--cli")
SETTINGS = f"""
emads = ["{ROOT / "periphery/mcnamara"}"]
[residents]
echo = {{ class = "tests.emads.echo:Echo" }}
"""


@pytest.fixture(scope="module")
def madlab() -> Iterator[Madlab]:
    with a_lab(SETTINGS, images=("base", "mcnamara")) as lab:
        yield lab


@pytest.fixture(scope="module", params=["stdio", "http"])
def target(request: pytest.FixtureRequest, madlab: Madlab) -> tuple[str, ...]:
    """How the Inspector is told of the lab, each way."""
    if request.param == "stdio":
        return (*COMMAND, "--home", str(madlab.home.path), "mcp", "--root", "/", "-e", f"PYTHONPATH={ROOT}")
    token = madlab("client", "add", "inspector", "--may", "echo", "--may", "mcnamara").out.strip()
    origin = f"http://127.0.0.1:{(madlab.home.path / 'port').read_text().strip()}"
    return (f"{origin}/mcp", "--transport", "http", "--header", f"Authorization: Bearer {token}")


def asked(madlab: Madlab, target: tuple[str, ...], method: str, *arguments: str) -> Any:
    """What the Inspector prints of one question."""
    done = subprocess.run(
        [*INSPECTOR, *target, "--method", method, *arguments],
        capture_output=True, text=True, timeout=180, cwd=ROOT, env=environment(madlab.home.path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_lists_the_tools(madlab: Madlab, target: tuple[str, ...]) -> None:
    tools = {each["name"]: each for each in asked(madlab, target, "tools/list")["tools"]}
    assert {"echo_say", "mcnamara_scan", "lab_scan"} <= set(tools)
    assert tools["echo_say"]["annotations"]["readOnlyHint"] is True


def test_it_has_something_scanned_and_reads_the_report(madlab: Madlab, target: tuple[str, ...]) -> None:
    files = {"bad.py": "import subprocess\n\n\ndef run(text):\n    subprocess.call(text, shell=True)\n"}
    given = ("--tool-name", "lab_scan", "--tool-arg", f"files={json.dumps(files)}")
    found = asked(madlab, target, "tools/call", *given)
    assert not found.get("isError"), found
    assert found["structuredContent"]["findings"][0]["path"] == "bad.py"
    (link,) = [each for each in found["content"] if each.get("name") == "report.json"]
    (content,) = asked(madlab, target, "resources/read", "--uri", link["uri"])["contents"]
    assert re.search("bad.py", content["text"])


def test_it_lists_resources_and_prompts(madlab: Madlab, target: tuple[str, ...]) -> None:
    assert "madlab://runs" in {each["uri"] for each in asked(madlab, target, "resources/list")["resources"]}
    assert len(asked(madlab, target, "prompts/list")["prompts"]) == 3
