"""Archives of Debian packages: which addresses an apt asks for, and how old a package is.

Their lists are signed, so nothing can be taken out of them, and tell no time. So apt gets them as they are and checks
signatures and digests itself, in the sandbox, as it always does; the age of a package is looked at when it is fetched,
and one that is too young is refused. Two things tell it, and the later one counts: when the archive has put the file
there (`Last-Modified`), which is the archive's word, and when it was built, which stands in the package (the time of
its first member, deb(5) and ar(5)).
"""

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from protos.errors import Unavailable

HEAD_BYTES = 68  # of a package: the magic string of ar, and the head of its first member
_MAGIC, _FIRST = b"!<arch>\n", b"debian-binary"
_NAME = r"[A-Za-z0-9][A-Za-z0-9.+~-]*"
_LIST = re.compile(rf"dists/(?:{_NAME}/){{1,5}}(?:{_NAME}|by-hash/(?:MD5Sum/[0-9a-f]{{32}}|SHA256/[0-9a-f]{{64}}))")
_PACKAGE = re.compile(rf"pool/(?:{_NAME}/){{1,5}}(?P<name>{_NAME})_(?P<version>{_NAME})_[a-z0-9-]+\.deb")


@dataclass(frozen=True, slots=True)
class Deb:
    """A package by its address."""

    project: str
    version: str
    name: str  # of the file


def is_list(path: str) -> bool:
    """Whether a path within an archive is one of its lists."""
    return _LIST.fullmatch(path) is not None


def package(path: str) -> Deb | None:
    """The package at a path within an archive, if it is one."""
    found = _PACKAGE.fullmatch(path)
    return Deb(found["name"], found["version"], path.rpartition("/")[2]) if found else None


def modified(text: bytes) -> float:
    """When a server says that a file was put there, in seconds since the epoch; 0 where it does not."""
    try:
        return max(parsedate_to_datetime(text.decode("ascii")).timestamp(), 1.0)
    except (ValueError, OverflowError):
        return 0.0


def built(head: bytes) -> float:
    """When a package was built, in seconds since the epoch, by its first `HEAD_BYTES`.

    Raises:
        Unavailable: it is no Debian package.
    """
    if not head.startswith(_MAGIC + _FIRST) or not head[24:36].strip().isdigit():
        raise Unavailable("The archive has answered with something that is no Debian package.")
    return float(head[24:36])
