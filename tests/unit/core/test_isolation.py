"""A profile gets a runtime that was seen to stop what it wants stopped, or a denial that says what is missing."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest

import core.isolation
from core.isolation import Isolation
from protos.errors import Denied
from sandbox import seen
from sandbox.engine import Engine, SandboxError
from sandbox.engines.process import ProcessEngine
from sandbox.grades import KERNEL, WALLS, grade
from sandbox.probe import Check
from sandbox.profile import GRADES, Grade, Profile
from sandbox.seen import Seen


class Machine:
    """What the runtimes of a machine stop, and how often each was tried."""

    def __init__(self, **grades: Grade) -> None:
        self.grades = grades
        self.tried: list[str] = []

    async def probe(self, engine: Engine, runtime: str) -> Sequence[Check]:
        self.tried.append(runtime)
        if runtime == "absent":
            return [Check("starts", False, "no engine answers")]
        return [Check(name, name in WALLS[self.grades[runtime]], f"{name} seen") for name in sorted(KERNEL)]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(runc="container", runsc="kernel", bwrap="namespace", kata="none")
    monkeypatch.setattr(seen, "probe", made.probe)
    return made


@pytest.fixture
def isolation(machine: Machine, tmp_path: Path) -> Isolation:
    engine = ProcessEngine("lab", tmp_path / "p")
    names = (*machine.grades, "absent", "process")
    return Isolation(dict.fromkeys(names, engine), Seen(tmp_path / "seen"))


def wants(runtime: str, least: Grade) -> Profile:
    return Profile("base", ("true",), runtime=runtime, least=least)


async def test_a_profile_is_refused_exactly_where_less_was_seen_than_it_wants(
    isolation: Isolation, machine: Machine
) -> None:
    for runtime, found in machine.grades.items():
        for least in get_args(Grade):
            if GRADES.index(found) >= GRADES.index(least):
                await isolation.require(wants(runtime, least))
            else:
                with pytest.raises(Denied, match=f"rule isolation: the profile wants at least '{least}'"):
                    await isolation.require(wants(runtime, least))


async def test_a_denial_names_what_did_not_hold_and_what_can_be_done(isolation: Isolation) -> None:
    with pytest.raises(Denied) as told:
        await isolation.require(wants("bwrap", "container"))
    assert "bwrap was seen to stop 'namespace': another user: another user seen; " in told.value.message
    assert told.value.message.endswith("; and 1 more.")
    assert "[profile.NAME]" in told.value.next


async def test_host_processes_stop_nothing_and_are_never_tried(isolation: Isolation, machine: Machine) -> None:
    await isolation.require(wants("process", "none"))
    with pytest.raises(Denied, match="process was seen to stop 'none'"):
        await isolation.require(wants("process", "namespace"))
    assert machine.tried == []


async def test_what_cannot_be_tried_is_no_denial_and_is_tried_again(isolation: Isolation, machine: Machine) -> None:
    for _ in range(2):
        with pytest.raises(SandboxError, match="absent cannot be tried: no engine answers"):
            await isolation.require(wants("absent", "namespace"))
    assert len(machine.tried) == 4  # twice each: an engine may be starting
    with pytest.raises(SandboxError, match="no engine for the runtime 'kvm'"):
        await isolation.require(wants("kvm", "namespace"))


async def test_what_was_too_little_is_looked_at_again_after_a_while(
    isolation: Isolation, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(Denied):
        await isolation.require(wants("bwrap", "container"))
    machine.grades["bwrap"] = "container"
    [kept] = (tmp_path / "seen").glob("bwrap-*.json")
    kept.unlink()  # as when the operator asks doctor, which looks in any case
    with pytest.raises(Denied):
        await isolation.require(wants("bwrap", "container"))
    monkeypatch.setattr(core.isolation, "AGAIN_S", 0)
    await isolation.require(wants("bwrap", "container"))


async def test_what_was_enough_counts_no_longer_when_the_runtime_has_changed(
    isolation: Isolation, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await isolation.require(wants("runc", "container"))
    machine.grades["runc"] = "namespace"
    [kept] = (tmp_path / "seen").glob("runc-*.json")
    kept.unlink()  # as when the engine was updated, and so has another identity
    await isolation.require(wants("runc", "container"))
    monkeypatch.setattr(core.isolation, "COUNTS_S", -1)  # an hour has gone by
    with pytest.raises(Denied, match="runc was seen to stop 'namespace'"):
        await isolation.require(wants("runc", "container"))


async def test_after_an_hour_what_still_counts_is_not_tried_anew(
    isolation: Isolation, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await isolation.require(wants("runc", "container"))
    monkeypatch.setattr(core.isolation, "COUNTS_S", -1)
    await isolation.require(wants("runc", "container"))
    assert machine.tried == ["runc"]


async def test_runtimes_of_profiles_are_tried_ahead(isolation: Isolation, machine: Machine) -> None:
    await isolation.serve(["runc", "absent", "runsc"])
    assert set(machine.tried) == {"runc", "absent", "runsc"}
    machine.tried.clear()
    await isolation.require(wants("runsc", "kernel"))
    assert machine.tried == []
    assert grade(await isolation.checks("runc")) == "container"
