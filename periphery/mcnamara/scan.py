"""One scan: fill the stage, let every scanner look, make one list of what they say, and tell how much was seen."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import anyio
from anyio import to_thread

from periphery.mcnamara import archives, baseline, history
from periphery.mcnamara.findings import Finding, Hit, merge
from periphery.mcnamara.inventory import File
from periphery.mcnamara.report import CoverageReport, Report
from periphery.mcnamara.scanner import Coverage, Scanner, drive
from periphery.mcnamara.stage import Full, Stage
from protos.errors import InvalidArgument
from protos.tree import members

AT_ONCE = 2  # scanners; as many as the profile has processors
LISTED = 20_000  # findings in a report
SKIPPED = 50_000  # rows in a report about what was not scanned
FOR_HISTORY = ("betterleaks", "secrets")  # the scanners that read earlier versions of files, too

Progress = Callable[[str, int, int], Awaitable[None]]  # what, done, of how many


@dataclass
class Staged:
    """What lies on the stage, and what filling it has shown."""

    files: list[File]
    hits: list[Hit] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # no fault: links, kinds that nobody reads
    unread: dict[str, str] = field(default_factory=dict)  # a gap: the scan is partial


@dataclass(frozen=True)
class Scanned:
    """A finished scan."""

    report: Report
    suppressed: list[tuple[Finding, baseline.Accepted]]
    reason: str  # why the outcome is partial; empty where it is not


def fill_with_archive(source: Path, stage: Stage, name: str) -> Staged:
    """Unpacks an archive, which is removed. Blocks: call it from a thread.

    Raises:
        InvalidArgument: it is none, or there is nothing in it.
    """
    try:
        opened = archives.unpack(source, stage, name=name)
    except archives.NotAnArchive as error:
        raise InvalidArgument(
            f"'{archives.escaped(name) or 'the file'}' is no archive: {error}.",
            next="Give a zip, wheel, sdist or tar, or a directory.",
        ) from error
    source.unlink()
    if not (stage.files or opened.hits or opened.skipped or opened.unread):
        raise InvalidArgument(
            f"'{archives.escaped(name) or 'the archive'}' holds no file.", next="Give an archive with files in it."
        )
    return Staged(list(stage.files), opened.hits, dict(opened.skipped), dict(opened.unread))


def fill_with_tree(chunks: Iterable[bytes], stage: Stage) -> Staged:
    """Unpacks a packed tree, and the archives it holds. Blocks: call it from a thread.

    Raises:
        InvalidArgument: it breaks the rules of trees, or does not fit.
    """
    opened = archives.Opened()
    for member in members(chunks):
        shown = archives.escaped(member.name)
        if member.kind == "link":
            opened.skipped.append((shown, f"a link to '{archives.escaped(member.target)}'"))
        elif member.kind == "file":
            try:
                stage.add(shown, member.chunks)
            except Full as full:
                sentence = f"The tree does not fit into the workspace: {full}."
                raise InvalidArgument(sentence, next="Raise workspace_mb of the profile mcnamara.") from full
    for each in list(stage.files):
        if "/.git/" not in f"/{each.path}":
            archives.nest(each, stage, opened, depth=1)
    return Staged(list(stage.files), opened.hits, dict(opened.skipped), dict(opened.unread))


async def scan(
    staged: Staged,
    scanners: Sequence[Scanner],
    accepted: Sequence[baseline.Accepted],
    *,
    run: str,
    progress: Progress,
    scratch: Path | None = None,
    rows: Sequence[Coverage] = (),
) -> Scanned:
    """Lets every scanner look at the staged files and makes one report.

    With `scratch`, a directory to be made, the earlier versions in git repositories are searched for secrets too.
    `rows` are about what could not even be asked.
    """
    data = history.internal(staged.files)
    files = [each for each in staged.files if each.path not in data]
    covered = [*await look(scanners, files, progress), *rows]
    if scratch is not None:
        covered.append(await _look_back(scanners, staged.files, covered, scratch, progress))
    hits = [*staged.hits, *(hit for each in covered for hit in each.hits)]
    findings = await to_thread.run_sync(merge, hits)
    counting, suppressed = baseline.split(findings, accepted, datetime.now(UTC).date())
    unread = dict(staged.unread)
    for each in covered:
        for path, reason in each.missed.items():
            unread[path] = f"{unread[path]}; {reason}" if path in unread else reason
    failed = [each for each in covered if each.failed]
    partial = bool(unread or failed or len(counting) > LISTED)
    coverage = _coverage(files, staged, covered, unread)
    reasons = [f"{each.name} {each.state}" for each in failed]
    if staged.unread:
        reasons.append(f"{len(staged.unread)} files could not be read")
    if len(counting) > LISTED:
        reasons.append(f"only the {LISTED:,} gravest of {len(counting):,} findings are listed")
    outcome = "partial" if partial else "succeeded"
    report = Report(run=run, outcome=outcome, coverage=coverage, findings=counting[:LISTED])
    return Scanned(report, suppressed, "; ".join(reasons))


async def look(scanners: Sequence[Scanner], files: Sequence[File], progress: Progress) -> list[Coverage]:
    """What each scanner made of the files, in the order of `scanners`."""
    found: dict[str, Coverage] = {}
    limiter = anyio.CapacityLimiter(AT_ONCE)
    ended = 0

    async def one(scanner: Scanner) -> None:
        nonlocal ended

        async def tell(done: int, total: int) -> None:
            await progress(scanner.name, done, total)

        async with limiter:
            found[scanner.name] = await drive(scanner, files, tell)
        ended += 1
        await progress("scanners", ended, len(scanners))

    async with anyio.create_task_group() as group:
        for scanner in scanners:
            group.start_soon(one, scanner)
    return [found[each.name] for each in scanners]


async def _look_back(
    scanners: Sequence[Scanner], files: Sequence[File], covered: Sequence[Coverage], scratch: Path, progress: Progress
) -> Coverage:
    """The history's own secrets: those that the files of today hold as well are left out."""

    async def tell(done: int, total: int) -> None:
        await progress("history", done, total)

    past = await history.look(files, [each for each in scanners if each.name in FOR_HISTORY], scratch, tell)
    today = {(hit.path, secret) for each in covered for hit in each.hits for secret in hit.secrets}
    past.hits = [hit for hit in past.hits if not {(hit.path.rpartition("@")[0], each) for each in hit.secrets} & today]
    return past


