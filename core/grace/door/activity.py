"""What a run did: tools, files, the web, models, and what it used; its own and of the runs that worked for it.

All of it is in the journal already: messages, what the run reported, its acts, and the ledger's table of attempts.
A page is a *window*: the last so many entries of the run's conversations ahead of a sequence. Whatever began within
the window is on its page, with how it ended, wherever that is written; so pages follow each other without a gap, and
each costs what it shows. Names and texts come from workers: they are data.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.fiedler.money import dollars
from core.grace.door.answers import Answer
from core.grace.door.callers import caller_of, seen_run
from core.grace.door.edge import PAGE, lab_of, number_of
from core.grace.door.routes import Endpoint, number
from core.grace.door.runs import span_of
from core.lab import Lab
from core.rogers.entry import Row
from core.rogers.subscription import to_message
from core.rogers.tables import COLUMNS
from core.run import Run
from core.usage import IN_THE_CORE, NOT_YET, kept_usage
from protos.serve import answer_id
from protos.v1.message_pb2 import KIND_CALL, KIND_EVENT, KIND_FAULT, Message

WINDOW = 500  # entries
TEXT = 300  # characters of what a worker said
CHILDREN = 50  # whose use is told
MOST = 2**53  # of a number that a worker told: what is greater, or none, is no count
ACTS = ("web.fetch", "files.put", "files.get")
COUNTS = "input, cached, output, reasoning"  # of tokens
ATTEMPT = f"run, mad, at, ended, first, alias, provider, model, {COUNTS}, usd, assumed, outcome, reason"


class Tool(Answer):
    """A tool that was used: another MAD's, or one of its own that it told of."""

    run: str
    mad: str
    name: str
    at: float
    seconds: float | None
    outcome: str  # "ok", "fault", "exit N", or "open"
    detail: str


class File(Answer):
    """A file that was touched."""

    run: str
    mad: str
    path: str
    how: str  # "edited", "stored", "read", "artifact"
    at: float | None
    added: int | None = None  # lines
    removed: int | None = None
    size: int | None = None
    digest: str = ""


class Fetched(Answer):
    """A request to the world."""

    run: str
    mad: str
    at: float
    seconds: float | None
    method: str
    host: str
    url: str
    status: int | None
    sent: int | None  # bytes
    received: int | None
    outcome: str  # "done", "denied", "failed: …", or "open"
    reason: str  # of a denial; and why it went nowhere, which only the operator hears
    act: str


class Asked(Answer):
    """An attempt at a model."""

    run: str
    mad: str
    at: float
    seconds: float | None
    first_s: float | None  # to the first token
    alias: str
    provider: str
    model: str
    input: int  # tokens
    cached: int
    output: int
    reasoning: int
    usd: float
    assumed: bool  # its cost is not known, and counted at its worst case
    outcome: str
    reason: str


class Used(Answer):
    """Processor (1.0: one core) and memory (bytes), a point for each `step_s` seconds since `began`."""

    began: float | None = None
    step_s: float | None = None
    cpu: list[float] | None = None
    memory: list[int] | None = None
    why: str = ""  # there are none


class Child(Answer):
    """A run that worked for this one, and what it used."""

    run: str
    mad: str
    title: str
    usage: Used


class Activity(Answer):
    """What a run and those that worked for it did, oldest first. `before` gets the page before this one; null: none."""

    tools: list[Tool]
    files: list[File]
    web: list[Fetched]
    llm: list[Asked]
    usage: Used
    children: list[Child]
    before: int | None


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint(
        "GET", "/runs/{id}/activity", _activity, "What a run did: tools, files, web, models, processor and memory.",
        query=(
            number("before", "what began ahead of this sequence; without it, the newest"),
            number("limit", "so many entries of the journal are looked at", default=WINDOW),
        ),
        answer=Activity, clients=True,
    )  # fmt: skip


async def _activity(request: Request) -> Response:
    lab, caller = lab_of(request), caller_of(request)
    run = await seen_run(lab, caller, request.path_params["id"])
    before, limit = number_of(request, "before", 0, 2**62), number_of(request, "limit", WINDOW, PAGE, least=1)
    family = await lab.runs.family(run.id)
    rows, more = await _window(lab, family, before or 1 << 62, limit)
    told = _Told(family, hears_why=caller.is_operator)
    for row in rows:
        told.hear(row)
    for row in await _endings(lab, told):
        told.learn(row)
    llm = [_asked(each) for each in await _attempts(lab, told.attempts)]
    if not before:
        told.files += [_artifact(each, artifact) for each in family for artifact in each.artifacts]
    return JSONResponse(
        {
            "tools": told.tools,
            "files": told.files,
            "web": told.web,
            "llm": llm,
            "usage": await usage_json(lab, run),
            "children": [
                {"run": each.id, "mad": each.mad, "title": each.title, "usage": await usage_json(lab, each)}
                for each in family[1 : CHILDREN + 1]
            ],
            "before": rows[0].sequence if more else None,
        }
    )


