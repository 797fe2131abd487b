"""The probe is no ornament: a wall taken away makes exactly its check fail, and a sound runtime passes them all."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox import probe as probing
from sandbox.engines.bubblewrap import BubblewrapEngine
from sandbox.engines.docker import engine as docker
from sandbox.engines.docker.config import container_config
from sandbox.engines.docker.engine import DockerEngine
from sandbox.grades import KERNEL, grade, is_enough, missing
from sandbox.probe import PROFILE, Check, probe
from tests import bubblewrap_lab
from tests.docker_lab import built, docker_lab, need_runtime
from tests.sizes import full

pytestmark = pytest.mark.docker


def red(checks: list[Check]) -> set[str]:
    return {check.name for check in missing(checks, "container")}


@pytest.mark.parametrize("runtime", ["runc", "runsc"])
async def test_an_accepted_runtime_answered_every_check(runtime: str) -> None:
    checks = await probe(DockerEngine(need_runtime(runtime)), runtime)
    assert {check.name for check in checks} == KERNEL
    assert grade(checks) == ("kernel" if runtime == "runsc" else "container")


def host_network(config: dict[str, Any]) -> None:
    config["NetworkDisabled"] = False
    config["HostConfig"]["NetworkMode"] = "host"


def default_seccomp(config: dict[str, Any]) -> None:
    config["HostConfig"]["SecurityOpt"] = ["no-new-privileges:true"]


def no_seccomp(config: dict[str, Any]) -> None:
    config["HostConfig"]["SecurityOpt"] = ["no-new-privileges:true", "seccomp=unconfined"]


def new_privileges(config: dict[str, Any]) -> None:
    config["HostConfig"]["SecurityOpt"] = config["HostConfig"]["SecurityOpt"][1:]


def writable_root(config: dict[str, Any]) -> None:
    config["HostConfig"]["ReadonlyRootfs"] = False
    config["User"] = "0:0"


def capabilities(config: dict[str, Any]) -> None:
    config["HostConfig"]["CapDrop"] = []


def host_processes(config: dict[str, Any]) -> None:
    looks = (PROFILE.memory_mb + PROFILE.workspace_mb) << 20
    if config["HostConfig"]["Memory"] == looks:  # not who breeds: its children would outlive it, and be waited for
        config["HostConfig"]["PidMode"] = "host"


def host_queues(config: dict[str, Any]) -> None:
    config["HostConfig"]["IpcMode"] = "host"


def unbounded_memory(config: dict[str, Any]) -> None:
    config["HostConfig"]["Memory"] = config["HostConfig"]["MemorySwap"] = 0


def unbounded_processes(config: dict[str, Any]) -> None:
    config["HostConfig"]["PidsLimit"] = 0


def unbounded_processor(config: dict[str, Any]) -> None:
    config["HostConfig"]["NanoCpus"] = 0


def unbounded_workspace(config: dict[str, Any]) -> None:
    config["HostConfig"]["Tmpfs"]["/workspace"] = "rw,uid=10001"


def engine_socket(config: dict[str, Any]) -> None:
    config["HostConfig"]["Binds"] = ["/var/run/docker.sock:/opt/docker.sock"]


def a_device(config: dict[str, Any]) -> None:
    config["HostConfig"]["Devices"] = [
        {"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/kmsg", "CgroupPermissions": "r"}
    ]


def host_environment(config: dict[str, Any]) -> None:
    config["Env"].append("AWS_SECRET_ACCESS_KEY=x")


Wall = Callable[[dict[str, Any]], None]
NOTICED: dict[Wall, set[str]] = {
    host_network: {"network", "namespaces"},
    default_seccomp: {"system calls", "socket families"},
    no_seccomp: {"system calls", "socket families", "no new privileges"},
    new_privileges: {"no new privileges"},
    writable_root: {"read-only root", "user"},
    capabilities: {"capabilities"},
    host_processes: {"namespaces"},
    host_queues: {"namespaces"},
    unbounded_memory: {"memory"},
    unbounded_processes: {"processes"},
    unbounded_processor: {"processor"},
    unbounded_workspace: {"workspace size", "workspace files"},
    engine_socket: {"read-only root"},
    a_device: {"devices"},
    host_environment: {"environment"},
}
# Several are taken away at once where no two are noticed by the same check; root keeps the other walls.
TOGETHER: tuple[tuple[Wall, ...], ...] = (
    (host_network, writable_root, new_privileges, unbounded_memory, a_device, host_environment),
    (
        *(default_seccomp, capabilities, host_queues, engine_socket),
        *(unbounded_workspace, unbounded_processes, unbounded_processor),
    ),
    (no_seccomp, host_processes),
)


def test_every_wall_is_taken_away_once_and_its_check_is_its_own() -> None:
    assert sorted(wall.__name__ for walls in TOGETHER for wall in walls) == sorted(wall.__name__ for wall in NOTICED)
    for walls in TOGETHER:
        checks = [check for wall in walls for check in NOTICED[wall]]
        assert len(checks) == len(set(checks))


@pytest.mark.parametrize(
    "walls", [*TOGETHER, *([(wall,) for wall in NOTICED] if full() else ())], ids=lambda walls: walls[0].__name__
)
async def test_a_wall_taken_away_is_noticed(walls: tuple[Wall, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    sound = container_config

    def weakened(*arguments: Any) -> dict[str, Any]:
        config = sound(*arguments)
        for wall in walls:
            wall(config)
        return config

    monkeypatch.setattr(docker, "container_config", weakened)
    if unbounded_processor in walls:  # where others want the processors, too, it gets little, but more than this
        monkeypatch.setattr(probing, "_SPINNING", replace(probing._SPINNING, cpus=0.04))
    lab = docker_lab()
    built("base")
    noticed = {check for wall in walls for check in NOTICED[wall]}
    for _ in range(5 if unbounded_processor in walls else 1):
        checks = await probe(DockerEngine(lab), "runc")
        if noticed <= red(checks):
            assert not is_enough(grade(checks), "container")
            return
    raise AssertionError(checks)


async def test_a_runtime_that_does_not_start_is_not_accepted() -> None:
    checks = await probe(DockerEngine(docker_lab()), "none-such")
    assert grade(checks) == "none"
    assert checks[0].mend


async def test_bubblewrap_is_graded_like_a_container_where_all_its_walls_hold(tmp_path: Path) -> None:
    engine = bubblewrap_lab.engine(bubblewrap_lab.need_bubblewrap(), tmp_path)
    checks = await probe(engine, "bwrap")
    assert {check.name for check in checks} == KERNEL
    assert red(checks) == set()
    assert grade(checks) == "container"


def without_limits(told: dict[str, Any]) -> None:
    told["entrances"] = []


def in_plain_sight(told: dict[str, Any]) -> None:
    told["uid"] = None  # root outside: /proc/sys is its own
    told["arguments"].remove("--unshare-net")
    told["arguments"] += ["--dev-bind", "/dev", "/dev"]
    told["seccomp"] = "06000000" + "0000ff7f"  # one instruction: allow
    told["limits"] = {}
    told["memory"]["workspace"] = "size=1g,mode=0700,uid=10001"


@pytest.mark.parametrize(
    ("weaken", "noticed", "left"),
    [
        (without_limits, {"memory", "processes", "processor"}, "namespace"),
        (
            in_plain_sight,
            {"network", "namespaces", "devices", "system calls", "socket families", "process limits"}
            | {"workspace size", "workspace files", "another user", "read-only root"},
            "none",
        ),
    ],
)
async def test_walls_of_bubblewrap_that_are_taken_away_are_noticed_and_lower_its_grade(
    weaken: Callable[[dict[str, Any]], None],
    noticed: set[str],
    left: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    engine = bubblewrap_lab.engine(bubblewrap_lab.need_bubblewrap(), tmp_path)
    sound = BubblewrapEngine._told

    def weakened(*arguments: Any) -> dict[str, Any]:
        told = sound(*arguments)
        weaken(told)
        return told

    monkeypatch.setattr(BubblewrapEngine, "_told", weakened)
    checks = await probe(engine, "bwrap")
    assert noticed <= red(checks), checks
    assert grade(checks) == left, checks
