"""The edge of the door: what comes in has its shape and size checked, and what goes wrong is said, always as JSON."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import structlog
from anyio import move_on_after
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Part

from core.horace.blobs import DIGEST
from core.lab import Lab
from core.policy.targets import HOSTS, host_pattern
from protos.errors import (
    Conflict,
    Denied,
    Error,
    Exhausted,
    InvalidArgument,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from protos.ids import UUID7, new_id

PAGE = 1000  # the longest that a page of a list is
BODY_BYTES = 256 * 1024  # of a JSON request; what is bigger goes in as a blob
PATIENCE_S = 1.0  # with a client that is still sending what is refused already
LOOK = "look for the request's id in core.log"
STATUS = {
    InvalidArgument.code: 400,
    Unauthenticated.code: 401,
    Denied.code: 403,
    NotFound.code: 404,
    Conflict.code: 409,
    Exhausted.code: 429,
    Unavailable.code: 503,
}

logger = structlog.get_logger()
Body = TypeVar("Body", bound=BaseModel)


def _integral(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


INTEGRAL = BeforeValidator(_integral)  # 5.0 is 5: JSON has numbers of one kind


class Strict(BaseModel):
    """What a body is: of the known shape, and of no other."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


def whole(pattern: re.Pattern[str]) -> str:
    """A pattern that all of a text has to match, as JSON Schema has it."""
    return f"^(?:{pattern.pattern})$"


def told(pattern: re.Pattern[str], *, or_empty: bool = False) -> Any:
    """For a text that is refused elsewhere, in better words, where `pattern` does not match it: for the document."""
    return Field(json_schema_extra={"pattern": f"^(?:{pattern.pattern})?$" if or_empty else whole(pattern)})


class BlobBody(Strict):
    """A link to a blob. Its size is looked up and not believed."""

    digest: Annotated[str, told(DIGEST)]
    size: Annotated[int, Field(ge=0), INTEGRAL] = 0
    name: Annotated[str, Field(max_length=255)] = ""
    media_type: Annotated[str, Field(max_length=255)] = ""


def _hosts(text: str) -> str:
    host_pattern(text)
    return text


class TermsBody(Strict):
    """What whoever asks sets for the run that a message starts."""

    usd: Annotated[float | None, Field(ge=0, le=1_000_000)] = None
    tokens: Annotated[int, Field(ge=0, le=2**53), INTEGRAL] | None = None
    seconds: Annotated[float | None, Field(gt=0, le=30 * 86_400)] = None
    image: Annotated[str, Field(max_length=255)] = ""
    web: Annotated[list[Annotated[str, AfterValidator(_hosts), told(HOSTS)]], Field(max_length=64)] = []


class RemarkBody(Strict):
    """Something to be said to a run that is at work."""

    text: Annotated[str, Field(min_length=1, max_length=8000)]


class MessageBody(Strict):
    """Something to be said."""

    recipient: Annotated[str, Field(min_length=1, max_length=64)]
    kind: Literal["call", "prose"]
    tool: Annotated[str, Field(max_length=64)] = ""
    arguments: dict[str, Any] = {}
    text: str = ""
    conversation: Annotated[str, Field(max_length=128)] = ""
    blobs: Annotated[list[BlobBody], Field(max_length=64)] = []
    terms: TermsBody = TermsBody()
    id: Annotated[str, told(UUID7, or_empty=True)] = ""


class NameBody(Strict):
    """Which blob a named file shall be."""

    digest: Annotated[str, told(DIGEST)]


class ShutdownBody(Strict):
    """What becomes of the runs."""

    runs: Literal["cancel", "keep"] = "cancel"


class Empty(Strict):
    """Nothing."""


def lab_of(request: Request) -> Lab:
    """The lab that this door belongs to."""
    lab: Lab = request.app.state.lab
    return lab


