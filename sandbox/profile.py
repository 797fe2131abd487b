"""A profile: how much of the machine one sandbox may have, and which runtime isolates it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """Limits of one sandbox. The kernel enforces each; none is a wish."""

    image: str
    entry: tuple[str, ...]  # the program and its arguments inside the image
    runtime: str = "runc"  # an OCI runtime the engine knows: runc, runsc
    memory_mb: int = 256  # without the workspace; swap is off
    workspace_mb: int = 64  # a tmpfs at /workspace, with `workspace_mb * 256` inodes; counted on top of memory_mb
    cpus: float = 1.0
    pids: int = 128  # processes and threads
    warm: int = 0  # started, attached, unassigned sandboxes kept ready

    @property
    def pids_limit(self) -> int:
        """What is asked of the engine: gVisor's own kernel is threads of the sandbox too, and dies with fewer."""
        return max(self.pids, 512) if self.runtime.startswith("runsc") else self.pids