async def usage_json(lab: Lab, run: Run) -> dict[str, Any]:
    """What a run has used: live, or as it was kept; null and why where nobody knows."""
    series = lab.dispatcher.usage(run.id)
    if series is not None:
        return series.as_json()
    kept = await kept_usage(lab.journal, run.id)
    if kept is not None:
        return kept
    mad = lab.registry.mads.get(run.mad)
    why = IN_THE_CORE if mad is not None and mad.manifest is None else NOT_YET
    return {"began": None, "step_s": None, "cpu": None, "memory": None, "why": why}


async def _window(lab: Lab, family: Sequence[Run], before: int, limit: int) -> tuple[list[Row], bool]:
    """The last `limit` entries of a family ahead of `before`, oldest first; and whether there are older ones."""
    rows: list[tuple[Any, ...]] = []
    for kinds in ("j.kind IN ('message', 'event')", "j.kind = 'act'"):  # as the partial indexes have it
        one = (
            f"SELECT * FROM (SELECT {COLUMNS} FROM journal j LEFT JOIN body b USING (sequence) WHERE {kinds}"
            " AND j.conversation = ? AND j.sequence >= ? AND j.sequence <= ? ORDER BY j.sequence DESC LIMIT ?)"
        )
        spans = {span.conversation: span for span in map(span_of, reversed(family))}
        bounds = [(each.conversation, each.first, min(each.last, before - 1), limit + 1) for each in spans.values()]
        sql = f"{' UNION ALL '.join([one] * len(bounds))} ORDER BY 1 DESC LIMIT {limit + 1}"
        rows += await lab.journal.query(sql, [value for each in bounds for value in each])
    whole = await lab.archives.filled([Row(*each) for each in rows])
    found = sorted(whole, key=lambda row: row.sequence, reverse=True)
    return found[limit - 1 :: -1] if len(found) > limit else found[::-1], len(found) > limit


class _Told:
    """What the entries of a window say, put together."""

    def __init__(self, family: Sequence[Run], *, hears_why: bool) -> None:
        """`hears_why`: may be told which names nobody knows and which lead inside. A run is told one thing for both,
        and so is a client, who could ask for any name by one."""
        self._hears_why = hears_why
        self.tools: list[dict[str, Any]] = []
        self.files: list[dict[str, Any]] = []
        self.web: list[dict[str, Any]] = []
        self.attempts: dict[str, None] = {}
        self.open: dict[str, dict[str, Any]] = {}  # by the id of the entry that says how it ended
        self._runs = {each.id: each for each in family}
        self._speakers = {(each.conversation, each.mad): each for each in family}
        self._commands: dict[tuple[str, str], dict[str, Any]] = {}

    def hear(self, row: Row) -> None:
        """Takes in one entry."""
        if row.kind == "act":
            if row.body is not None and row.sender in self._runs:
                self._act(row, json.loads(row.body), self._runs[row.sender])
            return
        message = to_message(row)
        run = self._runs.get(message.run) or self._speakers.get((row.conversation, row.sender))
        if row.id in self.open:
            self.learn(row)
        elif run is not None and message.kind == KIND_CALL:
            name = f"{message.recipient}.{message.tool}"
            tool = _tool(run, name, message.at, _cut(message.data))
            self.tools.append(tool)
            self.open[answer_id(message)] = tool
        elif run is not None and message.kind == KIND_EVENT and message.tool == "progress" and row.sender == run.mad:
            self._progress(run, message)

    def learn(self, row: Row) -> None:
        """Takes in how something ended."""
        entry = self.open.pop(row.id, None)
        if entry is None:
            return
        if row.kind != "act":
            message = to_message(row)
            is_fault = message.kind == KIND_FAULT
            entry |= {"outcome": "fault" if is_fault else "ok", "seconds": _seconds(entry, row)}
            entry["detail"] = _cut(message.text) if is_fault else entry["detail"]
            return
        body = json.loads(row.body or b"{}")
        if "url" in entry:
            outcome = f"failed: {body['failed']}" if "failed" in body else "done"
            entry |= {"outcome": outcome, "seconds": _seconds(entry, row), "status": body.get("status")}
            entry |= {"sent": body.get("bytes_sent"), "received": body.get("bytes_received")}
            if self._hears_why and (why := body.get("why")):
                address = body.get("address")
                entry["reason"] = f"{why} ({address})" if address else str(why)
        else:
            entry |= {"size": body.get("size"), "digest": body.get("digest", "")}
            entry["how"] = f"not {entry['how']}" if "failed" in body else entry["how"]

    def _act(self, row: Row, body: dict[str, Any], run: Run) -> None:
        act, step = str(body.get("act", "")), body.get("step")
        if row.id in self.open:
            self.learn(row)
        elif act.startswith("llm.") and step == "started":
            self.attempts[str(body["attempt"])] = None
        elif act in ACTS and step in ("started", "denied"):
            ended = row.id.removesuffix(":started") + ":outcome"
            target = str(body.get("target", ""))
            if act == "web.fetch":
                entry = {
                    "run": run.id,
                    "mad": run.mad,
                    "at": row.at,
                    "seconds": None,
                    "method": str(body.get("details", {}).get("method", "GET")),
                    "host": _host(target),
                    "url": target[:2000],
                    "status": None,
                    "sent": None,
                    "received": None,
                    "outcome": "denied" if step == "denied" else "open",
                    "reason": _cut(str(body.get("reason", ""))),
                    "act": row.id.removeprefix("act:").rpartition(":")[0],
                }
                self.web.append(entry)
            else:
                how = "stored" if act == "files.put" else "read"
                entry = _file(run, target[:TEXT], how if step == "started" else f"not {how}", row.at)
                self.files.append(entry)
            if step == "started":
                self.open[ended] = entry

    def _progress(self, run: Run, message: Message) -> None:
        """What a worker told of itself: its commands, its edits, its tests."""
        try:
            fields = json.loads(message.data or "{}")
        except (ValueError, RecursionError):
            return
        if not isinstance(fields, dict):
            return
        match fields.get("what"):
            case "command":
                line = str(fields.get("command", ""))
                code, known = fields.get("exit_code"), self._commands.pop((run.id, line), None)
                if code is None:
                    tool = self._commands[run.id, line] = _tool(run, "command", message.at, _cut(line))
                    self.tools.append(tool)
                    return
                seconds = _number(fields.get("seconds"))
                tool = known or _tool(run, "command", message.at - (seconds or 0.0), _cut(line))
                tool |= {"outcome": "ok" if code == 0 else f"exit {_number(code)}", "seconds": seconds}
                if known is None:
                    self.tools.append(tool)
            case "tests":
                passed = fields.get("passed")
                tool = _tool(run, "tests", message.at, _cut(message.text))
                self.tools.append(tool | {"outcome": "ok" if passed else "fault"})
            case "edit":
                file = _file(run, str(fields.get("path", ""))[:TEXT], "edited", message.at)
                file |= {each: _number(fields.get(each)) for each in ("added", "removed")}
                self.files.append(file)


