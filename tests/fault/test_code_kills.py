"""The core is killed while code is written: in a stream, in a tool call, in the clean room. The run goes on, and no
money is counted twice."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from core.grace.cli.talk import ask
from tests.agents.patient import LONG
from tests.e2e.coding import Stage, stage
from tests.repositories import fingerprint

pytestmark = pytest.mark.docker
SLOW_TEST = "sleep 1; python3 -m unittest -q"
MOST = (16_000 * 3 + 6000 * 15) / 1e6  # dollars: the worst case of one call here


@pytest.fixture(scope="module")
def lab() -> Iterator[Stage]:
    with stage("[llm]\nusd_per_day = 50\n") as lab:
        yield lab


def in_a_stream(lab: Stage) -> bool:
    """The model is in the middle of its first answer."""
    return lab.server.open_now > 0 and bool(lab.server.bill) and lab.server.bill[-1][1] > 40


def in_a_tool_call(lab: Stage) -> bool:
    """The agent's command runs in its sandbox."""
    wanted = LONG.replace(" ", "\0").encode() + b"\0"
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if process.read_bytes() == wanted:
                return True
    return False


def in_the_clean_room(lab: Stage) -> bool:
    """The agent has finished, and the proof runs."""
    runs = lab.client.get("/api/v1/runs")["runs"]
    proofs = [each for each in runs if each["conversation"].endswith("/1.proof")]
    return any(each["state"] == "running" for each in proofs)


@pytest.mark.parametrize(
    ("agent", "moment", "test"),
    [
        ("speaker", in_a_stream, ""),
        ("waiter", in_a_tool_call, ""),
        ("good/python-unittest", in_the_clean_room, SLOW_TEST),
    ],
)
def test_a_core_that_is_killed_while_code_is_written_takes_the_run_to_its_end_later(
    lab: Stage, agent: str, moment: Callable[[Stage], bool], test: str
) -> None:
    played, made = lab.troupe.agents[f"{agent}@openai"], lab.repository("python-unittest")
    before = fingerprint(made.root)
    words = lab.words(played, made, "openai", ["--json", *(("--test", test) if test else ())])
    billed, counted = len(lab.server.bill), costs(lab)
    with lab.madlab.started(*words) as process:
        until(lambda: moment(lab))
        lab.madlab.kill_core()
        lab.madlab.up()
        out, err = process.communicate(timeout=120)
    said = json.loads(out)
    assert (said["outcome"], process.returncode) == ("succeeded", 0), err
    assert said["evidence"]["clean_room"] is True
    assert fingerprint(made.root) == before
    check_money(lab.server.bill[billed:], counted, costs(lab), broken=1 if moment is in_a_stream else 0)
    assert lab.client.get("/api/v1/journal/verify")["ok"]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def costs(lab: Stage) -> tuple[int, float]:
    """Calls and dollars in the ledger."""
    call = {"recipient": "fiedler", "kind": "call", "tool": "costs", "arguments": {"by": "model"}, "conversation": ""}
    told = ask(lab.client, call)["data"]["costs"]
    return sum(each["calls"] for each in told), sum(each["usd"] for each in told)


def check_money(
    bill: list[tuple[int, int]], before: tuple[int, float], after: tuple[int, float], *, broken: int
) -> None:
    """Every call is in the ledger once, at what the server really made; one that broke at its worst case at most."""
    assert after[0] - before[0] == len(bill)
    billed, counted = sum(taken * 3 + made * 15 for taken, made in bill) / 1e6, after[1] - before[1]
    if broken:
        assert billed <= counted <= billed + broken * MOST
    else:
        assert counted == pytest.approx(billed)
