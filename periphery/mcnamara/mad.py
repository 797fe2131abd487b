"""McNamara's tools: what a message can ask of it."""

import errno
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import BinaryIO, Literal

from anyio import from_thread, open_file, to_thread
from typing_extensions import TypedDict

from periphery.mcnamara import advisories, baseline
from periphery.mcnamara.archives import NotAnArchive
from periphery.mcnamara.archives.zip import documents
from periphery.mcnamara.findings import Level
from periphery.mcnamara.inventory import File
from periphery.mcnamara.lockfiles import is_lock_file
from periphery.mcnamara.report import ScannerState, sarif, severities
from periphery.mcnamara.scan import Staged, fill_with_archive, fill_with_tree, scan
from periphery.mcnamara.scanner import Coverage, Scanner
from periphery.mcnamara.scanners import catalogue
from periphery.mcnamara.scanners.dependencies import Dependencies
from periphery.mcnamara.stage import Stage
from protos.blobs import fetch, store
from protos.errors import Exhausted, InvalidArgument, NotFound
from protos.tools import Call, tool
from protos.tree import CHUNK, Caps, members
from protos.v1.session_pb2 import OUTCOME_PARTIAL, OUTCOME_SUCCEEDED

VERSION = "0.1.0"
BASELINE_BYTES = 4 * 2**20
TREE_BYTES = 2 * 2**30  # as much as a tree may have anywhere in the lab
DATABASE = Caps(files=2_000_000, bytes=16 * 2**30)  # a whole OSV database has many small records


class Summary(TypedDict):
    """The result of a scan in short; `report.json` and `report.sarif` hang on the reply."""

    outcome: Literal["succeeded", "partial"]
    reason: str
    files: int
    scanned: int
    skipped: int
    findings: dict[Level, int]
    suppressed: int
    scanners: list[ScannerState]


