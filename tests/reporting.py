"""A scanner in McNamara's place, in the core's own process: it leaves the report that a test sets, whatever it is."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import TypedDict

from core.lab import Lab
from core.run import Run
from protos.blobs import store
from protos.ids import new_id
from protos.tools import Call, tool
from protos.v1.message_pb2 import KIND_CALL, Blob, Message
from protos.v1.session_pb2 import OUTCOME_SUCCEEDED
from tests.integration.test_core_runs import ended
from tests.labs import a_home, ask, opened
from tests.unit.coding.trees import Tree, tar_of

EVIL = "<img src=x onerror=alert(1)>"


def a_finding(number: int = 1, **changes: Any) -> dict[str, Any]:
    """One finding."""
    finding = {
        "id": f"mcn-{number}", "rule": "B602", "severity": "high", "confidence": "medium", "cwe": "CWE-78",
        "path": "app.py", "line": 3, "snippet": "run(cmd, shell=True)", "message": "A shell runs this.",
        "fix": "Pass a list.", "scanners": ["bandit"],
    }  # fmt: skip
    return finding | changes


class Summary(TypedDict):
    """What a scan came to."""

    findings: dict[str, int]


@dataclass
class Scans:
    """A lab with a scanner, and what it leaves next."""

    lab: Lab
    findings: list[dict[str, Any]] = field(default_factory=list)
    raw: bytes | None = None  # instead of a report
    skipped: Sequence[dict[str, str]] = ()

    async def scan(
        self, *findings: dict[str, Any], name: str = "project", tree: Tree | None = None, **more: Any
    ) -> Run:
        """A run that found this."""
        self.findings = list(findings)

        async def packed() -> AsyncIterator[bytes]:
            for chunk in tar_of(tree or {"app.py": b"import os\n\nrun(cmd, shell=True)\n"}):
                yield chunk

        blob: Blob = await self.lab.horace.put(packed(), name="source.tar")
        asked = Message(id=new_id(), conversation=new_id(), recipient="mcnamara", kind=KIND_CALL, tool="scan")
        asked.blobs.append(blob)
        asked.data = json.dumps({"source": blob.digest, "kind": "tree", "name": name} | more)
        await ask(self.lab, asked)
        return await ended(self.lab, self.lab.runs.id_of("mcnamara", asked.id))

    def report(self) -> bytes:
        """What the scanner leaves."""
        if self.raw is not None:
            return self.raw
        scanners = [{"name": "bandit", "version": "1.8", "state": "ok"}]
        coverage = {"files": 2, "scanned": 2 - len(self.skipped), "skipped": self.skipped, "scanners": scanners}
        told = {"run": "forged", "outcome": "forged", "coverage": coverage, "findings": self.findings}
        return json.dumps(told).encode()


@asynccontextmanager
async def scans() -> AsyncIterator[Scans]:
    """A lab that scans."""
    made: list[Scans] = []

    class Reporter:
        @tool(effects="read", idempotent=True)
        async def scan(
            self, call: Call, *, source: str, kind: str = "tree", name: str = "", baseline_json: str = ""
        ) -> Summary:
            """Leaves the report."""
            sarif = {"version": "2.1.0", "runs": []}
            for title, content in (("report.json", made[0].report()), ("report.sarif", json.dumps(sarif).encode())):
                call.ctx.verdict.artifacts.append(await store(call.ctx.files, content, name=title))
            call.ctx.verdict.outcome = OUTCOME_SUCCEEDED
            call.ctx.verdict.evidence |= {"findings": len(made[0].findings), "files": 2, "scanned": 2}
            levels = [each.get("severity") for each in made[0].findings]
            return {"findings": {each: levels.count(each) for each in ("low", "medium", "high", "critical")}}

    with a_home() as home:
        async with opened(home, mcnamara=Reporter) as lab:
            made.append(Scans(lab))
            yield made[0]
