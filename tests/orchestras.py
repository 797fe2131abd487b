"""Orchestras to test with: a journal, a ledger and Fiedler in a temporary place, in front of a model server."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from anyio import fail_after

from core.fiedler.fiedler import Fiedler
from core.fiedler.keys import KeyFiles
from core.fiedler.ledger import VIEWS, Caller, Ledger
from core.fiedler.money import picodollars
from core.fiedler.policy import Policy
from core.fiedler.settings import Model, Orchestra, Provider
from core.rogers.journal import Journal
from core.rogers.views import VIEWS as ROGERS
from protos.llm import Completion
from protos.v1 import llm_pb2 as pb
from tests.model_server import ModelServer

KEY = "sk-test-4f1b0c9d8e7a6b5c"
CALLER = Caller("run-1", "hopper", "conversation-1", "run-1")


@dataclass
class Hall:
    """An open orchestra."""

    journal: Journal
    ledger: Ledger
    fiedler: Fiedler
    directory: Path

    async def ask(self, request: pb.CompleteRequest, caller: Caller = CALLER, *, within_s: float = 60) -> Completion:
        """The whole answer."""
        completion = Completion()
        with fail_after(within_s):
            async for each in self.fiedler.complete(request, caller):
                completion.take(each)
        return completion

    async def calls(self, columns: str = "outcome") -> list[tuple[Any, ...]]:
        """Every attempt, oldest first."""
        return await self.journal.query(f"SELECT {columns} FROM calls ORDER BY at, number")

    async def check_books(self) -> None:
        """The two books and the memory say the same, and nothing is left open."""
        assert self.ledger.escrow.holds == {}
        assert await self.journal.query("SELECT * FROM holds") == []
        booked = await self.journal.query(
            "SELECT ifnull(sum(input + output), 0), ifnull(sum(usd), 0) FROM calls WHERE outcome != ''"
        )
        roots = await self.journal.query(
            "SELECT ifnull(sum(spent_tokens), 0), ifnull(sum(spent_usd), 0) FROM budgets WHERE parent = ''"
        )
        assert booked == roots
        rows = await self.journal.query("SELECT name, spent_tokens, spent_usd, held_tokens, held_usd FROM budgets")
        for name, *amounts in rows:
            account = await self.ledger.account(name)
            assert amounts == [*account.spent, *account.held]
        before = await self._tables()
        await self.journal.rebuild("calls")
        await self.journal.rebuild("budgets")
        assert await self._tables() == before

    async def _tables(self) -> list[Any]:
        return [await self.journal.query(f"SELECT * FROM {each} ORDER BY 1") for each in ("calls", "budgets", "holds")]


def providers(server: ModelServer, directory: Path) -> dict[str, Provider]:
    """The server in both protocols, with a key."""
    file = directory / "key"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(KEY)
    return {
        "openai": Provider(kind="openai", base_url=server.openai, key_file=file),
        "anthropic": Provider(kind="anthropic", base_url=server.anthropic, key_file=file),
    }


def a_model(provider: str = "openai", **changes: Any) -> Model:
    """A model with a price: $3 and $15 for a million tokens."""
    priced = {"input_usd": Decimal(3), "output_usd": Decimal(15), "max_tokens": 100, "first_output_s": 30, "idle_s": 30}
    return Model.model_validate({"provider": provider, "model": "scripted"} | priced | changes)


@asynccontextmanager
async def hall(
    server: ModelServer,
    directory: Path,
    models: Mapping[str, Model] | None = None,
    *,
    usd_per_day: float | None = None,
    **orchestra: Any,
) -> AsyncIterator[Hall]:
    """An open orchestra; by default with the alias `one`, retrying without long pauses."""
    set_up = providers(server, directory)
    async with Journal(directory / "journal.db", [*ROGERS, *VIEWS]) as journal:
        cap = None if usd_per_day is None else picodollars(usd_per_day)
        ledger = Ledger(journal, usd_per_day=cap)
        settings = Orchestra(**orchestra)
        fiedler = Fiedler(
            ledger,
            KeyFiles({name: path for name, each in set_up.items() if (path := each.key_path(directory))}),
            orchestra=settings,
            providers=set_up,
            models=models or {"one": a_model()},
            policy=Policy(failures=settings.failures, rest_s=settings.rest_s, chance=lambda: 0.0),
        )
        async with fiedler:
            yield Hall(journal, ledger, fiedler, directory)
