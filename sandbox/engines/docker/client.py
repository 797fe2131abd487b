"""The way to the Docker engine, and its errors in words that say what to do."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound

from sandbox.engine import SandboxError
from sandbox.images import how_to_make

logger = logging.getLogger(__name__)

_TIMEOUT = 60.0  # seconds for one call of the API
_SOCKETS = ("/var/run/docker.sock", "$XDG_RUNTIME_DIR/docker.sock", "~/.docker/run/docker.sock")


def open_client() -> Any:
    """A client of the engine that DOCKER_HOST names, or of the first socket where one usually is."""
    host = os.environ.get("DOCKER_HOST")
    if not host:
        places = [os.path.expanduser(os.path.expandvars(place)) for place in _SOCKETS]
        host = "unix://" + next((place for place in places if os.path.exists(place)), places[0])
    with speaking_plainly():
        if host.startswith("unix://"):  # the SDK would leave its socket to the garbage collector when nobody answers
            with socket.socket(socket.AF_UNIX) as knock:
                knock.connect(host.removeprefix("unix://"))
        api = docker.APIClient(base_url=host, version="auto", timeout=int(_TIMEOUT), max_pool_size=64)
    api.headers["Connection"] = "close"  # nothing to go stale when the engine restarts, nothing to be closed by anyone
    api.trust_env = False  # else REQUESTS_CA_BUNDLE and proxies of the environment get between us and the engine
    return api


@contextmanager
def speaking_plainly(image: str = "", runtime: str = "", *, foreign: bool = False) -> Iterator[None]:
    """Turns the SDK's errors into one that says what to do. The one place where that happens."""
    try:
        yield
    except ImageNotFound as error:
        if foreign:
            raise SandboxError(
                f"the engine has no image {image}: nothing is pulled for a sandbox, so `docker pull` or build it first"
            ) from error
        lab, _, name = image.partition(":")[0].removeprefix("madlab-").partition("/")
        mend = how_to_make(lab, name) if name else "run `./deploy.sh`"
        raise SandboxError(f"the engine has no image {image}: {mend}") from error
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


@contextmanager
def quietly() -> Iterator[None]:
    """For what may be gone already, or go later."""
    try:
        yield
    except (DockerException, requests.RequestException, OSError):
        logger.debug("a clean-up found nothing to do", exc_info=True)
