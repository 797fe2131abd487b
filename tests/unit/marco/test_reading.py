"""What is kept of a model's answer: quotes that stand on the pages, and links that stand on them."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from periphery.marco.extract import Link
from periphery.marco.reading import LEAST_QUOTE, SMALL_CHARACTERS, Source, answer, choose
from protos.llm import Llm
from protos.v1.llm_pb2 import CompleteRequest, CompletionEvent, CostsReply, EmbedReply, EmbedRequest, Model, Started

PAGE = Source("http://site.test/", "The bridge\nIt was built in  1887 by\u200b Ada Keller.\nIt is 300 metres long.")


@dataclass
class Says(Llm):
    """A model that says one thing."""

    text: str
    small: bool = False
    asked: list[str] = field(default_factory=list)

    async def complete(self, request: CompleteRequest) -> AsyncIterator[CompletionEvent]:
        self.asked.append(request.turns[-1].parts[0].text)
        yield CompletionEvent(started=Started(model="one"))
        yield CompletionEvent(text=self.text)

    async def models(self) -> Sequence[Model]:
        return [Model(alias="one", is_default=True, small=self.small)]

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        raise NotImplementedError

    async def costs(self, by: str = "model", *, since: float = 0.0) -> CostsReply:
        return CostsReply()


def quoting(*texts: str) -> Says:
    return Says(json.dumps({"quotes": [{"passage": 1, "text": each} for each in texts], "answer": "1887"}))


async def test_a_quote_that_stands_there_is_kept_whatever_its_blanks() -> None:
    found = await answer(quoting("built in 1887\nby Ada Keller"), "When?", [PAGE])
    assert found.quotes == [{"text": "built in 1887 by Ada Keller", "url": PAGE.url}]
    assert (found.text, found.unfounded, found.model) == ("1887", 0, "one")


async def test_a_quote_that_stands_nowhere_is_dropped_and_counted() -> None:
    found = await answer(quoting("built in 1888 by Ada Keller", "built IN 1887 by Ada"), "When?", [PAGE])
    assert (found.quotes, found.unfounded) == ([], 2)


async def test_what_stands_anywhere_is_no_quote() -> None:
    found = await answer(quoting("1887"[:LEAST_QUOTE], ""), "When?", [PAGE])
    assert (found.quotes, found.unfounded) == ([], 1)


async def test_the_same_quote_twice_is_one() -> None:
    found = await answer(quoting("It is 300 metres long.", "It is 300 metres long."), "How long?", [PAGE])
    assert len(found.quotes) == 1


async def test_an_answer_that_is_none_founds_nothing() -> None:
    for text in ("", "The bridge was built in 1887.", "[1, 2]", '{"quotes": 7, "answer": ["x"]}', '{"quotes": [3]}'):
        assert (await answer(Says(text), "When?", [PAGE])).quotes == []


async def test_a_long_page_is_cut_down_to_the_passages_that_have_the_questions_words() -> None:
    filler = "\n".join(f"Line {number} is about something else altogether, as most are." for number in range(5000))
    model = Says("{}", small=True)
    await answer(
        model, "Who is Ada Keller?", [Source("http://long.test/", f"{filler}\nAda Keller lives here.\n{filler}")]
    )
    assert "Ada Keller lives here." in model.asked[0]
    assert len(model.asked[0]) < SMALL_CHARACTERS * 1.2


async def test_a_link_is_chosen_by_its_number_and_no_address_is_taken_from_the_model() -> None:
    links = [Link(text="History", url="http://site.test/history"), Link(text="Other", url="http://site.test/other")]
    assert await choose(Says('{"link": 1}'), "history", PAGE, links) == links[0]
    for text in (
        '{"link": 0}',
        '{"link": 3}',
        '{"link": -1}',
        '{"link": "http://evil.test"}',
        "http://evil.test",
        "{}",
    ):
        assert await choose(Says(text), "history", PAGE, links) is None
    assert await choose(Says('{"link": 1}'), "history", PAGE, []) is None
