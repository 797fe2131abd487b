"""What has happened since this core started, counted from the journal when somebody wants to know.

Nothing is counted while it happens: whoever asks has the new entries read, a piece at a time, on a reader's thread. So
a lab that nobody measures does nothing for it, and every figure can be told again from the journal.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from anyio import Lock

from core.fiedler.money import dollars
from core.rogers.journal import Journal
from core.telemetry.meters import LONG_SECONDS, TOKENS, Counter, Family, Histogram

PIECE = 20_000  # entries that one question to the journal looks at

_ENDS = """
    SELECT j.id, j.kind, b.body FROM journal j LEFT JOIN body b USING (sequence)
    WHERE j.sequence > ? AND j.sequence <= ? AND (
        (j.kind = 'run' AND j.id LIKE '%:collecting:%')
        OR (j.kind = 'act' AND (j.id LIKE '%:outcome' OR j.id LIKE '%:denied'))
        OR (j.kind = 'approval' AND j.id NOT LIKE '%:used:%'))"""


@dataclass
class Tally:
    """Counts what ended behind the sequence `after`."""

    journal: Journal
    after: int
    _turn: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        agent, about = ("gen_ai.agent.name",), ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model")
        self._runs = Counter("madlab.runs.ended", "Runs that ended.", (*agent, "outcome"), "{run}")
        self._took = Histogram(
            "madlab.run.duration", "From a run's start to its end.", (*agent, "outcome"), bounds=LONG_SECONDS
        )
        self._waited = Histogram(
            "madlab.run.wait", "From a run's request to its worker's first word.", agent, bounds=LONG_SECONDS
        )
        self._calls = Histogram(
            "gen_ai.client.operation.duration", "Requests to models.", (*about, "outcome"), bounds=LONG_SECONDS
        )
        self._tokens = Histogram(
            "gen_ai.client.token.usage", "Tokens of a request.", (*about, "gen_ai.token.type"), "{token}", TOKENS
        )
        self._usd = Counter("madlab.llm.usd", "What models have cost, in dollars.", ("gen_ai.request.model",))
        self._web = Counter("madlab.egress.requests", "Requests to the world.", ("result",), "{request}")
        self._bytes = Counter("madlab.egress.io", "Bytes to and from the world.", ("direction",), "By")
        self._denied = Counter("madlab.denials", "Acts that were denied.", ("act", "rule"), "{act}")
        self._approvals = Counter("madlab.approvals", "Questions to a person, and answers.", ("step",), "{approval}")

    async def families(self) -> list[Family]:
        """As it stands now."""
        await self.catch_up()
        return [
            each.family()
            for each in (
                *(self._runs, self._took, self._waited, self._calls, self._tokens, self._usd),
                *(self._web, self._bytes, self._denied, self._approvals),
            )
        ]

    async def catch_up(self) -> None:
        """Counts what has ended meanwhile."""
        async with self._turn:
            head = self.journal.statistics().entries
            while self.after < head:
                until = min(self.after + PIECE, head)
                await self._count(await self.journal.query(_ENDS, (self.after, until)))
                self.after = until

    async def _count(self, rows: Iterable[tuple[Any, ...]]) -> None:
        runs: list[str] = []
        attempts: list[str] = []
        for id, kind, body in rows:
            told = json.loads(body or b"{}")
            if kind == "run":
                runs.append(told["id"])
            elif kind == "approval":
                self._approvals.add(str(told.get("step", "")))
            elif id.endswith(":denied"):
                self._denied.add(str(told.get("act", "")), str(told.get("rule", "")))
            elif id.startswith("act:llm:"):
                attempts.append(told["attempt"])
            elif told.get("act") == "web.fetch":
                status = told.get("status")
                self._web.add(f"{int(status) // 100}xx" if isinstance(status, int) else "failed")
                self._bytes.add("transmit", by=told.get("bytes_sent") or 0)
                self._bytes.add("receive", by=told.get("bytes_received") or 0)
        for mad, outcome, created, started, ended in await self._of(
            "SELECT mad, outcome, created, started, ended FROM runs WHERE id IN", runs
        ):
            self._runs.add(mad, outcome or "")
            if started:
                self._took.record(max(ended - started, 0.0), mad, outcome or "")
                self._waited.record(max(started - created, 0.0), mad)
        for act, provider, model, at, ended, outcome, input, output, usd in await self._of(
            "SELECT act, provider, model, at, ended, outcome, input, output, usd FROM calls WHERE attempt IN", attempts
        ):
            about = ("embeddings" if act == "llm.embed" else "chat", provider, model)
            self._calls.record(max(ended - at, 0.0), *about, outcome)
            self._tokens.record(input, *about, "input")
            self._tokens.record(output, *about, "output")
            self._usd.add(model, by=dollars(usd))

    async def _of(self, sql: str, names: Sequence[str]) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        for at in range(0, len(names), 500):
            some = names[at : at + 500]
            found += await self.journal.query(f"{sql} ({', '.join('?' * len(some))})", some)
        return found
