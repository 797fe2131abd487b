"""The one way to declare what the door answers: from it come the routing, who may ask, and the OpenAPI document.

A part of the door has `routes()`, which yields one `Endpoint` for each method of each path. An endpoint that says
nothing of who may ask is the operator's alone. Before its handler is called, the caller is checked (`callers.admit`),
and so is the query: a parameter that is not declared, is given twice or has another shape is refused, so that a typing
mistake never means "no filter". A handler gets the request and reads what is declared: `json_of(request, Body)`,
`number_of(request, ...)`, `request.query_params`. It returns a starlette response, or any other ASGI application
(`EventStream`, `BlobStream`).

`answer` is a type that pydantic knows: a model, a dataclass, `list[Model]`. What it says must hold: a fuzzer compares.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from core.grace.door.callers import admit
from core.grace.door.edge import whole
from protos.errors import InvalidArgument

BASE = "/api/v1"
TEXT = 1000  # characters of a text in a query that says nothing else

Handler = Callable[[Request], Awaitable[ASGIApp]]


@dataclass(frozen=True)
class Query:
    """One parameter in the address. Made by `number`, `text`, `choice`."""

    name: str
    about: str
    kind: Literal["number", "text"] = "text"
    default: int | str | None = None
    longest: int = TEXT
    values: tuple[str, ...] = ()  # the only ones; empty: any
    pattern: re.Pattern[str] | None = None  # what the handler takes; it refuses the rest, in its own words

    @property
    def schema(self) -> dict[str, Any]:
        """As JSON Schema."""
        schema: dict[str, Any] = {"type": "string", "maxLength": self.longest}
        if self.kind == "number":
            schema = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
        elif self.values:
            schema = {"type": "string", "enum": list(self.values)}
        elif self.pattern is not None:
            schema["pattern"] = whole(self.pattern)
        return schema if self.default is None else schema | {"default": self.default}

    def check(self, text: str) -> None:
        """
        Raises:
            InvalidArgument: it is not of that shape.
        """
        if self.kind == "number":
            if not text.isascii() or not text.isdigit() or len(text) > 18:
                what = f"{self.name}: {text[:40]!r} is no whole number from 0"
                raise InvalidArgument(what, next="leave it out or mend it")
        elif self.values and text not in self.values:
            raise InvalidArgument(f"{self.name}: {text[:40]!r} is none of {', '.join(self.values)}", next="mend it")
        elif len(text) > self.longest:
            raise InvalidArgument(f"{self.name}: it has over {self.longest} characters", next="say it shorter")


def number(name: str, about: str, *, default: int | None = None) -> Query:
    """A whole number from 0; read it with `number_of`, which also keeps it within bounds."""
    return Query(name, about, "number", default)


def text(
    name: str,
    about: str,
    *,
    longest: int = TEXT,
    default: str | None = None,
    pattern: re.Pattern[str] | None = None,
) -> Query:
    """A text."""
    return Query(name, about, "text", default, longest, pattern=pattern)


def choice(name: str, about: str, *values: str, default: str | None = None) -> Query:
    """One of some words."""
    return Query(name, about, "text", default, values=values)


AFTER = number("after", "the sequence to go on behind; a stream also has Last-Event-ID")


@dataclass(frozen=True)
class Endpoint:
    """One method of one path."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str  # below `base`, as starlette writes it: "/runs/{id}", "/policy/explain/{id:path}"
    handler: Handler
    summary: str  # one sentence, for people who read the document
    _: KW_ONLY
    body: type[BaseModel] | None = None  # what JSON comes in
    takes: str = ""  # the media type of a body that is no JSON
    empty: bool = False  # whether such a body may be empty; JSON may where `{}` is good
    parts: Mapping[str, re.Pattern[str]] = field(default_factory=dict)  # of the path, where not any text will do
    query: Sequence[Query] | None = ()  # None: whatever it is, nobody here reads it
    answer: Any = dict[str, Any]  # a type
    media: str = "application/json"  # of the answer; what is no JSON has no schema
    status: int = 200  # of the answer
    events: Any = None  # what each event holds, where `Accept: text/event-stream` gets a stream; a type
    clients: bool = False  # whether clients with tokens may ask; what they may see is the handler's to look after
    local: bool = False  # only over the lab's own socket: what would make a stolen token worth more
    anybody: bool = False  # needs no token: the page, which holds no secrets, and the trade of a ticket
    base: str = BASE
    shown: bool = True  # in the OpenAPI document

    @property
    def place(self) -> str:
        """Its whole path."""
        return self.base + self.path

    @property
    def needs_body(self) -> bool:
        """Whether it refuses a request that has no body."""
        if self.body is None:
            return bool(self.takes) and not self.empty
        try:
            self.body.model_validate({})
        except ValidationError:
            return True
        return False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        if not self.anybody:
            admit(request, clients=self.clients, local=self.local)
        self._check_query(request)
        answer = await self.handler(request)
        await answer(scope, receive, send)

    def _check_query(self, request: Request) -> None:
        """
        Raises:
            InvalidArgument: a parameter that there is not, that comes twice, or has another shape.
        """
        if self.query is None or not request.url.query:
            return
        known = {each.name: each for each in self.query}
        given = request.query_params.multi_items()
        for name, value in given:
            if name not in known:
                there_are = f"choose from: {', '.join(known)}" if known else "leave it out"
                raise InvalidArgument(f"{name[:40]!r} is no parameter of {self.path}", next=there_are)
            known[name].check(value)
        if len(given) > len({name for name, _ in given}):
            raise InvalidArgument("A parameter is given twice.", next="give each once")


class _Place:
    """One path: an ASGI application that picks the endpoint by the method.

    What anybody may GET answers HEAD, too: the server leaves out the body.
    """

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._by_method: dict[str, Endpoint] = {each.method: each for each in endpoints}
        if "GET" in self._by_method and self._by_method["GET"].anybody:
            self._by_method["HEAD"] = self._by_method["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._by_method.get(scope["method"])
        if endpoint is None:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self._by_method))})
        await endpoint(scope, receive, send)


def routes_of(endpoints: Sequence[Endpoint]) -> list[Route]:
    """The routes of a starlette application: one for each path. A word goes before a parameter that would match it."""
    by_place: dict[str, list[Endpoint]] = {}
    for each in endpoints:
        at = by_place.setdefault(each.place, [])
        if any(other.method == each.method for other in at):
            raise ValueError(f"{each.method} {each.place} is declared twice")
        at.append(each)
    places = sorted(by_place, key=lambda place: [part.startswith("{") for part in place.split("/")])
    return [Route(place, _Place(by_place[place])) for place in places]
