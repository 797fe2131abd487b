"""What holds the value of a secret and would leave, or be kept under its digest, is refused: never altered in silence.

The lab's own writing (journal, log, error) is redacted, because a record with a gap is better than none. A file is
different: its digest is its name, and whoever stored it would get back what he did not store. So is a request that
leaves the lab. Both are refused whole, with a rule and a way out.
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence

from core.redaction.redactor import Hit, Redactor
from core.redaction.strainer import Strainer
from protos.errors import Denied


class SecretSeen(Denied):
    """Rule *secret*: something that holds known values was refused. `hits` are they, `part` is where in it: "URL"."""

    def __init__(self, hits: Sequence[Hit], part: str = "content") -> None:
        first = hits[0]
        super().__init__(
            f"rule secret: its {part} holds the value of {first.name} ({first.encoding}, at byte {first.offset:,}).",
            next="Leave the value out; where it is needed, use its handle: secret://NAME",
        )
        self.hits = tuple(hits)
        self.part = part


def refuse(redactor: Redactor, parts: Iterable[bytes], part: str = "content") -> None:
    """
    Raises:
        SecretSeen: one of the parts holds a known value.
    """
    for each in parts:
        if hits := redactor.scan(each):
            raise SecretSeen(hits, part)


async def inspected(redactor: Redactor, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """A stream as it is, up to the first byte of a known value.

    Raises:
        SecretSeen: there one stands.
    """
    strainer = Strainer(redactor)
    async for chunk in chunks:
        safe = strainer.feed(chunk)
        if strainer.hits:
            raise SecretSeen(strainer.hits)
        if safe:
            yield safe
    rest = strainer.flush()
    if strainer.hits:
        raise SecretSeen(strainer.hits)
    if rest:
        yield rest
