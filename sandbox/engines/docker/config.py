"""What the engine is asked for: the one place where a sandbox's walls are written down."""

from typing import Any

from sandbox.engine import DOOR, Program
from sandbox.profile import BUNDLES, Profile
from sandbox.profiles import seccomp

UID = 10001
LAB, NAME = "madlab.lab", "madlab.name"  # labels
MB = 1024 * 1024
SMALL_MB = 8  # each of /tmp and /dev/shm, for programs that insist on them; taken from memory_mb


def image_tag(lab: str, image: str, key: str = "current") -> str:
    """What an image of one lab is called in the engine."""
    return f"madlab-{lab[:8]}/{image}:{key}"


def image_of(lab: str, profile: Profile) -> str:
    """The image of a profile in the engine's words."""
    return profile.image if profile.foreign else image_tag(lab, profile.image)


def container_config(lab: str, name: str, program: Program) -> dict[str, Any]:
    """What the engine is asked for: every wall of a sandbox is a line here."""
    profile = program.profile
    memory = (profile.memory_mb + profile.workspace_mb) * MB
    memory_files = {"/workspace": profile.workspace_mb, "/tmp": SMALL_MB}  # noqa: S108  inside the sandbox
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
            "Tmpfs": {place: tmpfs(mb) for place, mb in memory_files.items()},
            "ShmSize": SMALL_MB * MB,
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


def tmpfs(mb: int) -> str:
    """The options of a file system in memory of so many MiB, for the sandbox's user alone."""
    return f"rw,exec,nosuid,nodev,size={mb}m,nr_inodes={mb * 256},mode=0700,uid={UID},gid={UID}"
