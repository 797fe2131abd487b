"""Models from outside: ask, panel, models, costs, against a model server over real HTTP."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from tests.commands import Madlab, a_lab
from tests.model_server import ModelServer, Play, model_server
from tests.orchestras import KEY


@dataclass
class Stage:
    """A lab and the server its models are at."""

    madlab: Madlab
    server: ModelServer


def script(request: Any) -> Play:
    """One model is of another opinion, one talks without end, one has no credit left."""
    model = request.body["model"]
    texts = {"contrary": "No.", "talkative": "word " * 6000}
    return Play(status=402) if model == "broke" else Play(text=texts.get(model, "Yes \x1b[2J."))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(model_server(script)) as server:
        models = "".join(
            f'[models.{name}]\nprovider = "here"\nmodel = "{name}"\n'
            "input_usd = 3\noutput_usd = 15\nmax_tokens = 10000\n"
            for name in ("agreeable", "contrary", "talkative", "broke")
        )
        provider = f'[providers.here]\nkind = "openai"\nbase_url = "{server.openai}"\n'
        with a_lab(f"emads = []\n[llm]\nusd_per_day = 1\n{provider}{models}") as madlab:
            yield Stage(madlab, server)


def test_an_answer_is_data_and_its_price_a_note(stage: Stage) -> None:
    told = stage.madlab("ask", "Is it?")
    assert told.code == 0, told.err
    assert told.out == "Yes \\x1b[2J.\n", "nothing that a model says drives a terminal"
    assert "agreeable (agreeable of here)" in told.err
    assert "$0.000" in told.err
    asked = stage.madlab("ask", "-", "--model", "contrary", "--json", stdin="Is it?").json
    assert (asked["text"], asked["alias"]) == ("No.", "contrary")
    assert KEY not in told.out + told.err


def test_a_long_answer_arrives_whole(stage: Stage) -> None:
    told = stage.madlab("ask", "Tell me all.", "--model", "talkative")
    assert told.code == 0, told.err
    assert told.out == "word " * 6000 + "\n"


def test_a_panel_shows_every_answer_and_how_far_they_agree(stage: Stage) -> None:
    told = stage.madlab("panel", "Is it?", "--models", "agreeable, contrary, broke")
    assert told.code == 0, told.err
    assert "--- contrary, dissents\nNo." in told.out
    assert "--- broke\n(no answer: " in told.out
    assert "Agreement 0.00 of 1, by the words they share" in told.err


def test_models_and_costs_are_shown(stage: Stage) -> None:
    told = stage.madlab("models")
    assert told.out.splitlines()[1].split()[:2] == ["agreeable", "*"]
    stage.madlab("ask", "Is it?")
    found = stage.madlab("costs", "--json").json
    assert found["by"] == "model"
    assert "agreeable" in {each["name"] for each in found["costs"]}
    shown = stage.madlab("costs", "--by", "day", "--days", "1")
    assert shown.out.startswith("DAY ")
    assert "of $1.00" in shown.err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["ask", "Is it?", "--model", "nobody"], 2, "There is no model 'nobody'."),
        (["ask", "Is it?", "--model", "broke"], 4, "is spent"),
        (["panel", "Is it?", "--models", "agreeable,nobody"], 2, "There is no model 'nobody'."),
        (["panel", "Is it?", "--models", "agreeable"], 2, "A panel has 2 to 16 different models."),
        (["costs", "--by", "colour"], 2, "colour"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(
    stage: Stage, arguments: list[str], code: int, sentence: str
) -> None:
    told = stage.madlab(*arguments)
    assert (told.code, sentence in told.err, told.out) == (code, True, ""), told.err
