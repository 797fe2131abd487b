"""Looks for secrets where a lab could have left them: files, names of files, processes, the engine's own words."""

import json
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import docker

from tests.security.forms import seen

FILE_BYTES = 64 * 1024 * 1024


def found_below(root: Path, *keys: str, but: tuple[Path, ...] = ()) -> list[str]:
    """Every file below a directory that holds a form of a key, links not followed, and the names themselves."""
    found = []
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = Path(directory, name)
            if path in but:
                continue
            content = str(path).encode("utf-8", "surrogateescape")
            with suppress(OSError):  # what a sandbox has may be gone in this moment
                if stat.S_ISREG(path.lstat().st_mode) and path.lstat().st_size < FILE_BYTES:
                    content += path.read_bytes()
            found += [f"{path}: {form}" for key in keys for form in seen(key, content)]
    return found


def told_by_processes(*keys: str, but: Iterable[int] = (os.getpid(),)) -> list[str]:
    """Every process of this machine whose command line or environment holds a form of a key."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) in but:
            continue
        for each in ("cmdline", "environ"):
            try:
                content = (process / each).read_bytes()
            except OSError:
                continue
            found += [f"{process / each}: {form}" for key in keys for form in seen(key, content)]
    return found


def told_by_engine(lab: str, *keys: str) -> list[str]:
    """What the engine says of a lab's images and containers, as far as it holds a form of a key."""
    api = docker.APIClient(version="auto")
    api.trust_env = False
    told = []
    try:
        for image in api.images():
            if any(tag.startswith(f"madlab-{lab}/") for tag in image["RepoTags"] or ()):
                told += [api.inspect_image(image["Id"]), api.history(image["Id"])]  # type: ignore[no-untyped-call]
        for container in api.containers(all=True, filters={"label": f"madlab.lab={lab}"}):
            with suppress(docker.errors.APIError):  # it has just gone
                told += [api.inspect_container(container["Id"]), str(api.logs(container["Id"]))]
    finally:
        api.close()
    return [form for key in keys for form in seen(key, json.dumps(told).encode())]