def wants_stream(request: Request) -> bool:
    """Whether the client asks for server-sent events."""
    return "text/event-stream" in request.headers.get("accept", "")


async def json_of(request: Request, model: type[Body]) -> Body:
    """The body as `model`.

    Raises:
        InvalidArgument: it is too long, no JSON, or has another shape; the message names the first place that has.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES:
            raise InvalidArgument(f"the body is over {BODY_BYTES} bytes", next="store it as a blob and attach that")
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"]) or "the body"
        what = first["msg"].removeprefix("Value error, ")[:300]
        raise InvalidArgument(f"{place}: {what}", next="see core/grace/door/README.md") from None


def number_of(request: Request, name: str, default: int, most: int, *, least: int = 0) -> int:
    """A whole number in the address, at most `most` and at least `least`.

    Raises:
        InvalidArgument: it is no whole number.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidArgument(f"{name}: {text[:40]!r} is no whole number from 0", next="leave it out or mend it")
    return max(min(int(text), most), least)


def after_of(request: Request) -> int:
    """Where the client stands: what it names in the address, or what its stream had reached."""
    last = request.headers.get("last-event-id", "")
    reached = int(last) if last.isascii() and last.isdigit() and len(last) < 19 else 0
    return max(number_of(request, "after", 0, 2**62), reached)


async def refuse(request: Request, error: Error) -> Response:
    """What the lab refuses, with the status that its code has."""
    clean = request.app.state.lab.services.redactor.redact_text
    return _said_no(STATUS[error.code], error.code, clean(error.message), clean(error.next))


async def refuse_http(request: Request, error: HTTPException) -> Response:
    """What starlette itself refuses: no such place, or not with that method."""
    code = {404: NotFound.code, 405: InvalidArgument.code}.get(error.status_code, InvalidArgument.code)
    path = request.app.state.lab.services.redactor.redact_text(request.url.path)
    message = f"{request.method} {path[:200]}: {error.detail}"
    return _said_no(error.status_code, code, message, "see core/grace/door/README.md", error.headers)


def _said_no(status: int, code: str, message: str, next: str, headers: Mapping[str, str] | None = None) -> Response:
    told = dict(headers or {}) | ({"WWW-Authenticate": "Bearer"} if status == 401 else {})
    return JSONResponse({"error": {"code": code, "message": message, "next": next}}, status, told)


class Answers:
    """Every answer carries a request id and the lease; what nobody expected is logged and is JSON all the same.

    A refusal lets the client finish what it is sending, if that is little: many a client does not listen before. Of
    one that goes on the connection is closed.
    """

    def __init__(self, app: ASGIApp, lease_s: float) -> None:
        self._app = app
        self._lease = f"{lease_s:g}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        id, heard_all, started = new_id(), False, False

        async def hear() -> Part:
            nonlocal heard_all
            part = await receive()
            heard_all = heard_all or part["type"] != "http.request" or not part.get("more_body")
            return part

        async def hear_out() -> None:
            size = 0
            with move_on_after(PATIENCE_S):
                while not heard_all and size <= BODY_BYTES:
                    size += len((await hear()).get("body", b""))

        async def answer(part: Part) -> None:
            nonlocal started
            if part["type"] == "http.response.start":
                started = True
                added = [(b"madlab-request-id", id.encode()), (b"madlab-lease-seconds", self._lease)]
                if part["status"] >= 400:
                    await hear_out()
                if not heard_all and part["status"] >= 400:
                    added.append((b"connection", b"close"))
                part["headers"] = [*part["headers"], *added]
            await send(part)

        try:
            await self._app(scope, hear, answer)
        except ClientDisconnect:
            pass  # nobody is there to be told
        except Exception as error:  # the door must outlive any request
            logger.exception("request failed", request=id, path=scope["path"])
            if not started:
                refusal = _said_no(500, "INTERNAL", f"the lab made a mistake: {type(error).__name__}", LOOK)
                await refusal(scope, hear, answer)
