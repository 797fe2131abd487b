"""What can be found in an entry of the journal: messages, runs, findings and acts, each as a document.

It reads what the journal holds, where secrets are taken out already, and nothing that it does not hold any more. What
a worker wrote (a report of findings) is data of a known shape and size or it is nothing.
"""

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from google.protobuf.message import DecodeError

from core.dewey.index import Change, Document, Gone, Owned, root
from core.policy.taint import labels_of
from core.rogers.entry import Filled, Row
from core.rogers.ranges import parse_ranges
from core.rogers.tables import COLUMNS
from core.strict import strict_json
from protos.v1.message_pb2 import KIND_CALL, KIND_FAULT, KIND_PROSE, KIND_REPLY, Blob, Message

ACTS = frozenset({"act", "approval", "policy", "grant", "secret", "vault", "incident"})
KINDS = frozenset({"message", "run", "retention"}) | ACTS  # the entries that are looked at

# Among equals, what answers comes before what asks, and both before what only records that something was done.
WEIGHTS = {KIND_REPLY: 1.25, KIND_PROSE: 1.1, KIND_FAULT: 1.0, KIND_CALL: 0.85}
RUN, FINDING, ACT = 1.15, 1.2, 0.6

DEWEY = "dewey"  # as a MAD
REPORT = "report.json"
REPORT_BYTES = 8 << 20  # of a report of findings; of a larger one only the run is found
FINDINGS = 2000  # of one report
FLAT_CHARACTERS = 32_768
TAG = re.compile(r"(?<![\w&#/])#(\w[\w-]{0,63})")
_HOLLOW = frozenset({"act", "step", "digest", "request", "attempt", "principals", "verdict", "rule", "target", "taint"})


