"""The door's routes for the lab as a whole: how it is, who is in it, whether its journal is sound, and its end."""

from collections.abc import Iterator
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.grace.door.edge import ShutdownBody, json_of, lab_of
from core.grace.door.shapes import mads_json, status_json


def routes() -> Iterator[Route]:
    """The routes of this part of the door."""
    for method, path, endpoint in (
        ("GET", "/status", _status),
        ("GET", "/tools", _tools),
        ("GET", "/mads", _mads),
        ("GET", "/journal/verify", _verify),
        ("POST", "/shutdown", _shutdown),
    ):
        yield Route("/api/v1" + path, endpoint, methods=[method])


async def _status(request: Request) -> Response:
    return JSONResponse(await status_json(lab_of(request)))


async def _tools(request: Request) -> Response:
    tools = lab_of(request).registry.tools(request.query_params.get("mad"))
    return JSONResponse(
        {
            "tools": [
                {
                    "name": f"{each.mad}.{each.schema.name}",
                    "description": each.schema.description,
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
