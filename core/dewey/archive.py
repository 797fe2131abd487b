"""The form of an archive: one conversation in one file that proves what it holds.

A file is text in UTF-8, compressed as xz (LZMA2): lines of JSON.

    {"format": "madlab-archive", "version": 1, "lab", "archive", "conversation", "made"}
    {"sequence", "at", "kind", "id", "sender", "recipient", "size", "digest", "previous", "hash", "body"}     for each
    {"count", "digest", "sha256"}                                                                             at the end

`body` is the entry's body in base64 (protobuf of a message), `digest` its SHA-256, `hash` the entry's place in the
journal's hash chain and `previous` the one before it, all in hexadecimal: `core.rogers.chain` says how the one follows
from the other. So each line can be shown to be what the journal has in that place, by nothing but this file and the
journal's headers. In the last line `digest` is SHA-256 over the digests in their order, `sha256` over all the bytes of
the lines before it. The SHA-256 of the file itself stands in the journal.

Any xz reads it (`xz -dc FILE | head -1`), and so does any program that knows JSON. Times are floating-point numbers as
JSON writes them, which is exact.
"""

import base64
import binascii
import json
import lzma
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from core.rogers import chain
from core.rogers.entry import Row
from protos.errors import Conflict

FORMAT = "madlab-archive"
VERSION = 1
PRESET = 1  # a fifth of the time of xz's usual 6, and about a fifth larger
LEAST_WINDOW, MOST_WINDOW = 64 << 10, 8 << 20  # bytes that a repetition may be back; xz holds about twelve times that


@dataclass(frozen=True)
class Kept:
    """One entry as an archive keeps it."""

    row: Row  # with its body
    digest: bytes
    previous: bytes  # hash of the entry before
    hash: bytes


@dataclass(frozen=True)
class Written:
    """A file that was written."""

    bytes: int
    sha256: str  # of the file
    digest: str  # over the digests of the bodies


def write(path: Path, about: dict[str, Any], rows: Sequence[Kept]) -> Written:
    """Writes an archive, whole and durable or not at all.

    Raises:
        OSError: the disk does not let it.
    """
    draft = path.with_name(f"{path.name}.new")
    content, digests = sha256(), sha256()
    try:
        with draft.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            with lzma.open(file, "wb", check=lzma.CHECK_SHA256, filters=_filters(rows)) as packed:
                for line in _lines(about, rows):
                    content.update(line)
                    packed.write(line)
                for each in rows:
                    digests.update(each.digest)
                last = {"count": len(rows), "digest": digests.hexdigest(), "sha256": content.hexdigest()}
                packed.write(_line(last))
            file.flush()
            os.fsync(file.fileno())
        whole = sha256(draft.read_bytes()).hexdigest()
        size = draft.stat().st_size
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
    return Written(size, whole, digests.hexdigest())


def read(path: Path, *, sha: str = "") -> list[Kept]:
    """What an archive holds, checked in every way that it can be by itself; `sha` is what the journal says of the file.

    Raises:
        Conflict: it is not what was written, or is none.
        FileNotFoundError: there is no such file.
    """
    raw = path.read_bytes()
    if sha and sha256(raw).hexdigest() != sha:
        raise _damaged(path, "it is not the file that the journal speaks of")
    try:
        lines = lzma.decompress(raw).splitlines(keepends=True)
        first, *middle, last = lines
        about, end = json.loads(first), json.loads(last)
        if about["format"] != FORMAT or about["version"] != VERSION:
            raise _damaged(path, f"it has the form {about['format']} {about['version']}")
        rows = [_kept(json.loads(line), about["conversation"]) for line in middle]
        digest = sha256(b"".join(each.digest for each in rows)).hexdigest()
        whole = sha256(b"".join(lines[:-1])).hexdigest()
        if (end["count"], end["digest"], end["sha256"]) != (len(rows), digest, whole):
            raise _damaged(path, "its last line does not fit the others")
    except (lzma.LZMAError, ValueError, KeyError, TypeError, EOFError, binascii.Error) as error:
        raise _damaged(path, str(error) or type(error).__name__) from None
    for each in rows:
        if not _holds(each):
            raise _damaged(path, f"entry {each.row.sequence} is not what was said")
    return rows


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _filters(rows: Sequence[Kept]) -> list[dict[str, int]]:
    """How to pack: with no more memory than so many entries are worth."""
    size = sum(1024 + 2 * len(each.row.body or b"") for each in rows)
    return [{"id": lzma.FILTER_LZMA2, "preset": PRESET, "dict_size": min(max(size, LEAST_WINDOW), MOST_WINDOW)}]


def _lines(about: dict[str, Any], rows: Sequence[Kept]) -> Iterator[bytes]:
    yield _line({"format": FORMAT, "version": VERSION, **about})
    for each in rows:
        row = each.row
        yield _line(
            {
                "sequence": row.sequence,
                "at": row.at,
                "kind": row.kind,
                "id": row.id,
                "sender": row.sender,
                "recipient": row.recipient,
                "size": len(row.body or b""),
                "digest": each.digest.hex(),
                "previous": each.previous.hex(),
                "hash": each.hash.hex(),
                "body": base64.b64encode(row.body or b"").decode(),
            }
        )


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _kept(told: dict[str, Any], conversation: str) -> Kept:
    body = base64.b64decode(told["body"], validate=True)
    row = Row(
        told["sequence"], told["id"], told["kind"], body, conversation, told["sender"], told["recipient"], told["at"]
    )
    return Kept(row, *(bytes.fromhex(told[name]) for name in ("digest", "previous", "hash")))


def _holds(each: Kept) -> bool:
    """Whether the body has its digest, and the hash follows from the header and the one before."""
    row, body = each.row, each.row.body or b""
    words = chain.header(row.kind, row.id, row.conversation, row.sender, row.recipient)
    computed = chain.link(each.previous, row.sequence, row.at, len(body), each.digest, words)
    return sha256(body).digest() == each.digest and computed == each.hash


def _damaged(path: Path, why: str) -> Conflict:
    return Conflict(f"the archive {path.name} cannot be used: {why}", next="put back the file from a backup")
