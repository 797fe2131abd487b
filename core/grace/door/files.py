"""The door's routes for files: blobs by digest, streamed both ways, and named files with versions."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.grace.door.callers import caller_of
from core.grace.door.edge import NameBody, json_of, lab_of
from core.grace.door.shapes import blob_json, version_json
from core.grace.door.streams import BlobStream


def routes() -> Iterator[Route]:
    """The routes of this part of the door."""
    for method, path, endpoint in (
        ("POST", "/blobs", _put_blob),
        ("GET", "/blobs/{digest}", _get_blob),
        ("GET", "/files/{name}", _get_file),
        ("PUT", "/files/{name}", _put_file),
    ):
        yield Route("/api/v1" + path, endpoint, methods=[method])


async def _put_blob(request: Request) -> Response:
    lab, query = lab_of(request), request.query_params
    name, media_type = query.get("name", "")[:255], query.get("media_type", "")[:255]
    async with aclosing(_pieces(request)) as chunks:
        blob = await lab.horace.put(chunks, name=name, media_type=media_type)
    return JSONResponse(blob_json(blob), 201)


async def _pieces(request: Request) -> AsyncGenerator[bytes, None]:
    """The body as it comes, without the empty piece at its end."""
    async for chunk in request.stream():
        if chunk:
            yield chunk


async def _get_blob(request: Request) -> BlobStream:
    horace, digest = lab_of(request).horace, request.path_params["digest"]
    blob = await horace.stat(digest)
    return BlobStream(horace.get(digest), blob.size)


async def _get_file(request: Request) -> Response:
    horace, name = lab_of(request).horace, request.path_params["name"]
    await horace.find(name)
    return JSONResponse(version_json((await horace.versions(name, limit=1))[0]))


async def _put_file(request: Request) -> Response:
    body = await json_of(request, NameBody)
    version = await lab_of(request).horace.set_name(
        request.path_params["name"], body.digest, sender=caller_of(request).name
    )
    return JSONResponse(version_json(version))
