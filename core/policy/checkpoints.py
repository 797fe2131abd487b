"""Signed checkpoints: how far the journal reached and what its last hash was, where this machine cannot rewrite it.

The chain shows whether anything in the journal was changed; it cannot show that its end was cut off, nor that all of
it was written anew, by somebody who may write everything here. A line elsewhere can:

    {"lab": ..., "count": 1204, "head": "9f...", "at": 1795341.2, "key": "...", "signature": "..."}

`count` entries were there, the last of them had the hash `head`. The signature (Ed25519) is over the rest of the line
as canonical JSON, by a key made once for the lab; `key` is the public half, so that lines of two keys are told apart:
copy it down when the first line is written, for who owns this machine can make another.

Where to: a file on another machine that only grows (`chattr +a`, an NFS export without rewriting, a WORM bucket's
gateway), or a command that is given each line (`logger -n loghost`, `curl --data-binary @- https://...`). There is one
at the start, one every few minutes, and one at the end.
"""

import base64
import binascii
import json
import os
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog
from anyio import CancelScope, sleep, to_thread
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from core.rogers.chain import GENESIS
from core.rogers.journal import Journal
from core.rogers.verify import Head
from protos.errors import Conflict, InvalidArgument

KEY = "audit.key"  # in the home
COMMAND_S = 10.0  # what a command has to take a line
LINE_BYTES = 2048
MOST_LINES = 100  # that are looked for at once: the newest say what the older ones say, and more

logger = structlog.get_logger()


@dataclass(frozen=True)
class Checkpoint:
    """One line, checked."""

    lab: str
    head: Head
    key: str


def open_key(path: Path) -> Ed25519PrivateKey:
    """The lab's signing key, made where there is none, readable by its owner only.

    Raises:
        Conflict: others may read it, or it is no key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        key = Ed25519PrivateKey.generate()
        raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(base64.b64encode(raw))
            file.flush()
            os.fsync(file.fileno())
        return key
    with open(descriptor, "rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise Conflict(f"{path} can be read by others", next=f"chmod 600 {path}, and think about who has read it")
        try:
            return Ed25519PrivateKey.from_private_bytes(base64.b64decode(file.read(LINE_BYTES), validate=True))
        except ValueError:
            raise Conflict(f"{path} holds no key", next="restore it, or remove it to have another one made") from None


def name_of(key: Ed25519PrivateKey) -> str:
    """The public half, as lines name it."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def line_for(lab: str, head: Head, key: Ed25519PrivateKey) -> str:
    """A checkpoint as it is handed out."""
    said = {"lab": lab, "count": head.entries, "head": head.hash, "at": head.at, "key": name_of(key)}
    return json.dumps(said | {"signature": base64.b64encode(key.sign(_signed(said))).decode()})


def read_lines(lines: Iterable[str], lab: str, key: str) -> list[Checkpoint]:
    """The checkpoints in `lines`, each of this lab and signed by `key`.

    Raises:
        InvalidArgument: a line is none, is of another lab or key, or its signature is wrong; it is told by its number.
    """
    found = []
    for number, line in enumerate(lines, 1):
        try:
            said: dict[str, Any] = json.loads(line)
            signature = base64.b64decode(said.pop("signature"), validate=True)
            head = Head(int(said["count"]), str(said["head"]), float(said["at"]))
            of, by = str(said["lab"]), str(said["key"])
            public = Ed25519PublicKey.from_public_bytes(base64.b64decode(by, validate=True))
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
            raise InvalidArgument(f"line {number} is no checkpoint", next="give the file as it was written") from None
        try:
            public.verify(signature, _signed(said))
        except InvalidSignature:
            raise InvalidArgument(
                f"line {number} has a wrong signature", next="somebody has changed it, or it was damaged on its way"
            ) from None
        if (of, by) != (lab, key):
            what = f"of the lab {of[:40]}" if of != lab else f"signed by another key, {by[:60]}"
            raise InvalidArgument(
                f"line {number} is {what}", next=f"this is the lab {lab}, and its key is {key}: give its own file"
            )
        found.append(Checkpoint(of, head, by))
    return found


def _signed(said: dict[str, Any]) -> bytes:
    return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


class Checkpoints:
    """Hands out a line at the start, every few minutes, and at the end. Enter it; `serve` does the middle."""

    def __init__(
        self, journal: Journal, lab: str, key: Path, *, path: Path | None, command: Sequence[str], every_s: float
    ) -> None:
        self._journal, self._lab, self._key_path = journal, lab, key
        self._path, self._command, self._every_s = path, command, every_s
        self._key: Ed25519PrivateKey | None = None  # none where nobody wants a line
        self.failed = ""  # why the last line was not handed out

    async def __aenter__(self) -> Self:
        if self._path is not None or self._command:
            self._key = await to_thread.run_sync(open_key, self._key_path)
            logger.info("checkpoints", key=name_of(self._key), path=str(self._path or ""), command=self._command)
        await self.hand_out()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with CancelScope(shield=True):
            await self.hand_out()

    async def serve(self) -> None:
        """Until cancelled."""
        while self._key is not None:
            await sleep(self._every_s)
            await self.hand_out()

    async def hand_out(self) -> None:
        """One line, now. What cannot be written is logged and shown; the next line says all that this one would."""
        if self._key is None:
            return
        rows = await self._journal.query("SELECT sequence, hash FROM journal ORDER BY sequence DESC LIMIT 1")
        entries, hash = rows[0] if rows else (0, GENESIS)
        line = line_for(self._lab, Head(entries, hash.hex(), time.time()), self._key)
        try:
            if self._path is not None:
                await to_thread.run_sync(_append, self._path, line)
            if self._command:
                await to_thread.run_sync(_tell, self._command, line)
        except (OSError, subprocess.SubprocessError) as error:
            self.failed = f"{type(error).__name__}: {error}"[:500]
            logger.error("a checkpoint was not handed out", reason=self.failed)
        else:
            self.failed = ""


def _append(path: Path, line: str) -> None:
    with open(path, "a") as file:
        file.write(f"{line}\n")
        file.flush()
        os.fsync(file.fileno())


def _tell(command: Sequence[str], line: str) -> None:
    """Blocking: whether the program reads its line or not, it has to end well."""
    subprocess.run(command, input=f"{line}\n".encode(), stdout=subprocess.DEVNULL, check=True, timeout=COMMAND_S)
