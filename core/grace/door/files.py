"""The door's routes for files: blobs by digest, streamed both ways, and named files with versions."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.grace.door import answers
from core.grace.door.callers import caller_of
from core.grace.door.edge import NameBody, json_of, lab_of
from core.grace.door.routes import Endpoint, text
from core.grace.door.shapes import blob_json, version_json
from core.grace.door.streams import BlobStream

BYTES = "application/octet-stream"


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint(
        "POST", "/blobs", _put_blob, "Stores bytes, streamed, under their digest.",
        takes=BYTES, query=(text("name", "carried in the answer, not kept"), text("media_type", "likewise")),
        answer=answers.Blob, status=201, clients=True,
    )  # fmt: skip
    yield Endpoint("GET", "/blobs/{digest}", _get_blob, "The bytes of that digest.", media=BYTES, clients=True)
    yield Endpoint("GET", "/files/{name}", _get_file, "The newest version of a named file.", answer=answers.Version)
    yield Endpoint(
        "PUT", "/files/{name}", _put_file, "Makes a blob the newest version of a named file.",
        body=NameBody, answer=answers.Version,
    )  # fmt: skip


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
