"""What models cost an agent adds up to what the lab's ledger says, however it asked them."""

from collections.abc import Sequence

from periphery.doors.exchange import Exchange
from periphery.hopper.agent import Ledger
from protos.llm import NoLlm
from protos.v1.llm_pb2 import EmbedReply, EmbedRequest, Model, Usage


class Priced(NoLlm):
    """Ten cents for each request."""

    async def models(self) -> Sequence[Model]:
        return [Model(alias="vectors", embeddings=True)]

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        return EmbedReply(usage=Usage(usd=0.1))


def test_ten_times_ten_cents_is_a_dollar() -> None:
    ledger = Ledger()
    for _ in range(10):
        ledger.book(usd=0.1)
    assert ledger.usd == 1.0


async def test_ten_times_ten_cents_is_a_dollar_through_the_doors() -> None:
    exchange = Exchange(Priced())
    for _ in range(10):
        await exchange.embed(EmbedRequest(model="vectors", inputs=["x"]))
    assert exchange.usage.usd == 1.0