class Documents:
    """Turns rows into changes of the index; looks up beside them what they refer to. `db` is the journal, to read;
    `filled` finds bodies that are archived."""

    def __init__(self, db: sqlite3.Connection, filled: Filled | None = None) -> None:
        self._db = db
        self._filled = filled

    def of(self, row: Row, reports: Mapping[str, bytes]) -> list[Change]:
        """What `row` adds and takes away. `reports` are the blobs that `report_of` named, as far as they are there."""
        if row.kind == "retention":
            return self._forgotten(row)
        if row.body is None:
            return []
        try:
            if row.kind == "message":
                return [*self._message(row, reports)]
            told = json.loads(row.body or b"{}")
            if not isinstance(told, dict):
                return []
            if row.kind == "run":
                return self._run_entry(row, told)
            return [*self._act(row, told)]
        except (ValueError, KeyError, TypeError, DecodeError):
            return []  # nothing that anybody could look for

    # --- messages

    def _message(self, row: Row, reports: Mapping[str, bytes]) -> Iterator[Document]:
        message = Message.FromString(row.body or b"")
        if DEWEY in (message.sender, message.recipient):
            return  # what was looked for, and found, is not what was said
        run = self._run_of(message)
        document = _message_document(row, message, run)
        yield document
        report = report_of(message)
        if report is not None and report.digest in reports:
            yield from _findings(document, reports[report.digest])

    def _run_of(self, message: Message) -> str:
        """The run that a message belongs to: that said it, that it started, or that it answers for."""
        if message.run:
            return str(message.run)
        trigger = message.in_reply_to if message.kind in (KIND_REPLY, KIND_FAULT) else message.id
        mad = message.sender if message.kind in (KIND_REPLY, KIND_FAULT) else message.recipient
        found = self._db.execute('SELECT id FROM runs WHERE "trigger" = ? AND mad = ?', (trigger, mad)).fetchone()
        return found[0] if found else ""

    # --- runs

    def _run_entry(self, row: Row, told: dict[str, Any]) -> list[Change]:
        if told.get("state") != "requested" and not told.keys() & {"outcome", "reason", "evidence"}:
            return []
        changes: list[Change] = [*self._run(str(told["id"]), row.sequence)]
        if told.get("state") == "requested":  # now the message that it is for is known to be its own
            changes += self._trigger(str(told.get("trigger", "")))
        return changes

    def _run(self, id: str, sequence: int) -> Iterator[Document]:
        sql = (
            'SELECT mad, conversation, "trigger", created, outcome, reason, evidence, artifacts, ended, title'
            " FROM runs WHERE id = ?"
        )
        found = self._db.execute(sql, (id,)).fetchone()
        if found is None:
            return
        mad, conversation, trigger, created, outcome, reason, evidence, artifacts, ended, title = found
        goal, asker = "", ""
        labels: tuple[str, ...] = ("worker",)
        asked = self._row_of(trigger)
        if asked is not None and asked.body:
            message = Message.FromString(asked.body)
            goal, asker = _text_of(message), message.sender
            labels = tuple(sorted({"worker", *labels_of(message)}))
        said = [str(outcome or ""), str(reason or ""), goal, _flat(json.loads(evidence or "{}"))]
        said.append(" ".join(str(each.get("name", "")) for each in json.loads(artifacts or "[]")))
        yield Document(
            *(
                "run",
                id,
                sequence,
                "run",
                ended or created,
                f"{mad}: {title}".removesuffix(": "),
                "\n".join(each for each in said if each),
            ),
            conversation=conversation,
            run=id,
            sender=asker,
            recipient=mad,
            taint=labels,
            weight=RUN,
            filters=_tags(goal),
        )

    def _trigger(self, id: str) -> Iterator[Document]:
        row = self._row_of(id)
        if row is not None and row.kind == "message" and row.body:
            message = Message.FromString(row.body)
            yield _message_document(row, message, self._run_of(message))

    def _row_of(self, id: str) -> Row | None:
        sql = f"SELECT {COLUMNS} FROM journal j LEFT JOIN body b USING (sequence) WHERE j.id = ?"
        rows = [Row(*values) for values in self._db.execute(sql, (id,))]
        return (rows if self._filled is None else self._filled(self._db, rows))[0] if rows else None

    # --- acts

    def _act(self, row: Row, told: dict[str, Any]) -> Iterator[Document]:
        step = str(told.get("step", ""))
        failed = str(told.get("failed") or told.get("reason") or "")
        if row.kind == "act" and step not in ("started", "denied"):
            began = self._row_of(f"{row.id.removesuffix(f':{step}')}:started") if failed else None
            if began is not None and began.body:  # what became of it stands with what was meant
                for each in self._act(began, json.loads(began.body)):
                    yield replace(each, sequence=row.sequence, body=f"{each.body}\nfailed: {failed}")
            return
        id, kind = row.id, row.kind
        if kind == "act":
            id, kind = row.id.removeprefix("act:").removesuffix(f":{step}"), str(told.get("act", "act"))
        target = str(told.get("target") or told.get("alias") or told.get("name") or told.get("approval") or "")
        if target.startswith(f"{DEWEY}."):
            return
        decided = f"{told.get('verdict') or ''} {told.get('rule') or ''}".strip()
        rest = {name: value for name, value in told.items() if name not in _HOLLOW}
        principals = [str(each) for each in told.get("principals") or ()]
        run = next((each[4:] for each in principals if each.startswith("run:")), "")
        mads = [each[4:] for each in principals if each.startswith("mad:")]
        yield Document(
            *("act", id, row.sequence, row.kind, row.at, f"{kind} {target}".strip()),
            "\n".join(each for each in (step if kind != "act" else "", decided, _flat(rest)) if each),
            conversation=row.conversation,
            run=run,
            sender=row.sender,
            taint=tuple(str(each) for each in told.get("taint") or ()),
            weight=ACT,
            filters=tuple(("mad", each) for each in mads),
        )

    # --- what goes

    def _forgotten(self, row: Row) -> list[Change]:
        told = json.loads(row.body or b"{}")
        gone: list[Change] = []
        if conversation := told.get("conversation"):
            gone.append(Gone(row.sequence, conversation=str(conversation)))
        for source, upto in told.get("removed", {}).items():
            gone.append(Gone(int(upto), source=str(source), sequences=self._but_apart(int(upto))))
        gone += [
            Gone(row.sequence, source=str(each["kind"]), sequences=parse_ranges(each["sequences"]))
            for each in told.get("proofs", ())
            if "sequences" in each
        ]
        for each in told.get("proofs", ()):  # runs keep what they are, without what was said to them
            if each["kind"] == "message" and "upto" in each:
                sql = "SELECT id FROM runs WHERE trigger_sequence > ? AND trigger_sequence <= ?"
                for (id,) in self._db.execute(sql, (each["after"], each["upto"])).fetchall():
                    gone += self._run(id, row.sequence)
        return gone

    def _but_apart(self, upto: int) -> tuple[tuple[int, int], ...]:
        """All up to there, but what is archived or was brought back: no policy takes that."""
        sql = "SELECT first, last FROM set_apart WHERE state IN ('archived', 'restored') AND first <= ? ORDER BY first"
        kept: list[tuple[int, int]] = []
        at = 1
        for first, last in self._db.execute(sql, (upto,)):
            if first > at:
                kept.append((at, first - 1))
            at = last + 1
        return (*kept, (at, upto)) if at <= upto else tuple(kept)


