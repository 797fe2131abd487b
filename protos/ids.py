"""Ids: UUIDv7 (RFC 9562), so that they sort by the time they were made."""

import hashlib
import os
import re
import time

UUID7 = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_VARIANT = dict(zip("0123456789abcdef", 4 * "89ab", strict=True))  # two bits of a random digit, behind the bits 10


def new_id() -> str:
    """A new UUIDv7: 48 bits of milliseconds since the epoch, then 74 random bits."""
    time_ms, chance = f"{time.time_ns() // 1_000_000:012x}", os.urandom(10).hex()
    return f"{time_ms[:8]}-{time_ms[8:]}-7{chance[:3]}-{_VARIANT[chance[3]]}{chance[4:7]}-{chance[7:19]}"


def id_from(id: str, label: str) -> str:
    """The id that follows from another and a label, always the same one: of what is asked because of a message.

    Whoever begins again after a crash so asks under the ids it had chosen before.
    """
    moment = int(id.replace("-", "")[:12], 16)
    digest = hashlib.sha256(f"{id}\0{label}".encode()).digest()
    return _text(moment << 80 | int.from_bytes(digest[:10], "big"))


def _text(value: int) -> str:
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_uuid(id: str) -> bool:
    """Whether `id` is a UUIDv7 as this module writes it."""
    return UUID7.fullmatch(id) is not None