class McNamara:
    """Scans what may be hostile, inside the sandbox it runs in."""

    def __init__(self, scanners: Sequence[Scanner] | None = None) -> None:
        self._scanners = scanners

    @tool(effects="read", idempotent=True)
    async def scan(
        self,
        call: Call,
        *,
        source: str,
        kind: Literal["tree", "archive"] = "tree",
        name: str = "",
        baseline_json: str = "",
        history: bool = True,
    ) -> Summary:
        """Scans a packed tree or an archive, given as the digest of an attached blob.

        Finds flaws in code, secrets (with `history` also those of earlier git commits), vulnerable dependencies,
        hostile install hooks and faults of Dockerfiles, shell scripts and CI workflows. `baseline_json` is a baseline
        of accepted findings or the digest of a blob that holds it.
        """
        started = monotonic()
        with _full_disk_told(), TemporaryDirectory(prefix="scan-") as folder:
            work = Path(folder)
            accepted = await self._accepted(call, baseline_json, work)
            await call.progress("unpacking")
            staged = await self._stage(call, source, kind, name, work)

            async def progress(what: str, done: int, total: int) -> None:
                await call.progress(f"{what} {done}/{total}", what=what, done=done, total=total)

            scanners = [*(self._scanners if self._scanners is not None else catalogue())]
            rows: list[Coverage] = []
            try:
                found = await self._dependencies(call, staged.files, work)
                scanners += found
                rows += [] if found else [Coverage("dependencies", "", "no files for it")]
            except NotFound:
                rows.append(Coverage("dependencies", "", "no advisory database"))
            except (ValueError, sqlite3.Error) as error:
                rows.append(Coverage("dependencies", "", f"failed: the advisory database: {error}", failed=True))
            scanned = await scan(
                staged,
                scanners,
                accepted,
                run=call.ctx.assignment.run,
                progress=progress,
                scratch=work / "history" if history else None,
                rows=rows,
            )
            report = scanned.report
            verdict = call.ctx.verdict
            for title, media_type, content in (
                ("report.json", "application/json", json.dumps(report, ensure_ascii=False)),
                (
                    "report.sarif",
                    "application/sarif+json",
                    json.dumps(sarif(report, scanned.suppressed, VERSION, name)),
                ),
            ):
                blob = await store(
                    call.ctx.files, content.encode("utf-8", "replace"), name=title, media_type=media_type
                )
                verdict.artifacts.append(blob)
        coverage = report["coverage"]
        verdict.outcome = OUTCOME_SUCCEEDED if report["outcome"] == "succeeded" else OUTCOME_PARTIAL
        verdict.reason = scanned.reason
        verdict.evidence = {
            "files": coverage["files"],
            "scanned": coverage["scanned"],
            "skipped": len(coverage["skipped"]),
            "scanners": len(coverage["scanners"]),
            "findings": len(report["findings"]),
            "seconds": round(monotonic() - started, 1),
        }
        return Summary(
            outcome="succeeded" if report["outcome"] == "succeeded" else "partial",
            reason=scanned.reason[:2000],
            files=coverage["files"],
            scanned=coverage["scanned"],
            skipped=len(coverage["skipped"]),
            findings=severities(report["findings"]),
            suppressed=len(scanned.suppressed),
            scanners=coverage["scanners"],
        )

    @tool(effects="write", idempotent=True)
    async def index_advisories(
        self, call: Call, *, source: str, kind: Literal["tree", "archive"] = "archive"
    ) -> advisories.Counts:
        """Makes an index of an OSV database, a zip or a packed tree of JSON records, given as the digest of a blob.

        The index hangs on the reply. Withdrawn records and those of other ecosystems are left out, and counted.
        """
        with _full_disk_told(), TemporaryDirectory(prefix="advisories-") as folder:
            work = Path(folder)
            await fetch(call.ctx.files, source, work / "source")

            def tell(count: int) -> None:
                from_thread.run(call.progress, f"{count:,} records")

            def build() -> advisories.Counts:
                with open(work / "source", "rb") as file:
                    return advisories.build(_records(file, kind), work / "index", tell)

            try:
                counts = await to_thread.run_sync(build)
            except NotAnArchive as error:
                raise InvalidArgument(
                    f"This is no OSV database: {error}.", next="Give OSV's all.zip, or a directory of its records."
                ) from error
            if not counts["advisories"]:
                raise InvalidArgument(
                    "No advisory for a known ecosystem is in it.",
                    next=f"It should hold OSV records for {', '.join(advisories.ECOSYSTEMS)}.",
                )
            media_type = "application/vnd.sqlite3"
            call.ctx.verdict.artifacts.append(
                await store(call.ctx.files, work / "index", name="advisories", media_type=media_type)
            )
        call.ctx.verdict.evidence = {
            **counts,
            "files": counts["advisories"],
            "scanned": counts["advisories"],
            "scanners": 0,
        }
        return counts

    async def _stage(self, call: Call, source: str, kind: Literal["tree", "archive"], name: str, work: Path) -> Staged:
        """Unpacks what is to be scanned: a tree as it arrives, an archive once it is here, since its end comes first.

        Raises:
            InvalidArgument: it is no archive, or does not fit.
        """
        if kind == "archive":
            await fetch(call.ctx.files, source, work / "source")
            stage = Stage(work / "stage", max_bytes=_room(work))
            return await to_thread.run_sync(fill_with_archive, work / "source", stage, name)
        stage = Stage(work / "stage", max_bytes=_room(work))
        async with aclosing(call.ctx.files.get(source)) as stream:  # type: ignore[type-var]
            return await to_thread.run_sync(fill_with_tree, _from_thread(stream), stage)

    async def _dependencies(self, call: Call, files: Sequence[File], work: Path) -> list[Scanner]:
        """The scanner for lock files.

        Raises:
            NotFound: no index is installed.
            ValueError: it is of another version.
            sqlite3.Error: it is no index.
        """
        blob = await call.ctx.files.find("advisories")
        if not any(is_lock_file(each.path) for each in files):
            return []
        await fetch(call.ctx.files, blob.digest, work / "advisories")
        return [Dependencies(work / "advisories")]

    async def _accepted(self, call: Call, text: str, work: Path) -> list[baseline.Accepted]:
        if not text:
            return []
        if text.startswith("sha256:"):
            await fetch(call.ctx.files, text, work / "baseline")
            async with await open_file(work / "baseline", "rb") as file:
                text = (await file.read(BASELINE_BYTES)).decode("utf-8", "replace")
        return baseline.read(text)


@contextmanager
def _full_disk_told() -> Iterator[None]:
    """Says in words of ours that the workspace is full."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise Exhausted("The workspace is full.", next="Raise workspace_mb of the profile mcnamara.") from error
        raise


def _room(work: Path) -> int:
    """How many bytes may be unpacked: what is free, less what the scanners themselves need."""
    free = os.statvfs(work)
    return min(TREE_BYTES, free.f_bavail * free.f_frsize * 3 // 4)


def _from_thread(stream: AsyncIterator[bytes]) -> Iterator[bytes]:
    """The chunks of an asynchronous stream, asked for by a worker thread."""

    async def following() -> bytes:
        async for chunk in stream:
            return chunk
        return b""

    return iter(lambda: from_thread.run(following), b"")


def _records(file: BinaryIO, kind: Literal["tree", "archive"]) -> Iterator[bytes | None]:
    """The OSV records of a database, one after the other."""
    if kind == "archive":
        yield from documents(file, ".json", advisories.RECORD_BYTES)
        return
    for member in members(iter(lambda: file.read(CHUNK), b""), DATABASE):
        if member.kind == "file" and member.name.endswith(".json"):
            yield b"".join(member.chunks) if member.size <= advisories.RECORD_BYTES else None
