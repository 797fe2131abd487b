"""Docker as an engine: hardened containers by the API, and the images they are made of. Nothing else imports `docker`.

The rules of this file:

1. Blocking calls run in threads, at most four at a time: the engine is a queue, and a hundred creations at once take
   it twice as long as four at a time. Waiting for an end takes no thread: it is a connection that becomes readable.
2. A container is created under a shield and the `try` begins on the next line, so that no cancellation leaks one.
   Leaving destroys it, shielded and bounded; what could not be destroyed is found by its label and reaped.
3. There is no exec and no archive call here, and there will be none: both have let containers write to the host.
4. What was asked of the engine is not taken for granted: `sandbox.probe` looks from inside.
"""

import io
import json
import logging
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from typing import IO, Any, TypeVar

import docker
import requests
from anyio import (
    CancelScope,
    CapacityLimiter,
    create_task_group,
    current_time,
    move_on_after,
    sleep,
    to_thread,
    wait_readable,
)
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from sandbox.cgroup import groups_of, starved, starved_by_log, usage_in, usage_of
from sandbox.engine import DOOR, Exit, Meter, Program, SandboxError, Usage
from sandbox.profile import BUNDLES, Profile
from sandbox.profiles import seccomp

T = TypeVar("T")
logger = logging.getLogger(__name__)

UID = 10001
LAB, NAME = "madlab.lab", "madlab.name"  # labels
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_CALLS = 4  # in flight; see rule 1
_TIMEOUT = 60.0  # seconds for one call of the API
_GONE = 60.0  # seconds an engine may be away, as when it restarts
_DESTROY = 30.0
_LOOK = 1.0  # between two looks at the memory of a sandbox that cannot tell by itself
_LOG_BYTES = 16 * 1024  # of a program's last words
_SIGKILL = 128 + 9  # as an exit code
_MB = 1024 * 1024
_SMALL_MB = 8  # each of /tmp and /dev/shm, for programs that insist on them; taken from memory_mb
_SOCKETS = ("/var/run/docker.sock", "$XDG_RUNTIME_DIR/docker.sock", "~/.docker/run/docker.sock")


def _client() -> Any:
    """A client of the engine that DOCKER_HOST names, or of the first socket where one usually is."""
    host = os.environ.get("DOCKER_HOST")
    if not host:
        places = [os.path.expanduser(os.path.expandvars(place)) for place in _SOCKETS]
        host = "unix://" + next((place for place in places if os.path.exists(place)), places[0])
    with _speaking_plainly():
        if host.startswith("unix://"):  # the SDK would leave its socket to the garbage collector when nobody answers
            with socket.socket(socket.AF_UNIX) as knock:
                knock.connect(host.removeprefix("unix://"))
        api = docker.APIClient(base_url=host, version="auto", timeout=int(_TIMEOUT), max_pool_size=64)
    api.headers["Connection"] = "close"  # nothing to go stale when the engine restarts, nothing to be closed by anyone
    api.trust_env = False  # else REQUESTS_CA_BUNDLE and proxies of the environment get between us and the engine
    return api


@contextmanager
def _speaking_plainly(image: str = "", runtime: str = "", *, foreign: bool = False) -> Iterator[None]:
    """Turns the SDK's errors into one that says what to do. The one place where that happens."""
    try:
        yield
    except ImageNotFound as error:
        if foreign:
            raise SandboxError(
                f"the engine has no image {image}: nothing is pulled for a sandbox, so `docker pull` or build it first"
            ) from error
        raise SandboxError(
            f"the engine has no image {image}: run "
            f"`python -m sandbox.images build {image.partition('/')[2].partition(':')[0] or image}`"
        ) from error
    except APIError as error:
        said = str(error.explanation or error)
        if "unknown runtime" in said.lower() or "unknown or invalid runtime" in said.lower():
            raise SandboxError(
                f'the Docker engine knows no runtime {runtime!r}: run `madlab doctor`, or set runtime = "runc"'
            ) from error
        raise SandboxError(f"the Docker engine refused: {said[:500]}") from error
    except PermissionError as error:
        raise SandboxError("this user may not talk to the Docker engine: add it to the group docker") from error
    except (DockerException, requests.RequestException, OSError) as error:
        if "Permission denied" in str(error):
            raise SandboxError("this user may not talk to the Docker engine: add it to the group docker") from error
        raise SandboxError(
            f"no Docker engine answers: start it (`./deploy.sh` does), then try again ({error})"
        ) from error


