"""The other road to an image, **not verified here**: from a pulled Python image, where no Debian mirror is at hand.

For macOS and other distributions, where a container registry and a package index answer. The image then has a shell
and a package manager, is larger, and is not the same bytes each time; the walls around it are the same.
"""

import io
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox.images.spec import Spec

FROM = "python:3.13-slim-trixie"
_SITE = "/usr/local/lib/python3.13/site-packages"


def context(spec: "Spec", parent: str | None) -> bytes:
    """A packed build context: the Dockerfile, the lock and our own files. `parent` is the tag of the image below."""
    sources = spec.sources()
    steps = [f"FROM {parent or FROM}", "USER 0:0"]
    if parent is None:
        steps.append(
            "RUN groupadd -g 10001 madlab && useradd -u 10001 -g 10001 -d /workspace -s /usr/sbin/nologin madlab"
            " && mkdir -p /workspace /run/madlab"
        )
    elif spec.debian:
        steps.append(f"RUN apt-get update && apt-get install -y --no-install-recommends {' '.join(spec.debian)}")
    if spec.requirements.exists():
        steps.append("COPY requirements.txt /requirements.txt")
        steps.append("RUN pip install --no-cache-dir --no-deps --require-hashes -r /requirements.txt")
    if sources:
        steps += ["COPY files /", f"RUN python3 -m compileall -q --invalidation-mode unchecked-hash {_SITE}"]
    steps += [f'ENV {name}="{value}"' for name, value in spec.env if name != "PATH"]
    steps += ["USER 10001:10001", "WORKDIR /"]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        _add(archive, "Dockerfile", "\n".join(steps).encode())
        if spec.requirements.exists():
            _add(archive, "requirements.txt", spec.requirements.read_bytes())
        for place, source in sources:
            there = place.replace("usr/local/lib/python3.13/dist-packages", _SITE.lstrip("/"))
            _add(archive, f"files/{there}", source.read_bytes())
    return packed.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    archive.addfile(member, io.BytesIO(content))
