"""What runtimes were seen to stop is remembered for as long as it means something."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from anyio import create_task_group

from sandbox import seen
from sandbox.engine import Engine
from sandbox.engines.process import ProcessEngine
from sandbox.grades import CONTAINER, KERNEL, grade
from sandbox.probe import Check
from sandbox.seen import Seen

GOOD = [Check(name, name in CONTAINER, "tried") for name in sorted(KERNEL)]
OPEN = [Check(name, name != "network", "tried") for name in sorted(KERNEL)]
NOISY = [Check(name, name not in ("processor", "own kernel"), "tried") for name in sorted(KERNEL)]
SILENT = [Check("starts", False, "no engine")]


class Looks:
    """What a look finds, one after the other, and how often somebody looked."""

    def __init__(self, *found: list[Check]) -> None:
        self.left = list(found)

    async def probe(self, engine: Engine, runtime: str) -> list[Check]:
        return self.left.pop(0)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Looks]:
    def plan(*found: list[Check]) -> Looks:
        made = Looks(*found)
        monkeypatch.setattr(seen, "probe", made.probe)
        return made

    return plan


@pytest.fixture
def engine(tmp_path: Path) -> ProcessEngine:
    return ProcessEngine("lab", tmp_path / "p")


async def test_a_look_is_made_once_by_whoever_comes_first(
    tmp_path: Path, engine: Engine, looks: Callable[..., Looks]
) -> None:
    looks(GOOD)
    found: list[list[Check]] = []

    async def ask() -> None:
        found.append(await Seen(tmp_path / "seen").checks(engine, "runc"))

    async with create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
    assert found == [GOOD] * 3


async def test_who_wants_a_new_look_gets_one_and_the_next_hears_of_it(
    tmp_path: Path, engine: Engine, looks: Callable[..., Looks]
) -> None:
    looks(GOOD, OPEN)
    await Seen(tmp_path / "seen").checks(engine, "runc")
    assert await Seen(tmp_path / "seen").checks(engine, "runc", again=True) == OPEN
    assert await Seen(tmp_path / "seen").checks(engine, "runc") == OPEN


async def test_another_runtime_user_or_engine_is_looked_at_for_itself(
    tmp_path: Path, engine: ProcessEngine, looks: Callable[..., Looks], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = looks(GOOD, GOOD, GOOD)
    here = Seen(tmp_path / "seen")
    await here.checks(engine, "runc")
    await here.checks(engine, "runsc")

    async def otherwise(runtime: str) -> str:
        return "another version"

    monkeypatch.setattr(engine, "about", otherwise)
    await here.checks(engine, "runc")
    assert made.left == []


@pytest.mark.parametrize(
    ("found", "age_s", "counts"), [(GOOD, 3600, 1), (GOOD, 90_000, 0), (OPEN, 30, 1), (OPEN, 90, 0)]
)
async def test_what_was_good_counts_for_a_day_and_what_was_not_for_a_minute(
    found: list[Check], age_s: int, counts: int, tmp_path: Path, engine: Engine, looks: Callable[..., Looks]
) -> None:
    made = looks(found, found)
    here = Seen(tmp_path / "seen")
    await here.checks(engine, "runc")
    [file] = (tmp_path / "seen").glob("*.json")
    kept = json.loads(file.read_text())
    file.write_text(json.dumps(kept | {"at": kept["at"] - age_s}))
    await here.checks(engine, "runc")
    assert len(made.left) == counts


@pytest.mark.parametrize(
    "left", [b"", b"{", b'{"at": 0}', b'{"at": "x", "checks": []}', b'{"at": 1e300, "checks": []}']
)
async def test_a_file_that_says_nothing_is_as_none(
    left: bytes, tmp_path: Path, engine: Engine, looks: Callable[..., Looks]
) -> None:
    looks(GOOD, OPEN)
    here = Seen(tmp_path / "seen")
    await here.checks(engine, "runc")
    [file] = (tmp_path / "seen").glob("*.json")
    file.write_bytes(left)
    assert await here.checks(engine, "runc") == OPEN


async def test_what_a_busy_machine_can_spoil_is_tried_twice_and_anything_else_once(
    tmp_path: Path, engine: Engine, looks: Callable[..., Looks]
) -> None:
    looks(NOISY, GOOD, OPEN)
    here = Seen(tmp_path / "seen")
    assert grade(await here.checks(engine, "runc")) == "container"
    assert grade(await here.checks(engine, "runsc")) == "none"


async def test_what_could_not_be_tried_is_not_kept(tmp_path: Path, engine: Engine, looks: Callable[..., Looks]) -> None:
    looks(SILENT, SILENT, GOOD)
    here = Seen(tmp_path / "seen")
    assert await here.checks(engine, "runc") == SILENT
    assert await here.checks(engine, "runc") == GOOD