def image_tag(lab: str, image: str, key: str = "current") -> str:
    """What an image of one lab is called in the engine."""
    return f"madlab-{lab[:8]}/{image}:{key}"


def image_of(lab: str, profile: Profile) -> str:
    """The image of a profile in the engine's words."""
    return profile.image if profile.foreign else image_tag(lab, profile.image)


class DockerSandbox:
    """One container."""

    def __init__(self, name: str, container: str, engine: "DockerEngine", *, own_kernel: bool = True) -> None:
        self.name = name
        self._container = container
        self._engine = engine
        self._exit: Exit | None = None
        self._own_kernel = own_kernel  # or may have one: of an adopted sandbox nobody has asked yet
        self._starved = False
        self.left = False

    async def wait(self) -> Exit:
        """See `Sandbox.wait`."""
        away_since: float | None = None
        while self._exit is None:
            try:
                if await self._over():
                    break
                away_since = None
            except SandboxError as error:
                away_since = away_since or current_time()
                if current_time() - away_since > _GONE:
                    raise SandboxError(f"the Docker engine went away and stayed away for {_GONE:.0f} s") from error
                await sleep(0.5)
        assert self._exit is not None
        return self._exit

    async def _over(self) -> bool:
        """Waits for the engine to say anything about the container's end, then looks for itself."""
        response = await self._engine.call(_open_wait, self._container)
        if response is not None:
            try:
                # The answer may have come with the headers: then it is in the buffer, and the socket stays silent.
                connection = _connection(response)
                connection.setblocking(False)
                if not response.raw._fp.fp.peek(1):
                    async with create_task_group() as tasks:
                        tasks.start_soon(self._end_when_starved)
                        await wait_readable(connection)
                        tasks.cancel_scope.cancel()
            finally:
                response.close()
        self._exit = await self._engine.call(_read_exit, self._container)
        if self._starved and self._exit is not None and self._exit.reason == "killed":
            self._exit = replace(self._exit, reason="out_of_memory")
        return self._exit is not None

    async def _end_when_starved(self) -> None:
        """Ends a sandbox of gVisor that ran out of memory.

        The host's kernel then kills a process that holds the sandbox's memory, often not gVisor's own kernel, which
        does not notice and waits for it for ever.
        """
        try:
            pid = await self._engine.call(_kernel, self._container) if self._own_kernel else 0
            while pid:
                await sleep(_LOOK)
                if starved(pid):
                    self._starved = True
                    await self.kill()
                    return
        except SandboxError as error:
            logger.debug("container %s cannot be watched: %s", self._container[:12], error)

    async def kill(self) -> None:
        """See `Sandbox.kill`."""
        await self._engine.call(_kill, self._container)

    async def usage(self) -> Usage:
        """See `Sandbox.usage`."""
        return await self._engine.call(_usage, self._container)

    async def meter(self) -> Meter:
        """See `Sandbox.meter`."""
        return await self._engine.call(_meter, self._container)

    def leave(self) -> None:
        """See `Sandbox.leave`."""
        self.left = True


