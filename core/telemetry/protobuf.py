"""Writes protocol buffers' wire format: as much of it as OTLP needs, and no more.

Generated classes of OTLP would be one more distribution in the core, for messages that are only ever written. Each
function returns the bytes of one field; fields in a row are a message. What is zero or empty is left out, as proto3
says, except where a field is told apart from its absence.
"""

import struct
from collections.abc import Iterable

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def varint(value: int) -> bytes:
    """A whole number from 0 in as few bytes as it needs."""
    if value < 0x80:
        return bytes((value,))
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def integer(field: int, value: int, *, always: bool = False) -> bytes:
    """int64, uint32, bool or an enum."""
    if not value and not always:
        return b""
    return varint(field << 3 | VARINT) + varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def fixed64(field: int, value: int, *, always: bool = False) -> bytes:
    """fixed64, and sfixed64 in two's complement."""
    if not value and not always:
        return b""
    return varint(field << 3 | FIXED64) + (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little")


def fixed32(field: int, value: int) -> bytes:
    """fixed32."""
    return varint(field << 3 | FIXED32) + value.to_bytes(4, "little") if value else b""


def double(field: int, value: float) -> bytes:
    """double, also where it is 0: OTLP has them in `oneof` and `optional` alone."""
    return varint(field << 3 | FIXED64) + struct.pack("<d", value)


def octets(field: int, value: bytes, *, always: bool = False) -> bytes:
    """bytes, or a message that was written before."""
    return varint(field << 3 | BYTES) + varint(len(value)) + value if value or always else b""


def text(field: int, value: str, *, always: bool = False) -> bytes:
    """string. What is no Unicode text is written with question marks."""
    return octets(field, value.encode("utf-8", "replace"), always=always)


def message(field: int, *parts: bytes) -> bytes:
    """A message, also an empty one."""
    return octets(field, b"".join(parts), always=True)


def packed_fixed64(field: int, values: Iterable[int]) -> bytes:
    """repeated fixed64."""
    return octets(field, b"".join(each.to_bytes(8, "little") for each in values))


def packed_double(field: int, values: Iterable[float]) -> bytes:
    """repeated double."""
    return octets(field, b"".join(struct.pack("<d", each) for each in values))
