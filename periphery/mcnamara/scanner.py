"""The seam for scanners, and the driver that never trusts one.

A scanner is one small adapter: which files it reads, and how it is asked. Everything else is here, alike for all: its
canary (a known-bad file with the finding it must give) rides in every batch, so that the very process that calls the
rest clean has shown that it can see. A batch that crashes, runs out of time or loses its canary is halved and tried
again until the file that did it stands alone: one poisoned file cannot blind a scanner for the others. What remains
unread is named, and the scan is then partial.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Protocol

from periphery.mcnamara.findings import Hit, quoted
from periphery.mcnamara.inventory import File, kind_of

BATCH_FILES = 150
BATCH_BYTES = 24 * 2**20
LINE_CHARACTERS = 400  # of a line that is kept for a snippet
HITS_PER_FILE = 200  # more of one scanner in one file say nothing new


@dataclass(frozen=True)
class Canary:
    """A known-bad file and the rule that must find it."""

    path: str
    content: str
    rule: str


@dataclass
class Batch:
    """What a scanner made of some files."""

    hits: list[Hit] = field(default_factory=list)
    missed: dict[str, str] = field(default_factory=dict)  # path → why this file was not read


class Failed(Exception):
    """A scanner did not do its work on a batch: it crashed, ran out of time, or spoke what nobody understands."""


class Scanner(Protocol):
    """One way of looking at files."""

    name: str
    version: str
    canary: Canary
    seconds: float  # its time for all files of a scan

    def applies(self, file: File) -> bool:
        """Whether this is a file for it."""
        ...

    async def look(self, files: Sequence[File], seconds: float) -> Batch:
        """Reads all of `files` within `seconds`.

        Raises:
            Failed: it could not; nothing is known about any of the files.
        """
        ...


@dataclass
class Coverage:
    """What one scanner did in a scan."""

    name: str
    version: str
    state: str = "ok"
    failed: bool = False  # makes the scan partial
    scanned: set[str] = field(default_factory=set)
    missed: dict[str, str] = field(default_factory=dict)
    hits: list[Hit] = field(default_factory=list)


Tell = Callable[[int, int], Awaitable[None]]


async def drive(scanner: Scanner, files: Sequence[File], tell: Tell) -> Coverage:
    """Runs one scanner over the files it is for; `tell` hears how many of how many are done."""
    coverage = Coverage(scanner.name, scanner.version)
    wanted = [each for each in files if scanner.applies(each)]
    if not wanted:
        coverage.state = "no files for it"
        return coverage
    ends = monotonic() + scanner.seconds
    waiting = batches(wanted)[::-1]
    reasons: list[str] = []
    while waiting:
        batch = waiting.pop()
        left = ends - monotonic()
        if left <= 0:
            reasons.append(f"out of its {scanner.seconds:.0f} s")
            for rest in (batch, *waiting):
                coverage.missed.update(dict.fromkeys((each.path for each in rest), f"{scanner.name}: no time left"))
            break
        try:
            looked = await _with_canary(scanner, batch, left if len(batch) == 1 else left * 0.6)
        except Failed as failed:
            if str(failed) not in reasons:
                reasons.append(str(failed))
            if len(batch) > 1:
                half = len(batch) // 2
                waiting += [batch[half:], batch[:half]]
                continue
            coverage.missed[batch[0].path] = f"{scanner.name}: {failed}"
            if len(coverage.missed) >= 8 and not coverage.scanned:
                for rest in waiting:
                    coverage.missed.update(dict.fromkeys((each.path for each in rest), f"{scanner.name}: {failed}"))
                break
        else:
            coverage.missed.update(looked.missed)
            coverage.scanned.update(each.path for each in batch if each.path not in looked.missed)
            coverage.hits += with_snippets(looked.hits, batch, scanner.name)
            await tell(len(coverage.scanned) + len(coverage.missed), len(wanted))
    _judge(coverage, len(wanted), reasons)
    return coverage


def _judge(coverage: Coverage, wanted: int, reasons: list[str]) -> None:
    if not coverage.missed:
        return
    coverage.failed = True
    why = "; ".join(reasons) or next(iter(coverage.missed.values())).removeprefix(f"{coverage.name}: ")
    if coverage.scanned:
        coverage.state = f"partial: {len(coverage.missed)} of {wanted} files not read ({why})"
    else:
        coverage.state = f"failed: {why}"
    coverage.state = coverage.state[:300]


async def _with_canary(scanner: Scanner, batch: Sequence[File], seconds: float) -> Batch:
    async with canary_file(scanner.canary) as canary:
        looked = await scanner.look([*batch, canary], seconds)
    seen = [each for each in looked.hits if each.path == canary.path]
    if not any(each.rule == scanner.canary.rule for each in seen):
        raise Failed("its canary went unseen")
    looked.hits = [each for each in looked.hits if each.path != canary.path]
    return looked


@asynccontextmanager
async def canary_file(canary: Canary) -> AsyncIterator[File]:
    """The canary as a file of its own directory."""
    with TemporaryDirectory(prefix="canary-") as folder:
        place = Path(folder) / canary.path
        place.parent.mkdir(parents=True, exist_ok=True)
        content = canary.content.encode()
        place.write_bytes(content)
        yield File(
            f"{place.parents[canary.path.count('/')].name}/{canary.path}",
            place,
            len(content),
            kind_of(canary.path, content),
        )


def batches(files: Sequence[File]) -> list[list[File]]:
    """`files` in groups that are small enough for one process."""
    groups: list[list[File]] = [[]]
    total = 0
    for file in files:
        if groups[-1] and (len(groups[-1]) >= BATCH_FILES or total + file.size > BATCH_BYTES):
            groups.append([])
            total = 0
        groups[-1].append(file)
        total += file.size
    return groups


def with_snippets(hits: Sequence[Hit], files: Sequence[File], scanner: str) -> list[Hit]:
    """The hits, each with its scanner's name and the text of its line, at most `HITS_PER_FILE` of one file."""
    by_path: dict[str, list[Hit]] = {}
    for hit in hits:
        by_path.setdefault(hit.path, []).append(hit)
    done: list[Hit] = []
    for file in files:
        some = by_path.get(file.path, [])
        if not some:
            continue
        lines = file.text().splitlines() if any(not each.snippet for each in some) else []
        for hit in some[:HITS_PER_FILE]:
            text = lines[hit.line - 1][:LINE_CHARACTERS] if 0 < hit.line <= len(lines) else ""
            done.append(quoted(replace(hit, scanner=scanner), text))
    return done
