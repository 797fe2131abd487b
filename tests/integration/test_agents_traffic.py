"""mini-swe-agent, as it is in its image, cannot tell the doors from a direct connection, by record or on the wire."""

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import fail_after

from periphery.doors import open_doors
from sandbox.images.build import default_cache
from sandbox.images.layers import Layers
from sandbox.images.spec import Refused, read
from tests.integration.hopper_bench import acts, bench
from tests.integration.test_doors_traffic import assert_equal_in_shape
from tests.model_server import Play, model_server
from tests.roads import Exchange, relay
from tests.sizes import full

pytestmark = pytest.mark.skipif(not full(), reason="its image takes minutes to build from nothing: MADLAB_FULL=1")

PLACE = "opt/mini-swe-agent"
START = "import site, sys; site.addsitedir(sys.argv.pop(1)); from minisweagent.run.mini import app; app()"


@dataclass(frozen=True)
class Walked:
    """What it saved of a run on either road, and what went over its wire."""

    direct: list[Any]
    through: list[Any]
    straight: list[Exchange]
    doors: list[Exchange]


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """How it is started on this machine: the image's Python by the image's loader, with the agent's packages."""
    tree = tmp_path_factory.mktemp("tree")
    try:
        layers = Layers(default_cache(), print).of(read("hopper-agents"))
    except Refused as error:
        pytest.skip(str(error))
    for layer in layers:
        wanted = {"base-system": "usr", "hopper-agents-system": PLACE}.get(layer.name.rpartition("-")[0])
        if wanted:
            subprocess.run(["tar", "-xf", str(layer), "-C", str(tree), wanted], check=True)
    libraries = tree / f"usr/lib/{platform.machine()}-linux-gnu"
    [loader] = libraries.glob("ld-linux-*.so.*")
    python = [str(loader), "--inhibit-cache", "--library-path", str(libraries), str(tree / "usr/bin/python3.13")]
    return [*python, "-I", "-c", START, str(tree / PLACE / "lib/python3.13/site-packages")]


def plays() -> list[Play]:
    return [
        acts(("bash", {"command": "echo one"}), ("bash", {"command": "echo two"}), text="Look."),
        acts(text="Here I call nothing."),
        acts(("bash", {"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}), text="Done."),
    ]


async def trajectory(mini: list[str], address: str, folder: Path) -> list[Any]:
    """What it saved of a run against `address`."""
    folder.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "OPENAI_BASE_URL": address,
        "OPENAI_API_KEY": "none",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "MSWEA_CONFIGURED": "true",
        "MSWEA_COST_TRACKING": "ignore_errors",
        "MSWEA_GLOBAL_CONFIG_DIR": str(folder),
    }
    record = folder / "trajectory.json"
    words = ["--yolo", "--exit-immediately", "-l", "0", "-m", "openai/scripted", "-t", "Look.", "-o", str(record)]
    with fail_after(120):
        await anyio.run_process([*mini, *words], env=environment, cwd=folder, stdin=subprocess.DEVNULL)
    messages: list[Any] = json.loads(record.read_bytes())["messages"]
    return messages


def shapes(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every place in a message that holds something, and of what type it is."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from shapes(each, f"{path}.{name}")
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from shapes(each, f"{path}[{number}]")
    elif value is not None:
        yield path, type(value).__name__


@pytest.fixture(scope="module")
async def walked(mini: list[str], tmp_path_factory: pytest.TempPathFactory) -> Walked:
    place = tmp_path_factory.mktemp("walked")
    async with model_server(plays()) as server, relay(server.port) as (port, straight):
        direct = await trajectory(mini, f"http://127.0.0.1:{port}/v1", place / "direct")
    async with (
        bench(plays(), place) as lab,
        open_doors(lab.call().ctx.llm) as doors,
        relay(doors.port) as (port, inside),
    ):
        through = await trajectory(mini, f"http://127.0.0.1:{port}/v1", place / "through")
    return Walked(direct, through, straight.exchanges, inside.exchanges)


async def test_its_record_of_a_run_through_the_doors_has_all_that_one_of_a_direct_run_has(walked: Walked) -> None:
    direct, through = walked.direct, walked.through
    assert [each["role"] for each in through] == [each["role"] for each in direct]
    assert through[-1]["extra"]["exit_status"] == direct[-1]["extra"]["exit_status"] == "Submitted"
    for there, here in zip(direct, through, strict=True):
        missing = set(shapes(there)) - set(shapes(here))
        assert not missing, there["role"]
        assert there.get("extra", {}).get("actions") == here.get("extra", {}).get("actions")
        if "response" not in there.get("extra", {}):  # our server tells less than the real ones, and the doors as much
            assert set(shapes(here)) == set(shapes(there))


async def test_what_goes_over_its_wire_is_equal_in_shape(walked: Walked) -> None:
    assert len(walked.straight) == len(plays())
    for straight, doors in zip(walked.straight, walked.doors, strict=True):
        assert (doors.request.method, doors.request.url.path) == (straight.request.method, straight.request.url.path)
        there, here = json.loads(straight.request.content), json.loads(doors.request.content)
        assert set(shapes(here)) == set(shapes(there))
        assert_equal_in_shape(straight, doors)
