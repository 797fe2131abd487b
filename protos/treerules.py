"""What a packed tree may be: its names, its links, its caps. One set of rules for packing, listing and unpacking.

Names are text as the file system gives it: bytes that are not UTF-8 stand as lone surrogates (`surrogateescape`).
"""

import unicodedata
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from protos.errors import InvalidArgument

LINK_BYTES = 4095  # the kernel's own limit for a link's text

UNFIT = frozenset({"", ".", ".."})  # as parts of a path

Kind = Literal["file", "directory", "link"]


@dataclass(frozen=True)
class Caps:
    """How big a tree may be. Directories are counted apart from files, against the same cap."""

    files: int = 50_000
    bytes: int = 2 * 1024**3
    name_bytes: int = 255  # of one part of a path
    depth: int = 64  # parts of a path


class TreeRefused(InvalidArgument):
    """A tree breaks a rule or a cap.

    `name` is the offender, escaped; `value` what was found; `cap` what is allowed; `setting` the configuration that
    changes it, empty where none does.
    """

    def __init__(self, name: str, cap: str, value: str, setting: str = "") -> None:
        self.name, self.cap, self.value, self.setting = escaped(name), cap, value, setting
        shown = f"'{self.name}'" if name else "the tree"
        super().__init__(
            f"{shown}: {value}; {cap}" + (f" (setting {setting})" if setting else ""),
            next=f"raise {setting} or leave it out" if setting else "rename it, remove it or leave it out",
        )


def escaped(name: str, limit: int = 300) -> str:
    """`name` on one line of printable characters, cut in the middle where it is longer than `limit`."""
    text = "".join(
        each if each.isprintable() and each != "\\" else _escape(each)
        for each in (name if len(name) <= limit else f"{name[: limit // 2]} … {name[-limit // 2 :]}")
    )
    return text


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def parts_of(name: str, caps: Caps) -> list[str]:
    """The parts of a relative path that keeps the rules for names.

    Raises:
        TreeRefused: it does not.
    """
    if name.startswith("/"):
        raise TreeRefused(name, "names are relative", "an absolute name")
    if name.count("/") >= caps.depth:
        raise TreeRefused(name, f"at most {caps.depth}", f"{name.count('/') + 1} levels deep", "tree.depth")
    parts = name.split("/")
    if name.isascii() and name.isprintable() and UNFIT.isdisjoint(parts) and len(name) <= caps.name_bytes:
        return parts  # nearly all of them
    for part in parts:
        if part in UNFIT:
            raise TreeRefused(name, "each part of a path is a name", f"a part that is '{part}'")
        length = len(encode(part, name))
        if length > caps.name_bytes:
            raise TreeRefused(name, f"at most {caps.name_bytes}", f"a name of {length} bytes", "tree.name_bytes")
    if misleads(name):
        raise TreeRefused(name, "none is allowed", "a control character or line break in the name")
    return parts


def check_target(name: str, target: str) -> None:
    """Makes sure that the link `name` stays inside the tree by its text alone.

    Raises:
        TreeRefused: it does not, or nobody can tell.
    """
    value = f"a link to '{escaped(target)}'"
    if not target or len(encode(target, name)) > LINK_BYTES or misleads(target):
        raise TreeRefused(name, "a link's text is short and printable", value)
    if target.startswith("/"):
        raise TreeRefused(name, "links stay inside the tree", value)
    steps = [each for each in target.split("/") if each not in ("", ".")]
    rising = 0
    while rising < len(steps) and steps[rising] == "..":
        rising += 1
    if rising > name.count("/") or ".." in steps[rising:]:
        raise TreeRefused(name, "links stay inside the tree, with '..' only at their start", value)


def misleads(text: str) -> bool:
    """Whether it holds characters that break a line or drive a terminal."""
    if text.isascii():
        return not text.isprintable()
    return any(unicodedata.category(each) in ("Cc", "Zl", "Zp") for each in text)


def encode(text: str, name: str) -> bytes:
    """`text` as the file system has it.

    Raises:
        TreeRefused: it cannot have it; `name` is the offender.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise TreeRefused(name, "names are UTF-8, or bytes from a file system", "a character that is neither") from None


class Census:
    """Counts a tree against its caps, and knows which names are taken, in a bounded number of bytes per name."""

    def __init__(self, caps: Caps) -> None:
        self.caps = caps
        self.files = self.directories = self.links = self.bytes = 0
        self._taken: dict[bytes, bool] = {}  # digest of a path: was it named itself, or follows it from one below?
        self._solid: set[bytes] = set()  # files and links, below which there is nothing
        self._parent: list[str] = []

    def enter(self, name: str, kind: Kind, size: int = 0) -> list[str]:
        """Takes one entry in and returns the parts of its name."""
        parts = parts_of(name, self.caps)
        if parts[:-1] != self._parent:
            self._parent = parts[:-1]
            for depth in range(1, len(parts)):
                self._imply(name, "/".join(parts[:depth]))
        key = _key(name)
        if self._taken.get(key) or (key in self._taken and kind != "directory"):
            raise TreeRefused(name, "each name is there once", "the name comes twice")
        if kind == "directory":
            if key not in self._taken:
                self._count_directory(name)
        else:
            self._solid.add(key)
            self.files += kind == "file"
            self.links += kind == "link"
            if self.files + self.links > self.caps.files:
                raise TreeRefused(name, f"at most {self.caps.files:,}", f"file {self.caps.files + 1:,}", "tree.files")
        self._taken[key] = True
        self.bytes += size
        if self.bytes > self.caps.bytes:
            raise TreeRefused(name, f"at most {self.caps.bytes:,}", f"{self.bytes:,} bytes up to here", "tree.bytes")
        return parts

    def _imply(self, name: str, parent: str) -> None:
        key = _key(parent)
        if key in self._solid:
            raise TreeRefused(name, "only a directory has names below it", f"'{escaped(parent)}' is a file or a link")
        if key not in self._taken:
            self._taken[key] = False
            self._count_directory(name)

    def _count_directory(self, name: str) -> None:
        self.directories += 1
        if self.directories > self.caps.files:
            raise TreeRefused(name, f"at most {self.caps.files:,}", f"directory {self.caps.files + 1:,}", "tree.files")


def _key(name: str) -> bytes:
    return blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).digest()
