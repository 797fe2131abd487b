"""What is asked about one container. Blocking: `engine` runs each function in a thread, with the client first."""

import socket
import time
from functools import partial
from typing import Any

import requests
from docker.errors import APIError, NotFound

from sandbox.cgroup import groups_of, starved_by_log, usage_in, usage_of
from sandbox.engine import Exit, Meter, SandboxError, Usage
from sandbox.engines.docker.client import quietly
from sandbox.engines.docker.config import LAB, NAME

_LOG_BYTES = 16 * 1024  # of a program's last words
_SIGKILL = 128 + 9  # as an exit code


def create(api: Any, container: str, config: dict[str, Any]) -> str:
    """Makes a container; its id."""
    try:
        return str(api.create_container_from_config(config, container)["Id"])
    except (requests.RequestException, APIError) as error:
        # Without an answer it may exist all the same, and the name is ours alone; a conflict says another has the name.
        if not isinstance(error, APIError):
            with quietly():
                api.remove_container(container, force=True)
        raise


def inspect_foreign(api: Any, image: str) -> tuple[str, list[str]]:
    """The id of an image that is not ours, and where it wants volumes.

    A volume would be on the host and without a limit: a small tmpfs takes its place.

    Raises:
        SandboxError: it is for another kind of machine.
    """
    found = api.inspect_image(image)
    made_for, here = (found["Os"], found["Architecture"]), api.version()["Arch"]
    if made_for != ("linux", here):
        raise SandboxError(f"the image {image} is for {'/'.join(made_for)}, and this engine runs linux/{here}")
    return str(found["Id"]), sorted(found["Config"].get("Volumes") or ())


def start(api: Any, container: str, stdin: bytes) -> None:
    """Starts it with `stdin`, and then nothing more, on its standard input."""
    upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
    url = api._url("/containers/{0}/attach", container)
    with api._post(url, params={"stdin": 1, "stream": 1}, headers=upgrade, stream=True) as response:
        api._raise_for_status(response)
        connection = connection_of(response)
        api.start(container)
        connection.sendall(stdin)
        connection.shutdown(socket.SHUT_WR)


def connection_of(response: Any) -> socket.socket:
    """The socket behind an answer that is still open."""
    connection: socket.socket = response.raw._fp.fp.raw._sock
    return connection


def open_wait(api: Any, container: str) -> Any:
    """Asks to be told of the end; None when the container is gone."""
    response = api._post(api._url("/containers/{0}/wait", container), stream=True, timeout=None)
    if response.status_code == requests.codes.not_found:
        response.close()
        return None
    api._raise_for_status(response)
    return response


def read_exit(api: Any, container: str) -> Exit | None:
    """How it ended; None while it runs."""
    try:
        state = api.inspect_container(container)["State"]
        if state["Running"] or state["Status"] in ("created", "restarting"):
            return None
        log = api.logs(container, stdout=True, stderr=True, tail=200)
    except NotFound:
        return Exit(None, "killed")
    code: int = state["ExitCode"]
    tail = log[-_LOG_BYTES:].decode(errors="replace")
    if code and (state["OOMKilled"] or (code == _SIGKILL and _starved(api, container))):
        return Exit(None if code == _SIGKILL else code, "out_of_memory", tail)
    if code == _SIGKILL:
        return Exit(None, "killed", tail)
    return Exit(code, "exited", tail)


def _starved(api: Any, container: str) -> bool:
    """Whether what ended by SIGKILL ran out of memory, though its state does not say so.

    The engine may hear of that only after the end, and then its state never says it; its events do. Of a sandbox of
    gVisor it may not hear at all (3 of 24 on a busy machine); the kernel's log knows, where it may be read.
    """
    if starved_by_log(container):
        return True
    for _ in range(5):
        events = api.events(since="1", until=f"{time.time():.9f}", filters={"container": container}, decode=True)
        actions = {event["Action"] for event in events}
        if actions & {"oom", "kill"}:
            return "oom" in actions
        time.sleep(0.1)
    return False


def kill(api: Any, container: str) -> None:
    """Ends it at once, if it is there and runs."""
    try:
        api.kill(container)
    except APIError as error:
        if error.status_code not in (requests.codes.not_found, requests.codes.conflict):
            raise


def kernel(api: Any, container: str) -> int:
    """The process that is gVisor's kernel for a container; 0 where the host's own serves it, or none any more."""
    found = api.inspect_container(container)
    return int(found["State"]["Pid"]) if found["HostConfig"]["Runtime"].startswith("runsc") else 0


def usage(api: Any, container: str) -> Usage:
    """What it has used.

    Raises:
        SandboxError: it has ended.
    """
    pid = api.inspect_container(container)["State"]["Pid"]
    if pid and (usage := usage_of(pid)):
        return usage
    stats = api.stats(container, stream=False, one_shot=True) if pid else {}
    if not stats.get("memory_stats"):
        raise SandboxError("the sandbox has ended: there is nothing to measure")
    return Usage(
        memory_bytes=stats["memory_stats"]["usage"],
        cpu_seconds=stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
        pids=stats["pids_stats"].get("current", 0),
    )


def meter(api: Any, container: str) -> Meter:
    """What reads its usage from the kernel's files, again and again.

    Raises:
        SandboxError: it has ended, or its files cannot be read from here.
    """
    found = api.inspect_container(container)
    try:
        groups = groups_of(found["State"]["Pid"])
        if not any(found["Id"] in str(each) for each in groups.values()):  # the engine is on another machine
            raise SandboxError("the control group of the sandbox cannot be seen from here")
        usage_in(groups)
    except (OSError, ValueError, KeyError) as error:
        if not found["State"]["Running"]:
            raise SandboxError("the sandbox has ended: there is nothing to measure") from error
        raise SandboxError(f"the control group of the sandbox cannot be read: {error}") from error
    return partial(usage_in, groups)


def find(api: Any, container: str, lab: str) -> str | None:
    """The id of a lab's container by its name; None where the lab has none of that name."""
    try:
        found = api.inspect_container(container)
    except NotFound:
        return None
    return str(found["Id"]) if found["Config"]["Labels"].get(LAB) == lab else None


def remove(api: Any, container: str) -> None:
    """Ends and removes it with its volumes, if it is there."""
    try:
        api.remove_container(container, force=True, v=True)
    except APIError as error:
        # Gone, or being removed by another who was faster.
        if error.status_code not in (requests.codes.not_found, requests.codes.conflict):
            raise


def list_all(api: Any, lab: str) -> dict[str, str]:
    """Every container of a lab, ended ones too: by id, what its sandbox is called."""
    found = api.containers(all=True, filters={"label": f"{LAB}={lab}"})
    return {str(c["Id"]): str(c["Labels"].get(NAME, "")) for c in found}
