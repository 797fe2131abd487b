"""The door's routes for the lab as a whole: how it is, who is in it, whether its journal is sound, and its end."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.grace.door import answers
from core.grace.door.answers import Answer
from core.grace.door.callers import caller_of
from core.grace.door.edge import ShutdownBody, json_of, lab_of
from core.grace.door.routes import Endpoint, text
from core.grace.door.shapes import mads_json, status_json


class Tool(Answer):
    """A tool of a MAD."""

    name: str
    mad: str
    tool: str
    description: str
    effects: str
    idempotent: bool
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]


class Tools(Answer):
    """Tools."""

    tools: list[Tool]


class Mads(Answer):
    """All MADs."""

    mads: list[answers.Mad]


class Stopping(Answer):
    """The core ends."""

    stopping: Literal[True]


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint("GET", "/status", _status, "How the lab is.", answer=answers.Status)
    yield Endpoint(
        "GET", "/tools", _tools, "Tools with their schemas. A client gets those that it may call.",
        query=(text("mad", "of this MAD only", longest=64),), answer=Tools, clients=True,
    )  # fmt: skip
    yield Endpoint("GET", "/mads", _mads, "Every MAD and how it fares.", answer=Mads)
    yield Endpoint("GET", "/journal/verify", _verify, "Checks the whole journal.", answer=answers.Verified)
    yield Endpoint(
        "POST", "/shutdown", _shutdown, "Ends the core; its runs with it, or they wait for the next core.",
        body=ShutdownBody, answer=Stopping, status=202,
    )  # fmt: skip


async def _status(request: Request) -> Response:
    return JSONResponse(await status_json(lab_of(request)))


async def _tools(request: Request) -> Response:
    caller = caller_of(request)
    found = lab_of(request).registry.tools(request.query_params.get("mad"))
    tools = [each for each in found if caller.may_call(each.mad, each.schema.name)]
    return JSONResponse(
        {
            "tools": [
                {
                    "name": f"{each.mad}.{each.schema.name}",
                    "mad": each.mad,
                    "tool": each.schema.name,
                    "description": each.schema.description,
                    "effects": each.schema.effects,
                    "idempotent": each.schema.idempotent,
                    "input_schema": each.schema.input_schema,
                    "output_schema": each.schema.output_schema,
                }
                for each in tools
            ]
        }
    )


async def _mads(request: Request) -> Response:
    return JSONResponse({"mads": mads_json(lab_of(request))})


async def _verify(request: Request) -> Response:
    found = await lab_of(request).journal.verify()
    return JSONResponse({"ok": found.ok} | asdict(found))


async def _shutdown(request: Request) -> Response:
    body = await json_of(request, ShutdownBody)
    lab_of(request).stop(keep_runs=body.runs == "keep")
    return JSONResponse({"stopping": True}, 202)
