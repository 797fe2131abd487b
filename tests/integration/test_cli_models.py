"""Models from outside: ask, panel, models, costs, against a model server over real HTTP."""

import os
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


COUNT = "".join(f"{number:03} " for number in range(600))
SLOW = Play(text=COUNT, pause_s=0.1)  # a minute, unless it is told to hurry


def script(request: Any) -> Play:
    """One model is of another opinion, one talks without end, one has no credit left."""
    model = request.body["model"]
    texts = {"contrary": "No.", "talkative": "word " * 6000}
    if model == "slow":
        return SLOW
    if model == "breaking":
        return Play(text="It is so that " * 40, pause_s=0.02, cut="middle")
    return Play(status=402) if model == "broke" else Play(text=texts.get(model, "Yes \x1b[2J."))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(model_server(script)) as server:
        models = "".join(
            f'[models.{name}]\nprovider = "here"\nmodel = "{name}"\n'
            "input_usd = 3\noutput_usd = 15\nmax_tokens = 10000\n"
            for name in ("agreeable", "contrary", "talkative", "broke", "slow", "breaking")
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


def test_an_answer_is_printed_while_it_is_given(stage: Stage) -> None:
    with stage.madlab.started("ask", "Count.", "--model", "slow") as process:
        assert process.stdout is not None
        began = os.read(process.stdout.fileno(), 64).decode()
        assert stage.server.open_now == 1, "the model still speaks when its first words are there to read"
        object.__setattr__(SLOW, "pause_s", 0.0)
        rest, err = process.communicate(timeout=60)
    assert began.startswith("000 ")
    assert began + rest == COUNT + "\n", "nothing is printed twice"
    assert (process.returncode, "slow (slow of here)" in err) == (0, True)


def test_an_answer_that_breaks_off_has_a_line_of_its_own(stage: Stage) -> None:
    told = stage.madlab("ask", "Is it?", "--model", "breaking")
    assert told.code == 4
    assert told.out.endswith("\n")
    assert "It is so that " in told.out


def test_a_prompt_of_any_length_is_taken_from_stdin(stage: Stage) -> None:
    question = "Is it? 'Ja', \"nein\", ä \\ \n" * 2000
    assert stage.madlab("ask", "-", "--model", "agreeable", "--json", stdin=question).json["alias"] == "agreeable"
    assert stage.server.requests[-1].body["messages"][-1]["content"] == question
    told = stage.madlab("panel", "-", "--models", "agreeable,contrary", stdin=question)
    assert told.code == 0, told.err
    assert [each.body["messages"][-1]["content"] for each in stage.server.requests[-2:]] == [question] * 2


def test_nothing_is_asked_where_there_is_nothing_to_ask(stage: Stage) -> None:
    before = len(stage.server.requests)
    for arguments, sentence in (
        (["ask", ""], "the prompt is empty"),
        (["ask", "-"], "the prompt is empty"),
        (["panel", " ", "--models", "agreeable,contrary"], "the prompt is empty"),
        (["panel", "Is it?", "--models", "agreeable,agreeable"], "2 to 16 different models"),
        (["panel", "Is it?", "--models", ","], "2 to 16 different models"),
        (["panel", "Is it?", "--models", "agreeable,contrary", "--judge", "nobody"], "There is no model 'nobody'."),
        (["call", "fiedler.ask", '{"prompt": "\\n"}'], "The prompt is empty."),
        (["call", "fiedler.ask", f'{{"prompt_blob": "sha256:{"0" * 64}"}}'], "prompt_blob names an attached blob"),
    ):
        told = stage.madlab(*arguments)
        assert (told.code, sentence in told.err, told.out) == (2, True, ""), (arguments, told.err)
    assert len(stage.server.requests) == before


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
