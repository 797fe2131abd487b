"""The door's routes for reports: what scans found, set against an earlier scan, as files to take along, and accepted.

A report is checked for its shape before a word of it is passed on. A finding that a person accepts becomes a line of a
baseline, which is handed back to be kept beside the code: there it is reviewed with the code, versioned with it and
used by the CI that scans it (`madlab scan --baseline`). The lab keeps no second one that could say something else; that
it was accepted, by whom and why, stands in the audit.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, date, datetime, timedelta
from tempfile import TemporaryFile
from typing import IO, Annotated, Any

from anyio import from_thread, to_thread
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.coding.secrets import covered
from core.grace.door.callers import caller_of, may_see_run, seen_blob, seen_run
from core.grace.door.desk import Made, desk_of
from core.grace.door.edge import Strict, json_of, lab_of, number_of
from core.grace.door.report_page import POLICY, page
from core.grace.door.routes import Endpoint, choice, number, text
from core.grace.door.shapes import message_json, run_json
from core.grace.reports import RISING, Finding, Report, Wanted, compared, counts, parse, worst_first
from core.lab import Lab
from core.products import REPORT, Product, product_of, products
from core.rogers.entry import Entry
from core.run import Run
from core.strict import strict_json
from protos import tar
from protos.errors import Error, InvalidArgument, NotFound, Unavailable
from protos.ids import new_id
from protos.serve import answer_id
from protos.treerules import Caps
from protos.v1.message_pb2 import Message

PAGE, FINDINGS, MOST_FINDINGS = 100, 500, 5_000
REPORT_BYTES = 16 * 1024**2
BASELINE_BYTES = 4 * 1024**2
TREE_BYTES = 64 * 1024**2  # of a packed tree are searched for a line of code
FILE_BYTES = 4 * 1024**2
AROUND = 6  # lines above and below
LINE_CHARACTERS = 500
SCANS_BACK = 50  # among so many earlier ones the last of the same source is looked for
LONGEST_DAYS = 3 * 366
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a spreadsheet takes a cell for a program by
COLUMNS = ("severity", "rule", "cwe", "path", "line", "message", "fix", "confidence", "scanners", "id")


class _AcceptedBody(Strict):
    """One finding that is accepted."""

    id: Annotated[str, Field(min_length=1, max_length=100)]
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    until: date
    who: Annotated[str, Field(max_length=100)] = ""  # else whoever asks


class _BaselineBody(Strict):
    """What is accepted from now on, and what no longer is."""

    accept: Annotated[list[_AcceptedBody], Field(max_length=500, default_factory=list)]
    withdraw: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=500, default_factory=list)]


def routes() -> Iterator[Endpoint]:
    """The routes of this part of the door."""
    yield Endpoint(
        *("GET", "/reports", _reports, "The scans that left a report, newest first."),
        query=(
            number("limit", f"so many, at most {PAGE}", default=25),
            number("before", "the `sequence` of the one to go on behind"),
        ),
    )
    yield Endpoint(
        *("GET", "/runs/{id}/report", _report, "What a scan found, the worst first, and what has changed since."),
        query=(
            text("against", "the run of an earlier scan to compare with"),
            choice("severity", "only these", *RISING),
            text("rule", "only what this rule found"),
            text("path", "only what is in this file"),
            text("q", "only what has this text in its rule, path, message or CWE"),
            number("limit", f"so many findings, at most {MOST_FINDINGS}", default=FINDINGS),
            number("offset", "after so many", default=0),
        ),
        clients=True,
    )
    yield Endpoint(
        *("GET", "/runs/{id}/report/code", _code, "The code around a finding, out of the tree that was scanned."),
        query=(text("finding", "its id"),),
        clients=True,
    )
    for kind, media in (
        *(("json", "application/json"), ("sarif", "application/sarif+json")),
        *(("html", "text/html"), ("csv", "text/csv")),
    ):
        summary = f"The report as {kind.upper()}, to be kept."
        yield Endpoint("GET", f"/runs/{{id}}/report.{kind}", _FILES[kind], summary, media=media, clients=True)
    yield Endpoint(
        *("POST", "/runs/{id}/report/baseline", _baseline, "A baseline with findings of this report accepted."),
        body=_BaselineBody,
    )


# --- reading


async def _reports(request: Request) -> Response:
    lab = lab_of(request)
    limit, before = number_of(request, "limit", 25, PAGE, least=1), number_of(request, "before", 0, 2**62)
    found = await products(lab.journal, REPORT, limit=limit, before=before or None)
    return JSONResponse({"reports": [await _product_json(lab, each) for each in found]})


async def _product_json(lab: Lab, product: Product) -> dict[str, Any]:
    run = await lab.runs.get(product.run)
    asked = await lab.rogers.find(run.trigger)
    answer = await lab.rogers.find(answer_id(Message(id=run.trigger)))
    told = strict_json(answer.data) if answer is not None else None
    by_level = told.get("findings") if isinstance(told, dict) else None
    levels = by_level if isinstance(by_level, dict) else {}
    return {
        "run": run_json(lab, run),
        "sequence": product.sequence,
        "name": _name_of(asked),
        "findings": _whole(run.evidence.get("findings")),
        "counts": {level: _whole(levels.get(level)) for level in RISING},
        "files": _whole(run.evidence.get("files")),
        "scanned": _whole(run.evidence.get("scanned")),
    }


async def _report(request: Request) -> Response:
    lab, query = lab_of(request), request.query_params
    run, product = await _seen(request)
    before = await _seen(request, query["against"]) if query.get("against") else None
    asked = await lab.rogers.find(run.trigger)
    wanted = Wanted(query.get("severity", ""), query.get("rule", ""), query.get("path", ""), query.get("q", ""))
    first = number_of(request, "offset", 0, 2**31)
    stretch = slice(first, first + number_of(request, "limit", FINDINGS, MOST_FINDINGS, least=1))
    told = {
        "run": run_json(lab, run),
        "name": _name_of(asked),
        "previous": await _previous(request, product, _name_of(asked)),
    }

    async def make() -> Callable[[], Iterator[str]]:
        accepted = await _accepted(request, asked)
        report = await _read(request, run)
        earlier = await _read(request, before[0]) if before else None
        return lambda: _told(told, report, earlier, wanted, stretch, accepted)

    return Made(request, make)


def _told(
    told: Mapping[str, Any], report: Report, earlier: Report | None, wanted: Wanted, stretch: slice, baseline: bytes
) -> Iterator[str]:
    """In a thread: the answer with these findings of a report."""
    chosen = worst_first([each for each in report.findings if wanted.has(each)])
    answer: dict[str, Any] = {
        **told,
        "coverage": {
            "files": report.coverage.files,
            "scanned": report.coverage.scanned,
            "skipped": [each.model_dump() for each in report.coverage.skipped[:FINDINGS]],
            "skipped_count": len(report.coverage.skipped),
            "scanners": [each.model_dump() for each in report.coverage.scanners],
        },
        "counts": counts(report.findings),
        "total": len(report.findings),
        "matching": len(chosen),
        "findings": [each.model_dump(mode="json") for each in chosen[stretch]],
        "rules": _tally(report, "rule"),
        "paths": _tally(report, "path"),
        "accepted": _entries_of(baseline),
        "comparison": None,
    }
    if earlier is not None:
        found = compared(report, earlier)
        answer["comparison"] = {
            "against": earlier.run,
            "new": found.new[:MOST_FINDINGS],
            "still": len(found.still),
            "gone": [each.model_dump(mode="json") for each in found.gone[:FINDINGS]],
            "gone_count": len(found.gone),
        }
    yield json.dumps(answer)


def _tally(report: Report, field: str) -> list[dict[str, Any]]:
    """The rules, or the files, with the most findings."""
    found: dict[str, int] = {}
    for each in report.findings:
        value = str(getattr(each, field))
        found[value] = found.get(value, 0) + 1
    most = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [{"name": name, "count": count} for name, count in most[:PAGE]]


async def _seen(request: Request, id: str = "") -> tuple[Run, Product]:
    """A run that left a report: the one in the path, or another.

    Raises:
        NotFound: there is no such run that the caller may see, or it left no report, or that was forgotten.
    """
    lab = lab_of(request)
    run = await seen_run(lab, caller_of(request), id or request.path_params["id"])
    product = await product_of(lab.journal, run, REPORT)
    if product is None:
        raise NotFound(f"The run {run.id} left no report.", next=f"See what it left: madlab show {run.id}")
    return run, product


async def _read(request: Request, run: Run) -> Report:
    """The report of a run. Only in a turn at the desk.

    Raises:
        NotFound: it is there no more.
        Unavailable: the report is far too big, or not of the shape that one has.
    """

    async def read() -> Report:
        content = await _blob(lab_of(request), digest, REPORT_BYTES)
        return await to_thread.run_sync(parse, content, {"id": run.id, "outcome": str(run.outcome)})

    digest = _digest(run, REPORT)
    return await desk_of(request).report(run.id, digest, read)


def _digest(run: Run, name: str) -> str:
    """
    Raises:
        NotFound: the run left nothing of that name.
    """
    found = next((each for each in run.artifacts if each["name"] == name), None)
    if found is None:
        raise NotFound(f"The run {run.id} left no {name}.", next=f"See what it left: madlab show {run.id}")
    return str(found["digest"])


async def _blob(lab: Lab, digest: str, most: int) -> bytes:
    content = bytearray()
    async with aclosing(lab.horace.get(digest)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            content += chunk
            if len(content) > most:
                raise Unavailable(f"It has over {most:,} bytes.", next=f"Take the file itself: {digest}")
    return bytes(content)


async def _previous(request: Request, product: Product, name: str) -> str | None:
    """The last scan of the same source before this one, of those that the caller may see."""
    lab, caller = lab_of(request), caller_of(request)
    for each in await products(lab.journal, REPORT, limit=SCANS_BACK, before=product.sequence):
        run = await lab.runs.get(each.run)
        if _name_of(await lab.rogers.find(run.trigger)) == name and await may_see_run(lab, caller, run):
            return each.run
    return None


def _asked(message: Message | None) -> Mapping[str, Any]:
    found = message_json(message)["data"] if message is not None else None
    return found if isinstance(found, Mapping) else {}


def _name_of(message: Message | None) -> str:
    return str(_asked(message).get("name", ""))[:255]


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0


# --- the code of a finding


async def _code(request: Request) -> Response:
    lab, id = lab_of(request), request.query_params.get("finding", "")
    run, _ = await _seen(request)
    asked = _asked(await lab.rogers.find(run.trigger))

    async def make() -> Callable[[], Iterator[str]]:
        report = await _read(request, run)
        finding = next((each for each in report.findings if each.id == id), None)
        if finding is None:
            raise NotFound(f"The report of {run.id} has no finding {id[:64]!r}.", next="take an id out of the report")
        if asked.get("kind", "tree") != "tree" or not finding.line:
            raise NotFound("There is no line of code to show.", next="an archive is opened in its sandbox only")
        source = str(asked.get("source", ""))
        await seen_blob(lab, caller_of(request), source)
        return lambda: _lines(lab, source, finding)

    return Made(request, make)


async def _copy(lab: Lab, digest: str, file: IO[bytes]) -> None:
    size = 0
    async with aclosing(lab.horace.get(digest)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            size += len(chunk)
            if size > TREE_BYTES:
                raise Unavailable(f"The tree has over {TREE_BYTES:,} bytes.", next="Look in the tree itself.")
            await to_thread.run_sync(file.write, chunk)


def _lines(lab: Lab, source: str, finding: Finding) -> Iterator[str]:
    """In a thread: the lines around a finding, out of a packed tree."""
    with TemporaryFile() as file:
        from_thread.run(_copy, lab, source, file)
        file.seek(0)
        content = _member(iter(lambda: file.read(1024**2), b""), finding.path)
    if content is None:
        raise NotFound(f"The tree has no file {finding.path[:100]!r} that can be shown.", next="it may be a history's")
    first = max(1, finding.line - AROUND)
    lines = covered(content).split(b"\n")[first - 1 : finding.line + AROUND]
    told = [
        {"number": number, "text": line[: 4 * LINE_CHARACTERS].decode("utf-8", "replace")[:LINE_CHARACTERS]}
        for number, line in enumerate(lines, first)
    ]
    yield json.dumps({"path": finding.path, "line": finding.line, "lines": told})


def _member(stream: Iterator[bytes], path: str) -> bytes | None:
    """One text file of a packed tree; None where there is none, or it is too big or no text."""
    for member in tar.read(stream, Caps()):
        if member.name == path and member.kind == "file" and member.size <= FILE_BYTES:
            content = b"".join(member.chunks)
            return None if b"\0" in content else content
    return None


# --- files to take along


async def _as_json(request: Request) -> Response:
    return await _file(request, "json", "application/json", lambda report: iter([report.model_dump_json(indent=2)]))


async def _as_csv(request: Request) -> Response:
    return await _file(request, "csv", "text/csv; charset=utf-8", lambda report: as_csv(worst_first(report.findings)))


async def _as_sarif(request: Request) -> Response:
    run, _ = await _seen(request)

    async def make() -> Callable[[], Iterator[str]]:
        content = await _blob(lab_of(request), _digest(run, "report.sarif"), REPORT_BYTES)
        return lambda: _sarif(run, content)

    return Made(request, make, "application/sarif+json", _to_be_kept(run, "sarif"))


def _sarif(run: Run, content: bytes) -> Iterator[str]:
    told = strict_json(content.decode("utf-8", "replace"))
    if not isinstance(told, dict) or told.get("version") != "2.1.0":
        raise Unavailable(f"What {run.id} left as report.sarif is no SARIF.", next="Take report.json.")
    yield json.dumps(told, ensure_ascii=False)


async def _as_html(request: Request) -> Response:
    run, _ = await _seen(request)
    asked = await lab_of(request).rogers.find(run.trigger)
    ended = {"ended": run.ended, "reason": run.reason}

    async def make() -> Callable[[], Iterator[str]]:
        accepted, report = await _accepted(request, asked), await _read(request, run)
        return lambda: page(report, _name_of(asked), ended, _entries_of(accepted))

    policy = {"content-security-policy": f"{POLICY}; form-action 'none'; frame-ancestors 'none'; sandbox"}
    return Made(request, make, "text/html; charset=utf-8", _to_be_kept(run, "html") | policy)


async def _file(request: Request, kind: str, media: str, pieces: Callable[[Report], Iterator[str]]) -> Response:
    run, _ = await _seen(request)

    async def make() -> Callable[[], Iterator[str]]:
        report = await _read(request, run)
        return lambda: pieces(report)

    return Made(request, make, media, _to_be_kept(run, kind))


def _to_be_kept(run: Run, kind: str) -> dict[str, str]:
    return {
        "content-disposition": f'attachment; filename="report-{run.id}.{kind}"',
        "x-content-type-options": "nosniff",
    }


def as_csv(findings: Sequence[Finding]) -> Iterator[str]:
    """Findings as a table, row by row. A cell that a spreadsheet would take for a formula begins with an apostrophe."""
    yield _row(COLUMNS)
    for each in findings:
        told = each.model_dump(mode="json") | {"scanners": " ".join(each.scanners)}
        yield _row([_cell(str(told[column])) for column in COLUMNS])


def _row(cells: Sequence[str]) -> str:
    into = io.StringIO()
    csv.writer(into).writerow(cells)
    return into.getvalue()


def _cell(value: str) -> str:
    return f"'{value}" if value.lstrip(" ").startswith(FORMULA) else value


_FILES = {"json": _as_json, "sarif": _as_sarif, "html": _as_html, "csv": _as_csv}


# --- the baseline


async def _accepted(request: Request, asked: Message | None) -> bytes:
    """The baseline that the scan was given; nothing where whoever asks may not read it, or it is there no more."""
    given = str(_asked(asked).get("baseline_json", ""))
    if not given.startswith("sha256:"):
        return given.encode("utf-8", "replace")
    try:
        await seen_blob(lab_of(request), caller_of(request), given)
        return await _blob(lab_of(request), given, BASELINE_BYTES)
    except Error:
        return b""


def _entries_of(baseline: bytes) -> list[dict[str, str]]:
    """In a thread: what a baseline accepts; nothing where it is none."""
    told = strict_json(baseline.decode("utf-8", "replace")) if baseline else None
    entries = told.get("accepted") if isinstance(told, dict) else None
    keys = ("id", "reason", "who", "until")
    found = [each for each in entries if isinstance(each, dict)] if isinstance(entries, list) else []
    return [{key: str(each.get(key, "")) for key in keys} for each in found]


async def _baseline(request: Request) -> Response:
    body, caller = await json_of(request, _BaselineBody), caller_of(request).name
    run, _ = await _seen(request)
    asked = await lab_of(request).rogers.find(run.trigger)
    async with desk_of(request).turn(caller):
        report = await _read(request, run)
        before = await to_thread.run_sync(_entries_of, await _accepted(request, asked))
    known = {each.id for each in report.findings}
    if unknown := [each.id for each in body.accept if each.id not in known]:
        raise InvalidArgument(f"accept: the report has no finding {unknown[0][:64]!r}", next="take ids out of it")
    today = datetime.now(UTC).date()
    if not all(today <= each.until <= today + timedelta(days=LONGEST_DAYS) for each in body.accept):
        raise InvalidArgument("until: it is a day from today on, and of the next three years", next="give another day")
    fresh = {each.id: each.model_dump(mode="json") | {"who": each.who.strip() or caller} for each in body.accept}
    kept = [each for each in before if each["id"] not in body.withdraw and each["id"] not in fresh]
    await lab_of(request).journal.append(*_entries(run, caller, fresh, body.withdraw))
    return JSONResponse({"version": 1, "accepted": [*kept, *fresh.values()]})


def _entries(run: Run, caller: str, accepted: Mapping[str, Mapping[str, str]], withdrawn: Sequence[str]) -> list[Entry]:
    """The act, for the audit."""
    details = {
        "accepted": ", ".join(f"{id} until {each['until']}: {each['reason']}" for id, each in accepted.items())[:4000],
        "withdrawn": ", ".join(withdrawn)[:4000],
    }
    act, id = "report.baseline", f"baseline-{run.id}-{new_id()}"
    steps: list[tuple[str, dict[str, Any]]] = [
        ("started", {"details": details, "rule": "operator", "verdict": "allow"}),
        ("outcome", {}),
    ]
    return [
        Entry(
            *(f"act:{id}:{step}", "act", json.dumps({"act": act, "step": step, "target": run.id, **body}).encode()),
            *(run.conversation, caller),
        )
        for step, body in steps
    ]
