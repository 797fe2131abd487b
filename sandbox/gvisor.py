"""Offers gVisor (`runsc`) to the Docker engine of this machine: fetched from Debian, checked by apt, registered.

Run by deploy.sh as `python -m sandbox.gvisor`. Never fatal: without it the runtime is runc. And never believed: whether
sandboxes may use it is decided by how it behaves (`sandbox.probe`), not by its version. Debian trixie's package is one
static program; it is unpacked to a place of its own, nothing is installed.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sandbox.images.debian import Apt, NoDebian, unpack
from sandbox.images.spec import architecture

PROGRAM = Path("/usr/local/lib/madlab/runsc")
DAEMON = Path("/etc/docker/daemon.json")
PID = Path("/var/run/docker.pid")

# host-uds: a program may connect to the socket in its door, the one host path it sees, and to no other.
# network none: only loopback, and no network stack beyond it. oci-seccomp: our allow list also holds inside.
ARGUMENTS = ["--host-uds=open", "--network=none", "--platform=systrap", "--oci-seccomp"]


def fetch() -> None:
    """Puts runsc at PROGRAM.

    Raises:
        NoDebian: this machine's apt does not lead to it.
    """
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        apt = Apt(work / "apt", architecture())
        apt.update()
        packages = apt.resolve(["runsc"])
        apt.fetch(packages, work)
        unpack(packages, work, work / "root")
        PROGRAM.parent.mkdir(parents=True, exist_ok=True)
        unfinished = PROGRAM.with_suffix(".new")
        unfinished.write_bytes((work / "root/usr/bin/runsc").read_bytes())
        unfinished.chmod(0o755)
        unfinished.rename(PROGRAM)


def register() -> None:
    """Names the runtime in the engine's configuration, keeping what else is there, and has the engine read it again."""
    settings = json.loads(DAEMON.read_text()) if DAEMON.exists() else {}
    settings.setdefault("runtimes", {})["runsc"] = {"path": str(PROGRAM), "runtimeArgs": ARGUMENTS}
    DAEMON.parent.mkdir(parents=True, exist_ok=True)
    unfinished = DAEMON.with_suffix(".madlab")
    unfinished.write_text(json.dumps(settings, indent=2) + "\n")
    unfinished.rename(DAEMON)
    os.kill(int(PID.read_text()), signal.SIGHUP)


def _known() -> bool:
    command = ["docker", "info", "--format", "{{range $name, $_ := .Runtimes}}{{$name}} {{end}}"]
    return "runsc" in subprocess.run(command, capture_output=True, text=True).stdout.split()


def main() -> str | None:
    """Returns None when the engine knows runsc, else one sentence that says why not."""
    if _known():
        return None
    if os.geteuid() != 0 or not PID.exists():
        return "gVisor was not set up: that takes root and an engine of this machine"
    try:
        if not PROGRAM.exists():
            fetch()
        register()
    except (NoDebian, OSError, ValueError) as error:
        return f"gVisor was not set up: {error}"
    for _ in range(50):
        if _known():
            return None
        time.sleep(0.1)
    return f"gVisor was not set up: the engine did not take {DAEMON} in; restart it"


if __name__ == "__main__":
    sys.exit(main())