def report_of(message: Message) -> Blob | None:
    """The blob in which a reply hands out findings, if it is one."""
    if message.kind != KIND_REPLY:
        return None
    return next((each for each in message.blobs if each.name == REPORT and each.size <= REPORT_BYTES), None)


def _message_document(row: Row, message: Message, run: str) -> Document:
    text = _text_of(message)
    title = ""
    if message.kind == KIND_CALL:
        title = f"{message.recipient}.{message.tool}"
    elif message.tool:
        title = f"{message.sender}.{message.tool}"
    return Document(
        *("message", row.id, row.sequence, "message", row.at, title, text),
        conversation=row.conversation,
        run=run,
        sender=row.sender,
        recipient=row.recipient,
        taint=tuple(sorted(labels_of(message))),
        weight=WEIGHTS.get(message.kind, 1.0),
        filters=_tags(message.text),
    )


def _text_of(message: Message) -> str:
    said = [message.text]
    if message.data:
        value = strict_json(message.data)
        said.append(message.data if value is None else _flat(value))
    said.append(" ".join(each.name for each in message.blobs if each.name))
    return "\n".join(each for each in said if each)


def _findings(reply: Document, content: bytes) -> Iterator[Document]:
    told = strict_json(content.decode("utf-8", "replace"))
    found = told.get("findings") if isinstance(told, dict) else None
    if not isinstance(found, list):
        return
    for number, each in enumerate(found[:FINDINGS]):
        if not isinstance(each, dict):
            continue
        words = {name: str(value)[:2000] for name, value in each.items() if isinstance(value, str | int)}
        place = f"{words.get('path', '')}:{words.get('line', '')}".strip(":")
        title = " ".join(part for part in (words.get("severity"), words.get("rule"), place) if part)
        rest = [words.get(name, "") for name in ("message", "fix", "snippet", "cwe")]
        yield replace(
            reply,
            kind="finding",
            ref=f"{reply.run or reply.ref}:{words.get('id') or number}",
            title=title,
            body="\n".join(part for part in rest if part),
            taint=tuple(sorted({"worker", "file", *reply.taint})),
            weight=FINDING,
            filters=(),
        )


def _tags(text: str) -> tuple[tuple[str, str], ...]:
    return tuple(("tag", each.lower()) for each in dict.fromkeys(TAG.findall(text)))


def _flat(value: object) -> str:
    """JSON as lines of words: names and what they hold."""
    lines: list[str] = []
    _flatten("", value, lines, [FLAT_CHARACTERS])
    return "\n".join(lines)


def _flatten(name: str, value: object, lines: list[str], room: list[int]) -> None:
    if room[0] <= 0:
        return
    if isinstance(value, dict):
        for inner, each in value.items():
            _flatten(str(inner), each, lines, room)
    elif isinstance(value, list | tuple):
        for each in value:
            _flatten(name, each, lines, room)
    elif value not in (None, ""):
        line = f"{name}: {value}" if name else str(value)
        lines.append(line[: room[0]])
        room[0] -= len(line)


def owned(row: Row) -> list[Change]:
    """Whose the conversation is where `row` was said: a client speaks in its own only."""
    if row.kind == "message" and row.sender.startswith("client:"):
        return [Owned(root(row.conversation), row.sender)]
    return []
