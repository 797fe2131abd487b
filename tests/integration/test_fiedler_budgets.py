"""Budgets over real calls: never overspent, never double-booked, whatever breaks; and what a crash leaves."""

import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import anyio
import pytest
from anyio import create_task_group, fail_after, move_on_after, sleep

from core.fiedler.ledger import Caller
from core.fiedler.mad import others
from core.fiedler.money import dollars, picodollars
from protos.errors import Conflict, Error, Exhausted
from protos.llm import prompt
from protos.money import total
from tests.model_server import ModelServer, Play, model_server
from tests.orchestras import CALLER, Hall, a_model, hall

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with model_server() as server:
        yield server


def bill_of(server: ModelServer, input_usd: int = 3, output_usd: int = 15) -> int:
    """What a provider would bill for what it really did, in picodollars."""
    return sum(input * input_usd + output * output_usd for input, output in server.bill) * 1_000_000


async def test_a_budget_that_does_not_cover_the_worst_case_is_told_with_what_it_needs(
    server: ModelServer, tmp_path: Path
) -> None:
    async with hall(server, tmp_path) as tried:
        await tried.ledger.open_account("run:1", cap_usd=picodollars(0.001))
        caller = Caller("1", "hopper", "c", "1", "run:1")
        with pytest.raises(Exhausted, match=r"budget of run:1 .* needs \$0\.00.* more \(\$0\.001 left of \$0\.001\)"):
            await tried.ask(prompt("Hello?"), caller)
        assert server.requests == []
        await tried.ledger.open_account("run:1", cap_usd=picodollars(0.01))
        assert (await tried.ask(prompt("Hello?"), caller)).text == "Hello there."
        await tried.check_books()


async def test_a_child_draws_from_its_parent_and_both_from_the_day(server: ModelServer, tmp_path: Path) -> None:
    async with hall(server, tmp_path, usd_per_day=1) as tried:
        await tried.ledger.open_account("run:parent", cap_usd=picodollars(0.003))
        await tried.ledger.open_account("run:child", parent="run:parent", cap_usd=picodollars(1))
        child = Caller("child", "hopper", "c", "child", "run:child")
        made = await tried.ask(prompt("Hello?"), child)
        for name in ("run:child", "run:parent"):
            assert (await tried.ledger.account(name)).spent.usd == round(made.usage.usd * 10**12)
        with pytest.raises(Exhausted, match="run:parent"):
            await _ask_ten_times(tried, child)
        await tried.check_books()
    async with hall(server, tmp_path, usd_per_day=1) as tried:
        with pytest.raises(Exhausted, match="run:parent"):
            await tried.ask(prompt("Hello?"), child)


async def test_the_day_has_a_cap_of_its_own(server: ModelServer, tmp_path: Path) -> None:
    async with hall(server, tmp_path, usd_per_day=0.0025) as tried:
        await tried.ask(prompt("Hello?"))
        with pytest.raises(Exhausted, match="day:"):
            await _ask_ten_times(tried)
        await tried.check_books()


async def _ask_ten_times(tried: Hall, caller: Caller = CALLER) -> None:
    for _ in range(10):
        await tried.ask(prompt("Hello?"), caller)


async def test_parallel_calls_at_the_edge_of_a_cap_never_pass_it(server: ModelServer, tmp_path: Path) -> None:
    server.script = lambda _: Play(text="word " * 60, pause_s=0.001)
    async with hall(server, tmp_path) as tried:
        cap = picodollars(0.01)
        await tried.ledger.open_account("run:1", cap_usd=cap)
        caller = Caller("1", "hopper", "c", "1", "run:1")
        outcomes: list[bool] = []

        async def ask() -> None:
            try:
                await tried.ask(prompt("Hello?"), caller)
                outcomes.append(True)
            except Exhausted:
                outcomes.append(False)

        async with create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(ask)
        assert any(outcomes)
        assert not all(outcomes)
        account = await tried.ledger.account("run:1")
        assert bill_of(server) <= account.spent.usd <= cap
        assert server.open_most > 1, "they did run beside each other"
        await tried.check_books()


PLAYS = (
    Play(),
    Play(text="word " * 40, pause_s=0.002),
    Play(usage="missing"),
    Play(usage="wrong"),
    Play(usage="zero"),
    Play(usage="every"),
    Play(cached=5, hidden=9),
    Play(cut="middle", text="one two three four"),
    Play(cut="before usage"),
    Play(error_event="overloaded"),
    Play(status=429, headers={"retry-after": "0.01"}),
    Play(status=500),
    Play(status=401),
    Play(hang="at once"),
    Play(text="word " * 40, hang="middle"),
    Play(garbage=b"data: {]\n\n"),
    Play(calls=[("read", "{")]),
)


@pytest.mark.parametrize("seed", range(6))
async def test_the_books_hold_whatever_happens(server: ModelServer, tmp_path: Path, seed: int) -> None:
    """Random plays, protocols, fallbacks, hedges, cancelled callers and caps: what is booked covers what is billed."""
    chance = random.Random(seed)
    server.script = lambda _: chance.choice(PLAYS)
    patience = {"first_output_s": 0.2, "idle_s": 0.2, "deadline_s": 2}
    models = {
        "one": a_model("openai", fallbacks=("two",), hedge_after_s=0.05, **patience),
        "two": a_model("anthropic", fallbacks=("one",), **patience),
    }
    async with hall(server, tmp_path, models, failures=50) as tried:
        cap = picodollars(Decimal("0.05"))
        await tried.ledger.open_account("run:1", cap_usd=cap)
        caller = Caller("1", "hopper", "c", "1", "run:1")

        async def ask(model: str, whole: bool, patience_s: float) -> None:
            request = prompt("Hello?", model=model)
            request.whole = whole
            request.tools.add(name="read")
            with move_on_after(patience_s):
                with suppress(Error):
                    await tried.ask(request, caller)

        async with create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(
                    ask, chance.choice(["one", "two"]), chance.random() < 0.3, chance.choice([0.05, 0.3, 5.0])
                )
                await sleep(chance.random() * 0.02)
        account = await tried.ledger.account("run:1")
        assert bill_of(server) <= account.spent.usd <= cap
        await tried.check_books()