def _coverage(
    files: Sequence[File], staged: Staged, covered: Sequence[Coverage], unread: dict[str, str]
) -> CoverageReport:
    seen = set().union(*(each.scanned for each in covered))
    skipped = {**unread, **{path: reason for path, reason in staged.skipped.items() if path not in unread}}
    for path, reason in _unseen(files, seen):
        skipped.setdefault(path, reason)
    return CoverageReport(
        files=len({each.path for each in files} | staged.unread.keys() - {"(the archive)"}),
        scanned=len(seen),
        skipped=[{"path": path, "reason": reason} for path, reason in _folded(list(skipped.items()))],
        scanners=[{"name": each.name, "version": each.version, "state": each.state} for each in covered],
    )


def _folded(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The rows in order of their paths; of too many the first ones, which weigh most, and one about the others."""
    if len(rows) <= SKIPPED:
        return sorted(rows)
    return [*sorted(rows[: SKIPPED - 1]), (f"({len(rows) - SKIPPED + 1:,} more)", "not scanned either, and not listed")]


def _unseen(files: Sequence[File], seen: set[str]) -> Iterator[tuple[str, str]]:
    for file in files:
        if file.path not in seen:
            if not file.size:
                yield file.path, "empty"
            elif file.kind == "binary":
                yield file.path, "binary: no scanner reads it"
            else:
                yield file.path, f"too big: {file.size:,} bytes"
