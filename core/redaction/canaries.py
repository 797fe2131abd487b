"""Canaries: each run in a sandbox finds keys of its own that are worth nothing, and whoever takes them up is caught.

The decoys of a run are made of its id and a secret of the lab, so they need no keeping: the next core knows them again.
They lie where no honest work looks, beside the socket of the worker, and in no environment: a command that prints
what it runs with must not end its run. Reading one is no offence, and cannot be seen. Carrying it out is: what the run
says, stores, asks a model or sends to the world is looked through for decoys as for every known value.

A sighting opens an incident, one for each run and value. Who is caught with a decoy, or with the real value
of a secret that cannot stand there by chance, ends. One that can is noted. But the gap in its place tells whoever
guesses that he was right, so a run that has shown as many as `GUESSES` different ones ends as well. Where the lab's own
or a person's words held a value it was taken out and is noted, and nobody ends.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from core.redaction.redactor import Hit, Redactor
from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal

PLACE = "/run/madlab"  # where a sandbox finds its decoys
GUESSES = 3  # uncertain values of different secrets, which no run comes upon by chance
REMEMBERED = 10_000  # incidents that need not be told to the journal again

logger = structlog.get_logger()


@dataclass(frozen=True)
class Decoy:
    """One key that is none: the file it is found in, and the value that is watched for."""

    shape: str
    file: str
    content: bytes
    value: bytes


@dataclass(frozen=True)
class Who:
    """Who was caught. A `guest` is code that the lab does not trust: the run of an eMAD."""

    name: str  # of the participant
    conversation: str = ""
    run: str = ""
    guest: bool = False


class Ending(Protocol):
    """Who knows the live runs and can end them."""

    def who(self, sender: str, conversation: str) -> Who | None:
        """The live run that speaks there under that name, or has that id."""
        ...

    def put_down(self, run: str, reason: str) -> None:
        """Ends a run for what it did. One that has ended already stays as it is."""
        ...


class Canaries:
    """The decoys of the live runs, and what becomes of those who are caught."""

    def __init__(self, redactor: Redactor, journal: Journal, key: bytes | None) -> None:
        self.lives: Ending | None = None
        self._redactor, self._journal, self._key = redactor, journal, key
        self._laid: dict[str, tuple[str, Decoy]] = {}  # name → the run and its decoy
        self._told: dict[str, None] = {}
        self._guessed: dict[str, set[str]] = {}  # of each live guest, the uncertain values that it has shown

    def lay(self, run: str) -> Sequence[Decoy]:
        """The decoys of a run, known from now on; none without a key."""
        if self._key is None:
            return ()
        decoys = decoys_of(self._key, run)
        for each in decoys:
            name = _name(run, each)
            self._laid[name] = run, each
            self._redactor.learn(name, each.value)
        return decoys

    def lift(self, run: str) -> None:
        """The run is over, and so is its sandbox."""
        self._guessed.pop(run, None)
        for name in [name for name, (owner, _) in self._laid.items() if owner == run]:
            del self._laid[name]
            self._redactor.forget(name)

    def noticed(self, entry: Entry, hits: Sequence[Hit]) -> None:
        """Something on its way into the journal held values, which were taken out."""
        speaker = entry.recipient if entry.kind == "run" else entry.sender  # of what is said about a run: the run
        who = self.lives.who(speaker, entry.conversation) if self.lives is not None else None
        self.seen(who or Who(speaker, entry.conversation), _place(entry), hits)

    def seen(self, who: Who, place: str, hits: Sequence[Hit]) -> None:
        """Opens an incident for each value, and ends the run that is caught.

        `place` is a phrase for people: "the body of POST https://example.org/".
        """
        place = self._redactor.redact_text(place)
        for hit in {each.name: each for each in hits}.values():
            owner, decoy = self._laid.get(hit.name, ("", None))
            what = f"a decoy key ({decoy.shape})" if decoy else f"the value of secret {hit.name}"
            guilty = {who.run} if who.guest and (decoy or hit.certain or self._guesses(who.run, hit.name)) else set()
            guilty |= {owner} if owner and owner != who.run else set()  # how else would anybody have it?
            path = [f"laid at {PLACE}/{decoy.file} of {owner}"] if decoy else []
            path += [f"carried by {who.run or who.name}", f"seen in {place}, {hit.encoding}, at byte {hit.offset}"]
            reason = f"{what[0].upper()}{what[1:]} was seen in {place}. See: madlab incidents"
            told = {"run": who.run, "mad": who.name, "what": what, "place": place, "encoding": hit.encoding}
            self._open(who, hit.name, told | {"path": path, "ended": sorted(guilty)})
            if self.lives is not None:
                for run in guilty:
                    self.lives.put_down(run, reason)

    def _guesses(self, run: str, name: str) -> bool:
        """Whether the run has now shown so many uncertain values that it must be looking for them."""
        shown = self._guessed.setdefault(run, set())
        shown.add(name)
        return len(shown) >= GUESSES

    def _open(self, who: Who, about: str, body: dict[str, Any]) -> None:
        subject = who.run or f"{who.name}:{who.conversation}"
        key = hashlib.sha256(f"{subject}\0{about}".encode()).hexdigest()
        id = f"incident:{key[:24]}"
        if id in self._told:
            return
        self._told[id] = None
        while len(self._told) > REMEMBERED:
            self._told.pop(next(iter(self._told)))
        logger.warning("incident", id=id, **{key: body[key] for key in ("run", "mad", "what", "place", "ended")})
        self._journal.append_soon(
            Entry(
                id=id,
                kind="incident",
                body=json.dumps(body, ensure_ascii=False).encode(),
                conversation=who.conversation,
                sender="core",
                recipient=who.name,
                at=time.time(),
            )
        )


class IncidentsView:
    """Every incident."""

    name = "incidents"
    kinds = frozenset({"incident"})
    tables = ("incidents",)
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS incidents (
            sequence INTEGER PRIMARY KEY, id TEXT, at REAL, conversation TEXT, body TEXT);
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """One row each."""
        body = (row.body or b"{}").decode()
        db.execute(
            "INSERT INTO incidents VALUES (?, ?, ?, ?, ?)", (row.sequence, row.id, row.at, row.conversation, body)
        )


async def incidents(journal: Journal, *, limit: int = 50) -> list[dict[str, Any]]:
    """The newest incidents first: id, at, conversation, run, mad, what, place, encoding, path, ended."""
    rows = await journal.query(
        "SELECT id, at, conversation, body FROM incidents ORDER BY sequence DESC LIMIT ?", (limit,)
    )
    return [{"id": id, "at": at, "conversation": where} | json.loads(body) for id, at, where, body in rows]


async def count_of(journal: Journal) -> int:
    """How many incidents there are."""
    return int((await journal.query("SELECT count(*) FROM incidents"))[0][0])


def decoys_of(key: bytes, run: str) -> tuple[Decoy, ...]:
    """The decoys of a run: always the same for the same key and run, and nobody else can tell them from real ones."""

    def made(purpose: str) -> bytes:
        return hmac.digest(key, f"{purpose}\0{run}".encode(), "sha512")

    id = base64.b32encode(made("key id")).decode()[:16]
    cloud = base64.b64encode(made("cloud")).decode()[:40]
    token = "ghp_" + base64.b64encode(made("token")).decode().translate({43: "x", 47: "Q", 61: "Z"})[:36]
    private = Ed25519PrivateKey.from_private_bytes(made("private")[:32])
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    settings = f"[default]\naws_access_key_id = AKIA{id}\naws_secret_access_key = {cloud}\nregion = eu-central-1\n"
    return (
        Decoy("cloud key", "credentials", settings.encode(), cloud.encode()),
        Decoy("token", "token", f"{token}\n".encode(), token.encode()),
        Decoy("private key", "deploy-key", pem, pem),
    )


def lab_key(file: Path) -> bytes:
    """A secret of the lab that decoys, or the ids of runs, are made of: read, or made once.

    Raises:
        OSError: it can be neither.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        found = file.read_bytes()
        if len(found) == 32:
            return found
        descriptor = os.open(file, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)  # half written by a crash
    with open(descriptor, "wb") as new:
        made = secrets.token_bytes(32)
        new.write(made)
        new.flush()
        os.fsync(new.fileno())
    return made


def _place(entry: Entry) -> str:
    """Where something stood that went into the journal, for people."""
    match entry.kind:
        case "message":
            return f"the message {entry.id} to {entry.recipient or 'everybody'}"
        case "event":
            return f"the log or progress event {entry.id}"
        case "act":
            act = json.loads(entry.body)
            return f"{act.get('act')} {act.get('target', '')}".strip()
        case kind:
            return f"an entry of the kind {kind} ({entry.id})"


def _name(run: str, decoy: Decoy) -> str:
    return f"decoy-{hashlib.sha256(run.encode()).hexdigest()[:8]}-{decoy.file}"
