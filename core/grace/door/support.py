"""The door's part in a support bundle: takes what is secret out of a text. The core alone knows the values."""

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response

from core.grace.door.edge import lab_of
from core.grace.door.routes import Endpoint
from protos.errors import InvalidArgument

STRAINED_BYTES = 8 << 20  # of one text


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint(
        "POST", "/support/strain", _strain, "Takes secrets and decoys out of a text.",
        takes="application/octet-stream", media="application/octet-stream", local=True, shown=False,
    )  # fmt: skip


async def _strain(request: Request) -> Response:
    """
    Raises:
        InvalidArgument: it is too long.
    """
    text = b""
    async for chunk in request.stream():
        text += chunk
        if len(text) > STRAINED_BYTES:
            raise InvalidArgument(f"the text is over {STRAINED_BYTES} bytes", next="send it in pieces")
    return Response(lab_of(request).services.redactor.redact(text), media_type="application/octet-stream")
