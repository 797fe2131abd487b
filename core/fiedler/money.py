"""Tokens and money: what a call may cost at worst, and what it did cost.

Money is counted in picodollars (10^-12 USD), whole numbers, so that sums are exact: a price of one dollar for a
million tokens is 1,000,000 picodollars a token.

The worst case. No tokenizer makes more tokens than there are bytes, so the bytes of a prompt, and a margin for what
a provider wraps around turns and tools, bound its input; `max_tokens` bounds its output. An operator who knows the
texts may say that a token has at least so many bytes (`bytes_per_token`): calls then reserve less, and one call can
cost more than was reserved, by at most that factor.

What was used. What the provider told counts, as far as it can be true. What it did not tell is charged at the worst
case and called *assumed*: a budget that may be too careful is better than one that is wrong.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import NamedTuple

from core.fiedler.provider import Reported
from protos.money import PICODOLLARS
from protos.v1 import llm_pb2 as pb

TURN_TOKENS = 16  # around each turn and part
TOOLS_TOKENS = 1024  # for the instructions that a provider adds when there are tools or a schema


class Amount(NamedTuple):
    """So many tokens and so much money."""

    tokens: int = 0
    usd: int = 0  # picodollars

    def plus(self, other: "Amount") -> "Amount":
        """The sum."""
        return Amount(self.tokens + other.tokens, self.usd + other.usd)

    def minus(self, other: "Amount") -> "Amount":
        """The difference."""
        return Amount(self.tokens - other.tokens, self.usd - other.usd)


@dataclass(frozen=True)
class Price:
    """Picodollars a token."""

    input: int = 0
    output: int = 0
    cached: int = 0  # input read from a cache
    cache_write: int = 0  # input written to one

    def of(self, used: "Used") -> int:
        """What `used` costs, in picodollars."""
        plain = used.input - used.cached - used.cache_write
        return (
            plain * self.input
            + used.cached * self.cached
            + used.cache_write * self.cache_write
            + used.output * self.output
        )

    @property
    def worst_input(self) -> int:
        """The most that a token of input can cost."""
        return max(self.input, self.cached, self.cache_write)


@dataclass(frozen=True)
class Used:
    """Tokens of one call."""

    input: int = 0
    cached: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    assumed: bool = False  # the provider did not tell all of it


@dataclass(frozen=True)
class Bound:
    """The most that one attempt can use."""

    input: int  # as reserved
    output: int
    input_bytes: int  # more input tokens than this there cannot be

    def worst(self, price: Price) -> Amount:
        """What to reserve."""
        return Amount(self.input + self.output, self.input * price.worst_input + self.output * price.output)


def picodollars(usd: Decimal | float | int) -> int:
    """Dollars as picodollars, rounded up."""
    return int((Decimal(str(usd)) * PICODOLLARS).to_integral_value(ROUND_CEILING))


def price_of(usd_per_million: Decimal) -> int:
    """A price as people write it, in picodollars a token, rounded up."""
    return picodollars(usd_per_million / 1_000_000)


def dollars(amount: int) -> float:
    """Picodollars as dollars, for people: the nearest float, which is written as it was meant."""
    return amount / PICODOLLARS


def bound_of(
    request: pb.CompleteRequest, *, max_tokens: int, bytes_per_token: float = 1.0, image_tokens: int = 0
) -> Bound:
    """The worst case of one attempt at `request`."""
    images = sum(
        part.HasField("image") + sum(inner.HasField("image") for inner in part.tool_result.parts)
        for turn in request.turns
        for part in turn.parts
    )
    pieces = len(request.turns) + sum(len(turn.parts) for turn in request.turns)
    size = request.ByteSize() - _image_bytes(request)
    margin = images * image_tokens + (pieces + 1) * TURN_TOKENS
    if request.tools or request.HasField("format"):
        margin += TOOLS_TOKENS
    return Bound(int(size / bytes_per_token) + 1 + margin, max_tokens, size + margin)


def bound_of_inputs(inputs: "pb.EmbedRequest", bytes_per_token: float = 1.0) -> Bound:
    """The worst case of making vectors."""
    size = sum(len(each.encode()) for each in inputs.inputs)
    margin = (len(inputs.inputs) + 1) * TURN_TOKENS
    return Bound(int(size / bytes_per_token) + 1 + margin, 0, size + margin)


def used_of(reported: Reported | None, bound: Bound, shown_bytes: int) -> Used:
    """What to charge for an attempt that was worked on, of whose output so many bytes have come.

    Told figures that cannot be true are not believed: no output though some was shown, more input than bytes, more
    output than was allowed or shown. Output of which nothing was told is what was allowed, and so what was held:
    who was asked for so many tokens wrote no more of them, however many bytes they have.
    """
    told = reported or Reported()
    most_input = max(bound.input_bytes, bound.input)
    input, output, assumed = told.input_tokens, told.output_tokens, False
    if input is None or input == 0:  # every prompt has at least one
        input, assumed = bound.input, True
    elif input > most_input:
        input, assumed = most_input, True
    most_output = max(bound.output, shown_bytes)
    if output is None or (output == 0 and shown_bytes):
        output, assumed = bound.output, True
    elif output > most_output:
        output, assumed = most_output, True
    cached = min(told.cached_tokens, input)
    return Used(
        input=input,
        cached=cached,
        cache_write=min(told.cache_write_tokens, input - cached),
        output=output,
        reasoning=min(told.reasoning_tokens, output),
        assumed=assumed,
    )


def _image_bytes(request: pb.CompleteRequest) -> int:
    return sum(
        len(part.image.data) + sum(len(inner.image.data) for inner in part.tool_result.parts)
        for turn in request.turns
        for part in turn.parts
    )