class DockerEngine:
    """The containers of one lab."""

    name = "docker"

    def __init__(self, lab: str) -> None:
        self._lab = lab
        self._api: Any = None
        self._limiter = CapacityLimiter(_CALLS)

    async def call(
        self, function: Callable[..., T], *arguments: Any, image: str = "", runtime: str = "", foreign: bool = False
    ) -> T:
        """Runs `function(api, *arguments)` in a thread; its errors come back as SandboxError."""

        def run() -> T:
            if self._api is None:
                self._api = _client()
            with _speaking_plainly(image, runtime, foreign=foreign):
                return function(self._api, *arguments)

        return await to_thread.run_sync(run, limiter=self._limiter)

    async def aclose(self) -> None:
        """Closes the connections to the engine; a later call opens new ones."""
        api, self._api = self._api, None
        if api is not None:
            await to_thread.run_sync(api.close)

    def _container(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise SandboxError(f"{name!r} is no name for a sandbox: use a-z, 0-9 and -, at most 63")
        return f"madlab-{self._lab[:8]}-{name}"

    @asynccontextmanager
    async def open(self, name: str, program: Program) -> AsyncIterator[DockerSandbox]:
        """See `Engine.open`."""
        container = self._container(name)
        profile = program.profile
        image, runtime = image_of(self._lab, profile), profile.runtime
        config = container_config(self._lab, name, program)
        call = partial(self.call, image=image, runtime=runtime, foreign=profile.foreign)
        if profile.foreign:
            config["Image"], volumes = await call(_inspect_foreign, image)
            config["Env"].append("LD_PRELOAD=")  # what an image loads into its programs does not fit into the worker
            given = config["HostConfig"]
            taken = {*given["Tmpfs"], *(mount["Target"] for mount in given["Mounts"])}
            given["Tmpfs"] |= {place: _tmpfs(_SMALL_MB) for place in volumes if place not in taken}
        with CancelScope(shield=True):
            identity = await call(_create, container, config)
        sandbox = DockerSandbox(name, identity, self, own_kernel=runtime.startswith("runsc"))
        try:
            await call(_start, identity, program.stdin)
            yield sandbox
        finally:
            await self._leave(sandbox, identity)

    @asynccontextmanager
    async def adopt(self, name: str) -> AsyncIterator[DockerSandbox]:
        """See `Engine.adopt`."""
        identity = await self.call(_find, self._container(name), self._lab)
        if identity is None:
            raise SandboxError(f"lab {self._lab[:8]} has no sandbox {name!r}")
        sandbox = DockerSandbox(name, identity, self)
        try:
            yield sandbox
        finally:
            await self._leave(sandbox, identity)

    async def _leave(self, sandbox: DockerSandbox, identity: str) -> None:
        if not sandbox.left:
            with move_on_after(_DESTROY, shield=True):
                await self._destroy(identity)

    async def _destroy(self, container: str) -> bool:
        try:
            await self.call(_remove, container)
        except SandboxError as error:
            logger.warning("container %s could not be removed and waits to be reaped: %s", container[:12], error)
            return False
        return True

    async def names(self) -> list[str]:
        """See `Engine.names`."""
        return sorted((await self.call(_list, self._lab)).values())

    async def reap(self, keep: Collection[str]) -> list[str]:
        """See `Engine.reap`."""
        found = await self.call(_list, self._lab)
        reaped: list[str] = []

        async def destroy(container: str, name: str) -> None:
            if await self._destroy(container):
                reaped.append(name)

        async with create_task_group() as tasks:
            for container, name in found.items():
                if name not in keep:
                    tasks.start_soon(destroy, container, name)
        return sorted(reaped)

    async def about(self, runtime: str) -> str:
        """See `Engine.about`."""
        info = await self.call(lambda api: api.info())
        said = {
            key: info.get(key) for key in ("ID", "ServerVersion", "KernelVersion", "SecurityOptions", "CgroupVersion")
        }
        return json.dumps([said, info["Runtimes"].get(runtime)], sort_keys=True)

    async def runtimes(self) -> list[str]:
        """The OCI runtimes that the engine says it has. Whether one can be trusted is for `sandbox.probe` to find out.

        Raises:
            SandboxError: the engine does not answer.
        """
        return sorted(await self.call(lambda api: list(api.info()["Runtimes"])))


def container_config(lab: str, name: str, program: Program) -> dict[str, Any]:
    """What the engine is asked for: every wall of a sandbox is a line here."""
    profile = program.profile
    memory = (profile.memory_mb + profile.workspace_mb) * _MB
    memory_files = {"/workspace": profile.workspace_mb, "/tmp": _SMALL_MB}  # noqa: S108  inside the sandbox
    host_folders = {DOOR: program.door, **{bundle.place: bundle.host for bundle in profile.bundles}}
    variables = ["HOME=/workspace", "TMPDIR=/workspace", f"MADLAB_DOOR={DOOR}"]
    if profile.bundles:
        variables.append(f"MADLAB_BUNDLES={BUNDLES}")
    return {
        "Image": image_of(lab, profile),
        "Entrypoint": [],
        "Cmd": list(profile.entry),
        "User": f"{UID}:{UID}",
        "Hostname": "sandbox",
        "WorkingDir": "/",  # read-only: Python must never find a module in a workspace that others fill
        "Env": variables,
        "Labels": {LAB: lab, NAME: name},
        "NetworkDisabled": True,  # an empty network namespace of its own, in half the time of mode "none"
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "Runtime": profile.runtime,
            "NetworkMode": "none",
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "Privileged": False,
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true", f"seccomp={seccomp.text(profile.calls)}"],
            "Memory": memory,
            "MemorySwap": memory,  # the same: no swap
            "NanoCpus": int(profile.cpus * 1e9),
            "PidsLimit": profile.pids_limit,
            "OomScoreAdj": 500,  # when the machine runs out of memory, a sandbox dies before the core
            "Tmpfs": {place: _tmpfs(mb) for place, mb in memory_files.items()},
            "ShmSize": _SMALL_MB * _MB,
            "Ulimits": [
                {"Name": "core", "Soft": 0, "Hard": 0},
                {"Name": "msgqueue", "Soft": 0, "Hard": 0},
                {"Name": "nofile", "Soft": 4096, "Hard": 4096},
            ],
            # Bounded on disk, and still readable by the core that adopts the sandbox after a crash of the first.
            "LogConfig": {"Type": "local", "Config": {"max-size": "256k", "max-file": "1", "compress": "false"}},
            # The API has no nosuid and nodev for these: no-new-privileges and the list of devices stand for them.
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": str(folder),
                    "Target": place,
                    "ReadOnly": True,
                    "BindOptions": {"Propagation": "rprivate"},
                }
                for place, folder in host_folders.items()
            ],
            "RestartPolicy": {"Name": "no"},
        },
    }