async def test_costs_are_shown_by_run_mad_model_and_day(server: ModelServer, tmp_path: Path) -> None:
    models = {"one": a_model(), "two": a_model("anthropic", input_usd=Decimal(1), output_usd=Decimal(1))}
    async with hall(server, tmp_path, models) as tried:
        await tried.ask(prompt("Hello?"))
        await tried.ask(prompt("Hello?", model="two"), Caller("fiedler", "fiedler", "c2"))
        by_mad = {each.name: each for each in (await tried.ledger.costs("mad")).costs}
        assert set(by_mad) == {"hopper", "fiedler"}
        assert by_mad["hopper"].usd > by_mad["fiedler"].usd > 0
        assert [each.name for each in (await tried.ledger.costs("model")).costs] == ["one", "two"]
        assert {each.name for each in (await tried.ledger.costs("run")).costs} == {"run-1", "c2"}
        (day,) = (await tried.ledger.costs("day")).costs
        assert day.calls == 2
        assert day.usd == pytest.approx(sum(each.usd for each in by_mad.values()))


async def test_costs_by_run_are_told_of_the_run_that_was_asked_for(server: ModelServer, tmp_path: Path) -> None:
    async with hall(server, tmp_path) as tried:
        await tried.ledger.open_account("run:top")
        await tried.ledger.open_account("run:child", parent="run:top")
        await tried.ledger.open_account("run:grandchild", parent="run:child")
        for run, times in (("top", 1), ("child", 2), ("grandchild", 3)):
            for _ in range(times):
                await tried.ask(prompt("Hello?"), Caller(run, "hopper", f"c/{run}", run, f"run:{run}"))
        await tried.ask(prompt("Hello?"), Caller("fiedler", "fiedler"))
        top, nobodys = (await tried.ledger.costs("run")).costs
        assert (top.name, top.calls, nobodys.name, nobodys.calls) == ("top", 6, "-", 1)
        assert top.usd == dollars((await tried.ledger.account("run:top")).spent.usd)
        assert [(each.name, each.calls) for each in top.children] == [("grandchild", 3), ("child", 2)]
        assert [each.name for each in (await tried.ledger.costs("run", run="child")).costs] == ["child"]


async def test_costs_add_up_however_many_there_are(server: ModelServer, tmp_path: Path) -> None:
    async with hall(server, tmp_path) as tried:
        for number in range(5):
            await tried.ask(prompt("Hello?" * (number + 1)), Caller(f"run-{number}", "hopper", "", f"run-{number}"))
        reply = await tried.ledger.costs("run", most=3)
        assert [each.name for each in reply.costs] == ["run-4", "run-3", "run-2"]
        rest = others(reply)
        assert rest is not None
        assert (rest["more"], rest["calls"]) == (2, 2)
        assert total([rest["usd"], *(each.usd for each in reply.costs)]) == dollars(
            (await tried.ledger.today()).spent.usd
        )
        assert others(await tried.ledger.costs("run", most=5)) is None


async def test_a_core_that_dies_in_the_middle_of_a_stream_is_booked_once_at_the_worst_case(
    server: ModelServer, tmp_path: Path
) -> None:
    server.script = lambda _: Play(text="word " * 1000, pause_s=0.05)
    program = f"""
import anyio
from pathlib import Path
from tests.model_server import ModelServer
from tests.orchestras import CALLER, hall
from protos.llm import prompt

async def main():
    request = prompt("Hello?")
    request.id = "018f0000-0000-7000-8000-000000000001"
    async with hall(ModelServer(None, {server.port}), Path({str(tmp_path)!r})) as tried:
        async for each in tried.fiedler.complete(request, CALLER):
            if each.text:
                print("spoke", flush=True)

anyio.run(main)
"""
    with fail_after(60):
        async with await anyio.open_process([sys.executable, "-c", program], cwd=ROOT, stderr=None) as victim:
            assert victim.stdout is not None
            assert b"spoke" in await victim.stdout.receive()
            victim.send_signal(signal.SIGKILL)
            await victim.wait()
    request = prompt("Hello?")
    request.id = "018f0000-0000-7000-8000-000000000001"
    for _ in range(2):
        async with hall(server, tmp_path) as tried:
            assert await tried.calls("outcome, assumed") == [("lost", 1)]
            ((held, booked),) = await tried.calls("held_usd, usd")
            assert held == booked >= bill_of(server)
            with pytest.raises(Conflict, match="begun before"):
                await tried.ask(request)
            await tried.check_books()
    assert len(server.requests) == 1


async def test_ten_thousand_accounts_do_not_stay_in_memory(server: ModelServer, tmp_path: Path) -> None:
    async with hall(server, tmp_path) as tried:
        for number in range(4200):
            await tried.ledger.account(f"run:{number}")
        assert len(tried.ledger.escrow.accounts) < 4100
        await tried.ask(prompt("Hello?"))
        await tried.check_books()
