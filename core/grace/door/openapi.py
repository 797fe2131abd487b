"""The OpenAPI 3.1 document of `/api/v1`, made from the same table that routes and authorizes (`routes`)."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from starlette.requests import Request
from starlette.responses import Response

from core import VERSION
from core.grace.door.answers import Refused
from core.grace.door.edge import whole
from core.grace.door.routes import BASE, Endpoint

JSON = "application/json"
EVENTS = "text/event-stream"
PARAMETER = re.compile(r"\{(\w+)(?::(\w+))?\}")
REFUSALS = {
    400: "The request has not the declared shape.",
    401: "It needs a token, and there is none that is good.",
    403: "A rule says no; the message names it.",
    404: "There is no such thing, or none that the caller may see.",
    409: "It does not fit how things stand.",
    429: "Too much at once; the same again may succeed later.",
    503: "Something that it needs is not there now; the same again may succeed.",
}
ABOUT = """\
What the web page, the command line and every other client of a lab use. Over TCP each request but one needs
`Authorization: Bearer TOKEN`: an operator's session (`madlab open`) or a client's token (`madlab client add`). What is
marked *clients* answers a client about what is its own, and says of everything else that it is not there. A refusal is
`{"error": {"code", "message", "next"}}`. Times are seconds since the epoch. Fields are only ever added.
"""


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint("GET", "/openapi.json", _document, "This document.", answer=dict[str, Any], clients=True)


async def _document(request: Request) -> Response:
    return Response(request.app.state.openapi(), media_type=JSON)


class _Plain(GenerateJsonSchema):
    """Without a title for each field, which only says its name again."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The whole document."""
    shown = sorted(
        (each for each in endpoints if each.shown and each.base == BASE), key=lambda each: (each.path, each.method)
    )
    schemas = _Schemas(shown)
    paths: dict[str, dict[str, Any]] = {}
    for each in shown:
        path = PARAMETER.sub(r"{\1}", each.path)
        paths.setdefault(path, {})[each.method.lower()] = _operation(each, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "madlab", "version": VERSION, "description": ABOUT, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": BASE}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {
                str(status): {"description": about, "content": {JSON: {"schema": schemas.of(Refused)}}}
                for status, about in REFUSALS.items()
            },
            "schemas": schemas.definitions,
        },
    }


class _Schemas:
    """The schemas of everything that goes in or comes out, each noun once."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        wanted: dict[tuple[int, JsonSchemaMode], Any] = {(id(Refused), "serialization"): Refused}
        for each in endpoints:
            wanted |= {(id(kind), "serialization"): kind for kind in (each.answer, each.events) if kind is not None}
            if each.body is not None:
                wanted[id(each.body), "validation"] = each.body
        made, defined = TypeAdapter.json_schemas(
            [((key), key[1], TypeAdapter(kind)) for key, kind in wanted.items()],
            ref_template="#/components/schemas/{model}",
            schema_generator=_Plain,
        )
        self._made: dict[tuple[int, str], dict[str, Any]] = {key: schema for (key, _), schema in made.items()}
        self.definitions: dict[str, Any] = defined.get("$defs", {})

    def of(self, kind: Any, mode: JsonSchemaMode = "serialization") -> dict[str, Any]:
        return self._made[id(kind), mode]


def _operation(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _part(endpoint, name)}
        for name, _ in PARAMETER.findall(endpoint.path)
    ]
    parameters += [
        {"name": each.name, "in": "query", "description": each.about, "schema": each.schema}
        for each in endpoint.query or ()
    ]
    content: dict[str, Any] = {endpoint.media: {}}
    if endpoint.media == JSON:
        content[JSON] = {"schema": schemas.of(endpoint.answer)}
    if endpoint.events is not None:
        content[EVENTS] = {"schema": {"type": "string"}, "x-data": schemas.of(endpoint.events)}
    operation: dict[str, Any] = {
        "operationId": operation_id(endpoint),
        "summary": endpoint.summary,
        "tags": [endpoint.path.split("/")[1].partition(".")[0]],
        "x-who": _who(endpoint),
        "responses": {
            str(endpoint.status): {"description": endpoint.summary, "content": content},
            **{str(status): {"$ref": f"#/components/responses/{status}"} for status in REFUSALS},
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        schema = schemas.of(endpoint.body, "validation")
        operation["requestBody"] = {"required": endpoint.needs_body, "content": {JSON: {"schema": schema}}}
    elif endpoint.takes:
        operation["requestBody"] = {"required": endpoint.needs_body, "content": {endpoint.takes: {}}}
    if endpoint.anybody:
        operation["security"] = []
    return operation


def _part(endpoint: Endpoint, name: str) -> dict[str, Any]:
    pattern = endpoint.parts.get(name)
    return {"type": "string", "minLength": 1} | ({} if pattern is None else {"pattern": whole(pattern)})


def operation_id(endpoint: Endpoint) -> str:
    """A name that a generated client can use."""
    words = PARAMETER.sub(r"by_\1", endpoint.path)
    return f"{endpoint.method.lower()}_{re.sub('[^A-Za-z0-9]+', '_', words).strip('_')}"


def _who(endpoint: Endpoint) -> str:
    if endpoint.anybody:
        return "anybody"
    if endpoint.local:
        return "the operator, over the lab's own socket"
    return "clients" if endpoint.clients else "the operator"