def _tmpfs(mb: int) -> str:
    return f"rw,exec,nosuid,nodev,size={mb}m,nr_inodes={mb * 256},mode=0700,uid={UID},gid={UID}"


def _create(api: Any, container: str, config: dict[str, Any]) -> str:
    try:
        return str(api.create_container_from_config(config, container)["Id"])
    except (requests.RequestException, APIError) as error:
        # Without an answer it may exist all the same, and the name is ours alone; a conflict says another has the name.
        if not isinstance(error, APIError):
            with _quietly():
                api.remove_container(container, force=True)
        raise


def _inspect_foreign(api: Any, image: str) -> tuple[str, list[str]]:
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


def _start(api: Any, container: str, stdin: bytes) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
    url = api._url("/containers/{0}/attach", container)
    with api._post(url, params={"stdin": 1, "stream": 1}, headers=upgrade, stream=True) as response:
        api._raise_for_status(response)
        connection = _connection(response)
        api.start(container)
        connection.sendall(stdin)
        connection.shutdown(socket.SHUT_WR)


def _connection(response: Any) -> socket.socket:
    """The socket behind an answer that is still open."""
    connection: socket.socket = response.raw._fp.fp.raw._sock
    return connection


def _open_wait(api: Any, container: str) -> Any:
    """Asks to be told of the end; None when the container is gone."""
    response = api._post(api._url("/containers/{0}/wait", container), stream=True, timeout=None)
    if response.status_code == requests.codes.not_found:
        response.close()
        return None
    api._raise_for_status(response)
    return response


def _read_exit(api: Any, container: str) -> Exit | None:
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


def _kill(api: Any, container: str) -> None:
    try:
        api.kill(container)
    except APIError as error:
        if error.status_code not in (requests.codes.not_found, requests.codes.conflict):
            raise


def _kernel(api: Any, container: str) -> int:
    """The process that is gVisor's kernel for a container; 0 where the host's own serves it, or none any more."""
    found = api.inspect_container(container)
    return int(found["State"]["Pid"]) if found["HostConfig"]["Runtime"].startswith("runsc") else 0


def _usage(api: Any, container: str) -> Usage:
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


def _meter(api: Any, container: str) -> Meter:
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


def _find(api: Any, container: str, lab: str) -> str | None:
    try:
        found = api.inspect_container(container)
    except NotFound:
        return None
    return str(found["Id"]) if found["Config"]["Labels"].get(LAB) == lab else None


def _remove(api: Any, container: str) -> None:
    try:
        api.remove_container(container, force=True, v=True)
    except APIError as error:
        # Gone, or being removed by another who was faster.
        if error.status_code not in (requests.codes.not_found, requests.codes.conflict):
            raise


def _list(api: Any, lab: str) -> dict[str, str]:
    found = api.containers(all=True, filters={"label": f"{LAB}={lab}"})
    return {str(c["Id"]): str(c["Labels"].get(NAME, "")) for c in found}


@contextmanager
def _quietly() -> Iterator[None]:
    try:
        yield
    except (DockerException, requests.RequestException, OSError):
        logger.debug("a clean-up found nothing to do", exc_info=True)


@dataclass(frozen=True)
class Image:
    """An image in the engine."""

    id: str
    tag: str
    size: int  # bytes, with the images it stands on


