"""A value that does not show itself: the one form in which the core holds a secret while it is in use.

Python copies bytes freely and frees them when it likes, so `wipe` is a courtesy: it zeroes this object's own buffer,
and whatever `reveal` has handed out lives until it is collected. What keeps a value out of sight is that nothing can
write this object down by accident: it has no text, no form for a log, a pickle, a copy or an f-string.
"""

import hmac
from types import TracebackType
from typing import NoReturn, Self

MAX_BYTES = 64 * 1024


class Secret:
    """A secret value with the name it goes by."""

    __slots__ = ("_buffer", "name", "version")

    def __init__(self, value: bytes | bytearray, *, name: str = "", version: int = 0) -> None:
        self._buffer = bytearray(value)
        self.name = name
        self.version = version

    def reveal(self) -> bytes:
        """The value itself, a copy. Call it where the value leaves, and keep nothing of it."""
        return bytes(self._buffer)

    def within(self, before: bytes, after: bytes) -> "Secret":
        """The value with text around it, as a header wants it: as secret as the value."""
        return Secret(before + self._buffer + after, name=self.name, version=self.version)

    def wipe(self) -> None:
        """Zeroes the buffer of this object. Copies that Python made are not reached."""
        for place in range(len(self._buffer)):
            self._buffer[place] = 0
        self._buffer.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()

    def __eq__(self, other: object) -> bool:
        """Takes as long for a wrong guess as for a right one."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._buffer, other._buffer)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Secret({self.name}, hidden)"

    def __str__(self) -> NoReturn:
        raise TypeError("a secret has no text: reveal() where it leaves")

    def __format__(self, spec: str) -> NoReturn:
        raise TypeError("a secret has no text: reveal() where it leaves")

    def __bytes__(self) -> NoReturn:
        raise TypeError("a secret is not bytes: reveal() where it leaves")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not written anywhere, and not copied")
