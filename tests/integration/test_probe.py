"""The probe is no ornament: a wall taken away makes exactly its check fail, and a sound runtime passes them all."""

from collections.abc import Callable
from typing import Any

import pytest

from sandbox.engines import docker
from sandbox.engines.docker import DockerEngine
from sandbox.probe import NAMES, Check, accepted, probe
from tests.docker_lab import built, docker_lab, need_runtime

pytestmark = pytest.mark.docker


def red(checks: list[Check]) -> set[str]:
    return {check.name for check in checks if not check.ok}


@pytest.mark.parametrize("runtime", ["runc", "runsc"])
async def test_an_accepted_runtime_answered_every_check(runtime: str) -> None:
    checks = await probe(DockerEngine(need_runtime(runtime)), runtime)
    assert {check.name for check in checks} == NAMES
    assert red(checks) == set()


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


@pytest.mark.parametrize(
    ("weaken", "noticed"),
    [
        (host_network, {"network", "namespaces"}),
        (default_seccomp, {"system calls", "socket families"}),
        (no_seccomp, {"system calls", "socket families", "no new privileges"}),
        (new_privileges, {"no new privileges"}),
        (writable_root, {"read-only root", "user"}),
        (capabilities, {"capabilities"}),
        (host_processes, {"namespaces"}),
        (host_queues, {"namespaces"}),
        (unbounded_memory, {"memory"}),
        (unbounded_processes, {"processes"}),
        (unbounded_processor, {"processor"}),
        (unbounded_workspace, {"workspace size", "workspace files"}),
        (engine_socket, {"read-only root"}),
        (a_device, {"devices"}),
        (host_environment, {"environment"}),
    ],
)
async def test_a_wall_taken_away_is_noticed(
    weaken: Callable[[dict[str, Any]], None], noticed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = docker.container_config

    def weakened(*arguments: Any) -> dict[str, Any]:
        config = sound(*arguments)
        weaken(config)
        return config

    monkeypatch.setattr(docker, "container_config", weakened)
    lab = docker_lab()
    built("base")
    checks = await probe(DockerEngine(lab), "runc")
    assert noticed <= red(checks), checks
    assert not accepted(checks)


async def test_a_runtime_that_does_not_start_is_not_accepted() -> None:
    checks = await probe(DockerEngine(docker_lab()), "none-such")
    assert not accepted(checks)
    assert checks[0].mend


def test_nothing_seen_is_nothing_accepted() -> None:
    assert not accepted([])
    assert not accepted([Check("network", True, "")])