class Images:
    """The images of one lab, as the image builder needs them. Synchronous: a builder has nothing else to do."""

    def __init__(self, lab: str) -> None:
        self._lab = lab
        self._api = _client()

    def tag(self, image: str, key: str) -> str:
        """What the image is called in the engine."""
        return image_tag(self._lab, image, key)

    def find(self, image: str, key: str) -> str | None:
        """The id of an image that was built from the same inputs, by this lab or another."""
        with _speaking_plainly():
            found = self._api.images(filters={"label": [f"madlab.image={image}", f"madlab.key={key}"]})
        return str(found[0]["Id"]) if found else None

    def common(self, layers: Sequence[str]) -> int:
        """How many of `layers`, given by digest and lowest first, the engine has as the ground of an image of ours."""
        with _speaking_plainly():
            most = 0
            for image in self._api.images(filters={"label": "madlab.image"}):
                with suppress(ImageNotFound):  # another lab's, dropped since we asked
                    there = self._api.inspect_image(image["Id"])["RootFS"].get("Layers") or ()
                    pairs = zip(there, layers, strict=False)
                    most = max(most, sum(1 for _ in takewhile(lambda pair: pair[0] == f"sha256:{pair[1]}", pairs)))
            return most

    def load(self, archive: IO[bytes]) -> None:
        """Gives the engine an image in the form of `docker save`."""
        with _speaking_plainly():
            for progress in self._api.load_image(archive):
                if "error" in progress:
                    raise SandboxError(f"the engine refused the image: {progress['error']}")

    def build(self, context: bytes, tag: str, labels: dict[str, str]) -> str:
        """Builds from a packed context with a Dockerfile, where a registry answers; returns the image's id."""
        with _speaking_plainly():
            said = ""
            for progress in self._api.build(
                fileobj=io.BytesIO(context), custom_context=True, tag=tag, labels=labels, rm=True, decode=True
            ):
                said = progress.get("error", said)
            if said:
                raise SandboxError(f"the engine could not build {tag}: {said}")
            return str(self._api.inspect_image(tag)["Id"])

    def name(self, identity: str, image: str, key: str) -> None:
        """Tags the image as this lab's current one, and drops the tags of older ones."""
        repository = f"madlab-{self._lab[:8]}/{image}"
        with _speaking_plainly():
            for tag in (key, "current"):
                self._api.tag(identity, repository, tag)
            for old in self._api.images(name=repository):
                for tag in old["RepoTags"] or ():
                    if tag not in (f"{repository}:{key}", f"{repository}:current"):
                        with _quietly():
                            self._api.remove_image(tag)

    def remove(self, identity: str) -> None:
        """Drops an image that turned out to be no good."""
        with _speaking_plainly(), _quietly():
            self._api.remove_image(identity, force=True)

    def forget(self) -> None:
        """Drops all tags of this lab; layers and images that another lab uses stay."""
        for image in self.list():
            with _speaking_plainly(), _quietly():
                self._api.remove_image(image.tag)

    def run(self, identity: str, command: Sequence[str]) -> tuple[int, str]:
        """Runs a command in an image, walled in like any sandbox, and returns its exit code and what it said."""
        config = {
            "Image": identity,
            "Cmd": list(command),
            "NetworkDisabled": True,
            "Labels": {LAB: self._lab, NAME: "check"},
            "Env": ["HOME=/workspace", "TMPDIR=/workspace"],
            "HostConfig": {
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges:true", f"seccomp={seccomp.text()}"],
                "Tmpfs": {"/workspace": f"rw,exec,nosuid,nodev,size=64m,uid={UID},gid={UID}"},
                "Memory": 1024 * _MB,
                "PidsLimit": 256,
            },
        }
        with _speaking_plainly(identity):
            container = self._api.create_container_from_config(config)["Id"]
            try:
                self._api.start(container)
                code = self._api.wait(container)["StatusCode"]
                return int(code), self._api.logs(container).decode(errors="replace")
            finally:
                self._api.remove_container(container, force=True)

    def list(self) -> list[Image]:
        """This lab's images."""
        with _speaking_plainly():
            found = self._api.images()
        prefix = f"madlab-{self._lab[:8]}/"
        tags = ((tag, image) for image in found for tag in image["RepoTags"] or ())
        return sorted(
            (Image(image["Id"], tag, image["Size"]) for tag, image in tags if tag.startswith(prefix)),
            key=lambda image: image.tag,
        )
