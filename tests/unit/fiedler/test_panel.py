"""Panels: how agreement is measured, that dissent is kept, and what a judge may decide."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from core.fiedler.panel import ask_panel, derived_id, fleiss, likeness
from core.fiedler.requests import check_id
from protos.errors import Denied, Error, InvalidArgument, NotFound, Unavailable
from protos.ids import new_id
from protos.llm import NoLlm
from protos.v1.llm_pb2 import CompleteRequest, CompletionEvent, Model, Started, Usage


class Choir(NoLlm):
    """A port whose models say what a test wrote down."""

    def __init__(self, says: Mapping[str, str | Error]) -> None:
        self.says, self.asked = says, list[CompleteRequest]()

    async def models(self) -> Sequence[Model]:
        return [Model(alias=each) for each in self.says]

    async def complete(self, request: CompleteRequest) -> AsyncIterator[CompletionEvent]:
        self.asked.append(request)
        said = self.says[request.model]
        if isinstance(said, Error):
            raise said
        yield CompletionEvent(started=Started(alias=request.model))
        yield CompletionEvent(text=said)
        yield CompletionEvent(usage=Usage(usd=0.01))


class Judge(Choir):
    """Groups answers by their first word, whatever the order they are shown in."""

    async def complete(self, request: CompleteRequest) -> AsyncIterator[CompletionEvent]:
        if request.model == "judge":
            answers = json.loads(request.turns[1].parts[0].text)["answers"]
            words = sorted({each["answer"].split()[0] for each in answers})
            groups = [[each["number"] for each in answers if each["answer"].startswith(word)] for word in words]
            best = next(each["number"] for each in answers if each["answer"].startswith("yes"))
            self.says = {**self.says, "judge": json.dumps({"groups": groups, "best": best, "reason": "so it is"})}
        async for each in super().complete(request):
            yield each


def sizes(groups: Sequence[Sequence[str]]) -> list[int]:
    return [len(each) for each in groups]


@pytest.mark.parametrize(
    ("groups", "agreement"),
    [([4], 1.0), ([1, 1, 1], 0.0), ([2, 2], 1 / 3), ([3, 1], 0.5), ([14], 1.0), ([5, 5, 4], 26 / 91)],
)
def test_agreement_is_the_share_of_pairs_that_agree(groups: list[int], agreement: float) -> None:
    assert fleiss(groups) == pytest.approx(agreement)


def test_likeness_is_rouge_l() -> None:
    assert likeness("Paris.", "paris") == 1.0
    assert likeness("police killed the gunman", "police kill the gunman") == pytest.approx(0.75)
    assert likeness("police killed the gunman", "the gunman kill police") == pytest.approx(0.5)
    assert likeness("a", "") == 0.0
    assert likeness("", "") == 1.0


async def test_who_says_something_else_dissents_and_is_kept() -> None:
    llm = Choir({"a": "Paris.", "b": "paris", "c": "It is Lyon, of course"})
    panel = await ask_panel(llm, "The capital?", ["a", "b", "c"], id=new_id())
    assert panel.measured_by == "words"
    assert panel.agreement == pytest.approx(1 / 3)
    assert [(each.model, each.dissents) for each in panel.voices] == [("a", False), ("b", False), ("c", True)]
    assert panel.groups == [["a", "b"], ["c"]]
    assert panel.best == "a"
    assert panel.usd == pytest.approx(0.03)


async def test_a_judge_sorts_by_meaning_and_sees_no_names() -> None:
    llm = Judge({"model-a": "yes indeed it is", "model-b": "yes", "model-c": "no indeed it is", "judge": ""})
    panel = await ask_panel(llm, "Is it?", ["model-a", "model-b", "model-c"], id=new_id(), judge="judge")
    assert (panel.measured_by, panel.reason) == ("judge", "so it is")
    assert panel.agreement == pytest.approx(1 / 3)
    assert sizes(panel.groups) == [2, 1]
    assert panel.best in ("model-a", "model-b")
    assert [each.model for each in panel.voices if each.dissents] == ["model-c"]
    assert "model-" not in llm.asked[-1].turns[1].parts[0].text
    assert panel.usd == pytest.approx(0.04)


@pytest.mark.parametrize(
    "verdict",
    [
        "I like them all",
        "{}",
        '{"groups": [[0]], "best": 0, "reason": ""}',
        '{"groups": [[0, 1], [1]], "best": 0, "reason": ""}',
        '{"groups": [[0], [7]], "best": 0, "reason": ""}',
        '{"groups": [[0, 1]], "best": 9, "reason": ""}',
        '{"groups": [["x"]], "best": 0, "reason": ""}',
        '{"groups": 5, "best": 0, "reason": ""}',
    ],
)
async def test_a_verdict_that_cannot_be_used_is_said_and_not_used(verdict: str) -> None:
    llm = Choir({"a": "one", "b": "one", "judge": verdict})
    panel = await ask_panel(llm, "?", ["a", "b"], id=new_id(), judge="judge")
    assert (panel.measured_by, panel.agreement) == ("words", 1.0)
    assert "judge" in panel.reason


async def test_who_does_not_answer_is_shown_and_the_others_count() -> None:
    llm = Choir({"a": "one", "b": Unavailable("b rests"), "c": "one"})
    panel = await ask_panel(llm, "?", ["a", "b", "c"], id=new_id())
    assert panel.voices[1].error == "b rests"
    assert panel.agreement == 1.0
    alone = await ask_panel(Choir({"a": "one", "b": Unavailable("no")}), "?", ["a", "b"], id=new_id())
    assert (alone.agreement, alone.best) == (None, "a")
    with pytest.raises(Denied):
        await ask_panel(Choir({"a": Denied("no"), "b": Denied("no")}), "?", ["a", "b"], id=new_id())


async def test_where_a_model_is_none_nobody_is_asked() -> None:
    llm = Choir({"a": "one", "b": "one"})
    for models, judge in ((["a", "nobody"], ""), (["a", "b"], "nobody")):
        with pytest.raises(NotFound, match="There is no model 'nobody'") as refused:
            await ask_panel(llm, "?", models, id=new_id(), judge=judge)
        assert refused.value.next == "There are: a, b."
    assert not llm.asked


@pytest.mark.parametrize("models", [[], ["a"], ["a", "a"], [str(n) for n in range(17)]])
async def test_a_panel_has_several_different_models(models: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        await ask_panel(Choir({}), "?", models, id=new_id())


async def test_the_same_panel_again_is_the_same_requests() -> None:
    llm, id = Judge({"a": "yes", "b": "yes", "judge": ""}), new_id()
    for _ in range(2):
        await ask_panel(llm, "?", ["a", "b"], id=id, judge="judge")
    ids = [each.id for each in llm.asked]
    assert ids[:3] == ids[3:]
    assert len(set(ids)) == 3


def test_a_derived_id_is_one_of_ours() -> None:
    for _ in range(100):
        id = derived_id(new_id(), "word")
        check_id(id)
