"""The forms in which a value is looked for: as it is, and as the usual encodings write it.

Escapes are not among them: `reading` undoes those. base64 depends on what stands before a value by one, two or no
bytes, so it has three forms; the characters at its ends that hold bits of the neighbours are left out of each, and
with them the padding.

What everybody has is nobody's secret, even where it lies in one file with a secret: certificates are left out, and so
is the first line of an OpenSSH key, which is the same in all of them.
"""

import base64
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from core.redaction.reading import plain

WHOLE = 512  # bytes up to which a value is looked for as a whole
PART, STRIDE = 256, 192  # bytes of each part of a longer one, and from one to the next
_KEY_LINE = re.compile(rb"[A-Za-z0-9+/=]{32,}")  # of a private key in PEM: recognised alone, too
_VARIED = 8  # different characters of such a line
_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.*?-----END [A-Z0-9 ]*-----", re.DOTALL)


class Form(NamedTuple):
    """One way to write a value."""

    encoding: str
    text: bytes


def forms_of(value: bytes) -> list[Form]:
    """Every form that is looked for, each text once: of a value, or of the parts of a long one."""
    found: dict[bytes, str] = {}
    own = [each for each in _CERTIFICATE.split(value) if len(each.strip()) >= 8] or [value]
    for part in (part for each in own for part in _parts(each)):
        for each in _forms_of(part):
            found.setdefault(each.text, each.encoding)
    for line in _key_lines(value):
        found.setdefault(line, "a line of it")
    return [Form(encoding, text) for text, encoding in found.items()]


def _parts(value: bytes) -> Iterator[bytes]:
    """A long value in parts that overlap: where all of it stands they are one find, and a part alone is one, too.

    A stream so holds back little, whatever is known. No part begins or ends inside a character.
    """
    if len(value) <= WHOLE:
        yield value
        return
    starts = [*range(0, len(value) - PART, STRIDE), len(value) - PART]
    for start in starts:
        end = start + PART
        while start and 0x80 <= value[start] < 0xC0:
            start -= 1
        while end < len(value) and 0x80 <= value[end] < 0xC0:
            end += 1
        yield value[start:end]


def _key_lines(value: bytes) -> Iterator[bytes]:
    """The lines of private keys in PEM."""
    begin = b""
    for each in value.replace(b"\\n", b"\n").split(b"\n"):
        line = each.strip()
        if b"-----" in line:
            begin = line if b"-BEGIN " in line and b"PRIVATE KEY" in line else b""
        elif begin and _KEY_LINE.fullmatch(line):
            if b"OPENSSH" in begin:
                begin = begin.replace(b"OPENSSH", b"")  # its first line: format, cipher, kind of key
            elif len(set(line)) >= _VARIED:
                yield line


def _forms_of(value: bytes) -> list[Form]:
    found: dict[bytes, str] = {}

    def add(encoding: str, text: bytes) -> None:
        if len(text) >= 8:
            found.setdefault(text, encoding)

    for each in (value, value.strip()):
        add("raw", each)
        add("escaped", plain(each))
        add("escaped", plain(each.replace(b"\t", b"\\t")))
        add("escaped", plain(each.replace(b" ", b"+")))  # as a form is posted
    value = value.strip()
    add("hexadecimal", value.hex().encode())
    add("hexadecimal", value.hex().upper().encode())
    with suppress(UnicodeDecodeError):  # what is no text has no characters to be turned round
        text = value.decode()
        add("reversed", text[::-1].encode())
        add("UTF-16", text.encode("utf-16-le")[:-1])  # without its last byte it is found in either order
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + value)
        inner = encoded[-(-before * 8 // 6) : 8 * (before + len(value)) // 6]
        add("base64", inner)
        add("base64", inner.replace(b"+", b"-").replace(b"/", b"_"))
    return [Form(encoding, text) for text, encoding in found.items()]
