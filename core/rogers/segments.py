"""Old headers, sealed: a run of them compressed into one row, checked as a whole, its last hash anchoring the next."""

import json
import sqlite3
import zlib
from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple

from core.rogers.entry import Row


class Header(NamedTuple):
    """One entry without its body."""

    sequence: int
    at: float
    kind: str
    id: str
    conversation: str
    sender: str
    recipient: str
    size: int
    digest: bytes


def pack(headers: list[Header]) -> bytes:
    """The sealed form: JSON, compressed. Digests do not compress, so they follow the text as they are."""
    text = json.dumps([header[:-1] for header in headers], ensure_ascii=False, separators=(",", ":")).encode()
    words = zlib.compress(text)
    return len(words).to_bytes(8, "big") + words + b"".join(header.digest for header in headers)


def unpack(packed: bytes) -> list[Header]:
    """The headers of one segment.

    Raises:
        ValueError: it is not one.
    """
    end = 8 + int.from_bytes(packed[:8], "big")
    try:
        words = json.loads(zlib.decompress(packed[8:end]))
    except zlib.error as error:
        raise ValueError("the headers do not decompress") from error
    digests = packed[end:]
    if len(digests) != 32 * len(words):
        raise ValueError("the digests do not match the headers")
    try:
        return [Header(*(*values, digests[32 * at : 32 * at + 32])) for at, values in enumerate(words)]
    except TypeError as error:
        raise ValueError("a header lacks a word") from error


def checksum(first: int, last: int, anchor: bytes, head: bytes, packed: bytes) -> bytes:
    return sha256(b"".join((first.to_bytes(8, "big"), last.to_bytes(8, "big"), anchor, head, packed))).digest()


def read_segments(db: sqlite3.Connection) -> Iterator[Row]:
    """Every sealed entry, oldest first, with its body where that was kept."""
    for (packed,) in db.execute("SELECT headers FROM segment ORDER BY first"):
        headers = unpack(packed)
        sql = "SELECT sequence, body FROM body WHERE sequence BETWEEN ? AND ?"
        bodies = dict(db.execute(sql, (headers[0].sequence, headers[-1].sequence)))
        for each in headers:
            body = bodies.get(each.sequence) if each.size else b""
            yield Row(each.sequence, each.id, each.kind, body, each.conversation, each.sender, each.recipient, each.at)
