"""McNamara's tools: what a message can ask of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Literal

from anyio import open_file, to_thread
from typing_extensions import TypedDict

from periphery.mcnamara import baseline
from periphery.mcnamara.findings import Level
from periphery.mcnamara.report import ScannerState, sarif, severities
from periphery.mcnamara.scan import fill, scan
from periphery.mcnamara.scanner import Scanner
from periphery.mcnamara.scanners import catalogue
from periphery.mcnamara.stage import Stage
from protos.blobs import fetch, store
from protos.tools import Call, tool
from protos.v1.session_pb2 import OUTCOME_PARTIAL, OUTCOME_SUCCEEDED

VERSION = "0.1.0"
BASELINE_BYTES = 4 * 2**20


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
        with TemporaryDirectory(prefix="scan-") as folder:
            work = Path(folder)
            accepted = await self._accepted(call, baseline_json, work)
            await fetch(call.ctx.files, source, work / "source")
            await call.progress("unpacking")
            stage = Stage(work / "stage")
            staged = await to_thread.run_sync(fill, work / "source", kind, stage, name)

            async def progress(what: str, done: int, total: int) -> None:
                await call.progress(f"{what} {done}/{total}", what=what, done=done, total=total)

            scanned = await scan(
                staged,
                self._scanners or catalogue(),
                accepted,
                run=call.ctx.assignment.run,
                progress=progress,
                scratch=work / "history" if history else None,
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

    async def _accepted(self, call: Call, text: str, work: Path) -> list[baseline.Accepted]:
        if not text:
            return []
        if text.startswith("sha256:"):
            await fetch(call.ctx.files, text, work / "baseline")
            async with await open_file(work / "baseline", "rb") as file:
                text = (await file.read(BASELINE_BYTES)).decode("utf-8", "replace")
        return baseline.read(text)
