"""A provider of recorded exchanges, set up as an operator sets it up; and what a sealed journal means for models."""

from pathlib import Path

import pytest
from anyio import fail_after

from core.fiedler.fiedler import Fiedler
from core.fiedler.keys import KeyFiles
from core.fiedler.ledger import VIEWS, Ledger
from core.fiedler.settings import Orchestra, Provider
from core.rogers.journal import Journal
from core.rogers.views import VIEWS as ROGERS
from protos.errors import InvalidArgument, Unavailable
from protos.llm import Completion, prompt
from tests.model_server import Play, model_server
from tests.orchestras import CALLER, a_model, hall

EXCHANGES = Path(__file__).parents[1] / "exchanges"


async def test_a_provider_of_recorded_exchanges_answers_what_was_recorded(tmp_path: Path) -> None:
    provider = Provider(kind="recorded", wire="openai", directory=EXCHANGES)
    async with Journal(tmp_path / "journal.db", [*ROGERS, *VIEWS]) as journal:
        models = {"one": a_model("recorded", model="m", attempts=1)}
        ledger = Ledger(journal)
        fiedler = Fiedler(ledger, KeyFiles({}), orchestra=Orchestra(), providers={"recorded": provider}, models=models)
        async with fiedler:
            made = Completion()
            with fail_after(60):
                async for each in fiedler.complete(prompt("Hello?"), CALLER):
                    made.take(each)
            assert (made.text, made.usage.input_tokens, made.usage.output_tokens) == ("Written by hand.", 9, 3)
            with pytest.raises(InvalidArgument, match="No recorded exchange"):
                await anext(fiedler.complete(prompt("Something else?"), CALLER))
            assert [(each.calls, each.failed) for each in (await ledger.costs("model")).costs] == [(2, 1)]


async def test_nothing_is_asked_that_cannot_be_booked(tmp_path: Path) -> None:
    async with model_server() as server, hall(server, tmp_path) as tried:
        await tried.ask(prompt("Hello?"))
        tried.journal._seal("the disk is full", [])
        with pytest.raises(Unavailable, match="sealed"):
            await tried.ask(prompt("Hello?"))
        assert len(server.requests) == 1
        assert tried.ledger.escrow.holds == {}


async def test_a_disk_that_fails_in_the_middle_of_an_answer_is_told(tmp_path: Path) -> None:
    async with model_server(Play(text="one two three", pause_s=0.05)) as server, hall(server, tmp_path) as tried:
        completion = Completion()
        with fail_after(60), pytest.raises(Unavailable, match="sealed"):  # noqa: PT012  what came before counts
            async for each in tried.fiedler.complete(prompt("Hello?"), CALLER):
                completion.take(each)
                if each.text and tried.journal.sealed is None:
                    tried.journal._seal("the disk is full", [])
        assert completion.text == "one two three"
    async with model_server() as server, hall(server, tmp_path) as tried:
        assert await tried.calls("outcome, assumed") == [("lost", 1)]
        await tried.check_books()
