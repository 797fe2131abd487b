"""Keys of providers: from the vault, or from files that only their owner reads; shown by nothing.

A key lives in three places: the vault or its file, a `Key` in the memory of the core while a request needs it, and the
header of that request, which `core.fiedler.wire` writes at the last moment. The SDKs never hold one, so neither do
their errors, logs and objects.
"""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol

from core.turing.secret import Secret
from protos.errors import Conflict, Denied, NotFound, Unavailable

MAX_BYTES = 4096


class Key:
    """A secret string that does not show itself."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value: for the header of a request, and to make it known to the redactor."""
        return self._value

    def __repr__(self) -> str:
        return "Key(hidden)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not written anywhere")


class Keys(Protocol):
    """Where keys come from."""

    def find(self, provider: str) -> Key | None:
        """The key of a provider, or None where it needs none.

        Raises:
            Denied: it has one that cannot be used; the sentence says why and never holds any of it.
        """
        ...


@dataclass
class KeyFiles:
    """One file a provider. Read again when it changes, so a key is rotated by replacing its file."""

    files: Mapping[str, Path]
    _known: dict[str, tuple[tuple[int, ...], Key]] = field(default_factory=dict, repr=False)

    def find(self, provider: str) -> Key | None:
        path = self.files.get(provider)
        if path is None:
            return None
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise Denied(
                f"The key of {provider} cannot be read from {path}: {error.strerror}.",
                next=f"Write the key into that file (a file, no link), and: chmod 600 {path}",
            ) from None
        try:
            about = os.fstat(descriptor)
            _check(provider, path, about)
            version = (about.st_ino, about.st_mtime_ns, about.st_ctime_ns, about.st_size)
            if provider in self._known and self._known[provider][0] == version:
                return self._known[provider][1]
            key = parse(provider, path, os.read(descriptor, MAX_BYTES + 1))
        finally:
            os.close(descriptor)
        self._known[provider] = version, key
        return key


@dataclass
class VaultKeys:
    """Keys that the settings name as secrets of the vault; those of other providers are in files.

    Opened anew for each request, so a key is rotated by rotating its secret.
    """

    names: Mapping[str, str]  # provider → secret
    open_secret: Callable[[str], Secret]
    files: KeyFiles

    def find(self, provider: str) -> Key | None:
        name = self.names.get(provider)
        if name is None:
            return self.files.find(provider)
        try:
            with self.open_secret(name) as secret:
                key = _key(secret.reveal())
        except (Conflict, NotFound, Unavailable) as error:
            raise Denied(
                f"The key of {provider}, secret://{name}, cannot be had: {error.message}", next=error.next
            ) from None
        if key is None:
            raise Denied(
                f"The secret {name} is no key of {provider}: it is not one line of visible characters.",
                next=f"Give it the key: madlab secret rotate {name}",
            )
        return key


def _check(provider: str, path: Path, about: os.stat_result) -> None:
    wrong = ""
    if not stat.S_ISREG(about.st_mode):
        wrong = "is no regular file"
    elif about.st_uid != os.geteuid():
        wrong = "belongs to somebody else"
    elif about.st_mode & 0o077:
        wrong = f"can be opened by others (mode {stat.S_IMODE(about.st_mode):04o})"
    if wrong:
        raise Denied(f"The key file {path} of {provider} {wrong}.", next=f"Own it, and: chmod 600 {path}")


def parse(provider: str, path: Path, content: bytes) -> Key:
    """The key that a file holds.

    Raises:
        Denied: it holds something else.
    """
    key = _key(content)
    if key is None:
        raise Denied(
            f"The key file {path} of {provider} does not hold one line of visible characters.",
            next="Write the key, and nothing else, into it.",
        )
    return key


def _key(content: bytes) -> Key | None:
    value = content.strip()
    if not value or len(content) > MAX_BYTES or not all(33 <= byte <= 126 for byte in value):
        return None
    return Key(value.decode("ascii"))
