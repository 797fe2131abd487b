"""The door's routes for files: blobs by digest, streamed both ways, and named files with versions."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.grace.door import answers
from core.grace.door.callers import caller_of, seen_blob
from core.grace.door.edge import NameBody, json_of, lab_of
from core.grace.door.routes import Endpoint, text
from core.grace.door.shapes import blob_json, version_json
from core.grace.door.streams import BlobStream
from core.horace.blobs import DIGEST
from core.horace.store import NAME
from core.lab import Lab
from core.policy.acts import Act
from core.policy.capabilities import Identity
from core.ports.acting import acting
from core.ports.copies import OUTSIDE, brought_in
from protos.v1.message_pb2 import Blob

BYTES = "application/octet-stream"
RANGE = re.compile("bytes=([0-9]{1,18})-([0-9]{1,18})?")  # from one byte to another; of many parts, none is served
CLIENT_BYTES = 512 << 20  # of one blob that a client stores


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint(
        "POST", "/blobs", _put_blob, "Stores bytes, streamed, under their digest.",
        query=(text("name", "carried in the answer, not kept"), text("media_type", "likewise")),
        takes=BYTES, empty=True, answer=answers.Blob, status=201, clients=True,
    )  # fmt: skip
    yield Endpoint(
        "GET", "/blobs/{digest}", _get_blob, "The bytes of that digest, or those that Range names.",
        parts={"digest": DIGEST}, media=BYTES, clients=True,
    )  # fmt: skip
    yield Endpoint("GET", "/files/{name}", _get_file, "The newest version of a named file.", answer=answers.Version)
    yield Endpoint(
        "PUT", "/files/{name}", _put_file, "Makes a blob the newest version of a named file.",
        parts={"name": NAME}, body=NameBody, answer=answers.Version,
    )  # fmt: skip


async def _put_blob(request: Request) -> Response:
    lab, query = lab_of(request), request.query_params
    name, media_type = query.get("name", "")[:255], query.get("media_type", "")[:255]
    caller = caller_of(request)
    async with aclosing(_pieces(request)) as chunks:
        if caller.is_operator:
            blob = await lab.horace.put(chunks, name=name, media_type=media_type)
            await lab.journal.append(brought_in(blob.digest, caller.name))
        else:
            async with request.app.state.shares.storing(caller.name, chunks) as counted:
                blob = await _put_of_client(lab, caller.identity, counted, name, media_type)
    return JSONResponse(blob_json(blob), 201)


async def _put_of_client(
    lab: Lab, identity: Identity, chunks: AsyncIterator[bytes], name: str, media_type: str
) -> Blob:
    """A client's blob is its own by the entry of this act, and the policy may say no."""
    act = Act("files.put", identity.principals, name)
    async with acting(lab.services, identity, act, name=name) as added:
        blob = await lab.horace.put(chunks, name=name, media_type=media_type, limit_bytes=CLIENT_BYTES)
        added |= {"digest": blob.digest, "size": blob.size, "taint": sorted(OUTSIDE)}
    return blob


async def _pieces(request: Request) -> AsyncGenerator[bytes, None]:
    """The body as it comes, without the empty piece at its end."""
    async for chunk in request.stream():
        if chunk:
            yield chunk


async def _get_blob(request: Request) -> BlobStream:
    horace, digest = lab_of(request).horace, request.path_params["digest"]
    blob = await seen_blob(lab_of(request), caller_of(request), digest)
    part = _part_of(request, blob.size)
    return BlobStream(horace.get(digest, offset=part.start if part else 0), blob.size, part)


def _part_of(request: Request, size: int) -> range | None:
    """What of so many bytes the request is for; None is all of it, whatever else it says of ranges.

    Raises:
        HTTPException: 416, it begins behind the end.
    """
    said = RANGE.fullmatch(request.headers.get("range", ""))
    if said is None or not size:
        return None
    part = range(int(said[1]), min(int(said[2] or size), size - 1) + 1)
    if part.start >= size:
        beyond = f"byte {part.start:,} of {size:,}"
        raise HTTPException(416, beyond, {"Content-Range": f"bytes */{size}"})
    return part or None


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