async def _endings(lab: Lab, told: _Told) -> list[Row]:
    """How what is open at the end of the window ended, where it has."""
    ids = list(told.open)
    found: list[Row] = []
    for at in range(0, len(ids), 500):
        some = ids[at : at + 500]
        sql = (
            f"SELECT {COLUMNS} FROM journal j LEFT JOIN body b USING (sequence)"
            f" WHERE j.id IN ({', '.join('?' * len(some))})"
        )
        found += [Row(*each) for each in await lab.journal.query(sql, some)]
    return found


async def _attempts(lab: Lab, attempts: dict[str, None]) -> list[tuple[Any, ...]]:
    marks = ", ".join("?" * len(attempts))
    sql = f"SELECT {ATTEMPT} FROM calls WHERE attempt IN ({marks}) ORDER BY at, attempt"
    return await lab.journal.query(sql, tuple(attempts)) if attempts else []


def _asked(row: tuple[Any, ...]) -> dict[str, Any]:
    run, mad, at, ended, first, alias, provider, model, *counts, usd, assumed, outcome, reason = row
    input, cached, output, thought = counts
    return {
        "run": run,
        "mad": mad,
        "at": at,
        "seconds": round(ended - at, 3) if ended else None,
        "first_s": round(first - at, 3) if first else None,
        "alias": alias,
        "provider": provider,
        "model": model,
        "input": input,
        "cached": cached,
        "output": output,
        "reasoning": thought,
        "usd": dollars(usd),
        "assumed": bool(assumed),
        "outcome": outcome or "open",
        "reason": reason,
    }


def _tool(run: Run, name: str, at: float, detail: str) -> dict[str, Any]:
    about = {"run": run.id, "mad": run.mad, "name": name[:TEXT], "at": at}
    return about | {"seconds": None, "outcome": "open", "detail": detail}


def _file(run: Run, path: str, how: str, at: float | None) -> dict[str, Any]:
    about = {"run": run.id, "mad": run.mad, "path": path, "how": how, "at": at}
    return about | {"added": None, "removed": None, "size": None, "digest": ""}


def _artifact(run: Run, artifact: dict[str, Any]) -> dict[str, Any]:
    known = {"size": artifact.get("size"), "digest": artifact.get("digest", "")}
    return _file(run, str(artifact.get("name", "")), "artifact", run.ended or None) | known


def _seconds(entry: dict[str, Any], row: Row) -> float:
    return round(max(row.at - float(entry["at"]), 0.0), 3)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _number(value: Any) -> Any:
    """A number that a worker told; None where it is none."""
    return value if isinstance(value, (int, float)) and type(value) is not bool and abs(value) < MOST else None


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else f"{text[: TEXT - 1]}…"
