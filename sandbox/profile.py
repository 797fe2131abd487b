"""A profile: how much of the machine one sandbox may have, what of the host it may read, which runtime isolates it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Grade = Literal["none", "namespace", "container", "kernel"]  # what a runtime stops: `sandbox.grades`
GRADES: tuple[Grade, ...] = ("none", "namespace", "container", "kernel")  # the least first
Calls = Literal["usual", "browser"]
BUNDLES = "/bundle"  # where a program finds its bundles; MADLAB_BUNDLES says so too, and elsewhere where it must
_PLACE = re.compile(rf"{BUNDLES}/[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class Bundle:
    """A folder of ours on the host that a sandbox may read: model weights, a worker. Never a user's folder.

    Whoever makes it checks its content against `digest` and never changes it again; the engine mounts it, and a
    profile with another digest is another profile. What is in it must be readable by everybody.

    Raises:
        ValueError: the place is not one folder below /bundle.
    """

    host: Path
    place: str  # in the sandbox: /bundle/NAME
    digest: str  # of its content, as "sha256:…"

    def __post_init__(self) -> None:
        if not _PLACE.fullmatch(self.place):
            raise ValueError(f"a bundle's place is {BUNDLES}/NAME, with a-z, 0-9 and -: not {self.place!r}")


@dataclass(frozen=True)
class Profile:
    """Limits of one sandbox. The kernel enforces each; none is a wish."""

    image: str  # of the lab, as `sandbox.images` calls it
    entry: tuple[str, ...]  # the program and its arguments inside the image
    runtime: str = "runc"  # what isolates: "bwrap", or an OCI runtime that Docker knows: "runc", "runsc"
    least: Grade = "container"  # what the runtime must have been seen to stop; whoever opens a sandbox looks
    memory_mb: int = 256  # without the workspace; swap is off
    workspace_mb: int = 64  # a tmpfs at /workspace, with `workspace_mb * 256` inodes; counted on top of memory_mb
    cpus: float = 1.0
    pids: int = 128  # processes and threads
    calls: Calls = "usual"  # the system calls that it may make: `sandbox.profiles.seccomp`
    warm: int = 0  # started, attached, unassigned sandboxes kept ready
    bundles: tuple[Bundle, ...] = ()  # mounted read-only
    foreign: bool = False  # `image` is no image of the lab, but what the engine itself calls so: "alpine:3.20"

    @property
    def pids_limit(self) -> int:
        """What is asked of the engine: gVisor's own kernel is threads of the sandbox too, and dies with fewer."""
        return max(self.pids, 512) if self.runtime.startswith("runsc") else self.pids
