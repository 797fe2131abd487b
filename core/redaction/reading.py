r"""Text as it reads once nothing in it is escaped: the one form in which an escaped value is looked for.

A value is written down in countless mixtures: JSON escapes what it must and some writers escape more, URLs leave out
what is "safe" somewhere, HTML has three spellings of a quote, a shell its own, base64 is broken into lines, and one
thing is wrapped in another. Listing the mixtures is hopeless. So both sides are brought to one form, compared there:

- a run of backslashes counts as one, ``\n``, ``\r``, ``\x41`` and ``\u0041`` are what they stand for, and any other
  backslash is nothing;
- ``%41`` and ``&#65;``, ``&#x41;``, ``&amp;`` and their like are what they stand for;
- a line break is nothing, with the indentation behind it;
- and all that again while something changes, at most `ROUNDS` times.

This is no decoder: what is different may become the same. It only has to make the same what is the same.

`plain` is the quick way and is taken for every text; `Plain` remembers where each byte came from and is only made where
something was found. Both take the same steps.
"""

import re
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

ROUNDS = 3  # escapes within escapes: JSON in a URL in JSON
LONGEST = 12  # bytes that an escape takes for one byte of the text: about the most


class _Step(NamedTuple):
    """One kind of escape: what it cannot do without, what it is, what it stands for, and a quicker way for all."""

    sign: bytes
    pattern: re.Pattern[bytes]
    undo: Callable[[re.Match[bytes]], bytes]
    quick: Callable[[bytes], bytes]


def _step(sign: bytes, pattern: bytes, undo: Callable[[re.Match[bytes]], bytes]) -> _Step:
    compiled = re.compile(pattern)
    return _Step(sign, compiled, undo, lambda data: compiled.sub(undo, data))


def _point(text: bytes, base: int) -> bytes:
    point = int(text, base)
    return chr(point).encode("utf-8", "surrogatepass") if point < 0x110000 else b""


def _unicode(match: re.Match[bytes]) -> bytes:
    high, low = match[0][2:6], match[0][8:]
    return _point(b"%x" % (0x10000 + (int(high, 16) - 0xD800 << 10) + int(low, 16) - 0xDC00) if low else high, 16)


def _collapse(data: bytes) -> bytes:
    while b"\\\\" in data:
        data = data.replace(b"\\\\", b"\\")
    return data


def _join_lines(data: bytes) -> bytes:
    if b"\n " not in data and b"\n\t" not in data:
        return data.replace(b"\n", b"")
    first, *rest = data.split(b"\n")
    return b"".join((first, *[each.lstrip(b" \t") for each in rest]))


_BYTES = {b"%02X" % each: bytes([each]) for each in range(256)} | {b"%02x" % each: bytes([each]) for each in range(256)}
_NAMED = {b"amp": b"&", b"lt": b"<", b"gt": b">", b"quot": b'"', b"apos": b"'"}
_LINE = re.compile(rb"\\[nr]")
_STEPS = (
    _Step(b"\\\\", re.compile(rb"\\{2,}"), lambda _: b"\\", _collapse),
    _step(b"\\u", rb"\\u(?:[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}|[0-9A-Fa-f]{4})", _unicode),
    _step(b"\\x", rb"\\x([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)])),
    _Step(b"\\", _LINE, lambda _: b"\n", lambda data: data.replace(b"\\n", b"\n").replace(b"\\r", b"\n")),
    _Step(b"\\", re.compile(rb"\\"), lambda _: b"", lambda data: data.replace(b"\\", b"")),
    _step(b"%", rb"%([0-9A-Fa-f]{2})", lambda match: _BYTES.get(match[1]) or bytes([int(match[1], 16)])),
    _step(b"&", rb"&#x([0-9A-Fa-f]{1,6});", lambda match: _point(match[1], 16)),
    _step(b"&", rb"&#([0-9]{1,7});", lambda match: _point(match[1], 10)),
    _step(b"&", rb"&(amp|lt|gt|quot|apos);", lambda match: _NAMED[match[1]]),
    _Step(b"\r", re.compile(rb"\r"), lambda _: b"", lambda data: data.replace(b"\r", b"")),
    _Step(b"\n", re.compile(rb"\n[ \t]*"), lambda _: b"", _join_lines),
)
_WITHOUT_BACKSLASHES = _STEPS[5:]
_CUT = re.compile(
    rb"(?:%[0-9A-Fa-f]?|&[#A-Za-z0-9]{0,8}|\n[ \t]*"
    rb"|(?<!\\)\\+(?:u[dD][89abAB][0-9A-Fa-f]{2}(?:\\+(?:u[0-9A-Fa-f]{0,3})?)?|u[0-9A-Fa-f]{0,3}|x[0-9A-Fa-f]?)?)\Z"
)


def is_plain(data: bytes) -> bool:
    """Whether there is nothing to undo."""
    return not (b"\\" in data or b"%" in data or b"&" in data or b"\n" in data or b"\r" in data)


def plain(data: bytes) -> bytes:
    """`data` as it reads once nothing in it is escaped."""
    for _ in range(ROUNDS):
        before = data
        for sign, _pattern, _undo, quick in _STEPS if b"\\" in data else _WITHOUT_BACKSLASHES:
            if sign in data:
                data = quick(data)
        if is_plain(data) or data == before:
            break
    return data


class Plain:
    """`plain` of some data, with the way back.

    Of a stream's `beginning` it leaves out what the end may have cut in two, at whatever depth: an escape, or a line
    break that may go on. `cut` is where that begins in the data.
    """

    def __init__(self, data: bytes, *, beginning: bool = False) -> None:
        self.data = data
        self.cut = len(data)
        self._layers: list[_Layer] = []
        for _ in range(ROUNDS):
            before = self.data
            if beginning and (cut := _CUT.search(self.data)):
                self.cut = min(self.cut, self.source(cut.start(), cut.end())[0])
                self.data = self.data[: cut.start()]
            for each in _STEPS:
                if each.sign in self.data:
                    layer = _Layer(self.data, each)
                    self._layers.append(layer)
                    self.data = layer.data
            if self.data == before:
                break

    def source(self, start: int, end: int) -> tuple[int, int]:
        """Where what now stands from `start` to before `end` stood in the data, with the whole of each escape."""
        for each in reversed(self._layers):
            start, end = each.source(start)[0], each.source(end - 1)[1]
        return start, end


class _Layer:
    """One step taken: stretches of text that are as they were, and what each escape has become."""

    def __init__(self, data: bytes, step: _Step) -> None:
        self._starts = [0]  # in the new text, of each stretch
        self._sources = [(0, 0)]  # in the old one; the second is the end of an escape, 0 for a stretch as it was
        pieces: list[bytes] = []
        at = read = 0
        for match in step.pattern.finditer(data):
            pieces.append(data[read : match.start()])
            at += match.start() - read
            if made := step.undo(match):
                pieces.append(made)
                self._starts.append(at)
                self._sources.append(match.span())
                at += len(made)
            read = match.end()
            self._starts.append(at)
            self._sources.append((read, 0))
        self.data = b"".join((*pieces, data[read:])) if read else data

    def source(self, at: int) -> tuple[int, int]:
        """Where the byte at `at` came from."""
        index = bisect_right(self._starts, at) - 1
        start, end = self._sources[index]
        return (start, end) if end else (start + at - self._starts[index], start + at - self._starts[index] + 1)
