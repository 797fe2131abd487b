"""Images made on this machine, without a registry: `python -m sandbox.images build NAME...`."""

import shlex
import sys
from collections.abc import Iterable

ASKED_FOR = {"hopper-agents": "--agents"}  # what deploy.sh makes only when it is told to, and how that is said


def build_command(lab: str, names: Iterable[str], engine: str = "docker") -> str:
    """What makes these images for a lab, as one types it, wherever one stands."""
    words = [sys.executable, "-m", "sandbox.images", "--lab", lab, "build", *names]
    return shlex.join(words if engine == "docker" else [*words, "--engine", engine])


def how_to_make(lab: str, name: str, engine: str = "docker") -> str:
    """What to do for an image that is not there."""
    deploy = " ".join(("./deploy.sh", *filter(None, [ASKED_FOR.get(name)])))
    return f"run `{deploy}`, or `{build_command(lab, [name], engine)}`"
