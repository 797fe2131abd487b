"""The door's routes for the archive: what is in it, putting in, bringing back, checking; and forgetting for good."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.dewey.archives import Archive, Forgotten
from core.grace.door.answers import Answer
from core.grace.door.callers import caller_of
from core.grace.door.edge import Empty, Strict, json_of, lab_of
from core.grace.door.routes import Endpoint

ONE_OF_THEM: JsonDict = {
    "oneOf": [
        {"required": ["conversation"], "properties": {"conversation": {"minLength": 1}, "idle_s": {"type": "null"}}},
        {"required": ["idle_s"], "properties": {"conversation": {"maxLength": 0}, "idle_s": {"type": "number"}}},
    ]
}


class ArchiveBody(Strict):
    """What goes into the archive: one conversation, or all in which nothing was said for some time."""

    model_config = ConfigDict(json_schema_extra=ONE_OF_THEM)

    conversation: Annotated[str, Field(max_length=255)] = ""
    idle_s: Annotated[float | None, Field(ge=0, le=1e10)] = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.conversation) == (self.idle_s is not None):
            raise ValueError("give one of conversation and idle_s")
        return self


class RestoreBody(Strict):
    """What comes back: a conversation, or one archive by its id."""

    conversation: Annotated[str, Field(min_length=1, max_length=255)]


class Listed(Answer):
    """Archives."""

    archives: list[Archive]


class Restored(Answer):
    """How much came back."""

    conversation: str
    entries: int


class Checked(Answer):
    """What a check of all archives found."""

    ok: bool
    archives: int
    entries: int
    problems: list[str]


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint("GET", "/archives", _list, "The archives that there are, the oldest first.", answer=Listed)
    yield Endpoint(
        "POST", "/archives", _create, "Puts conversations into the archive; they can be read as before.",
        body=ArchiveBody, answer=Listed, status=201,
    )  # fmt: skip
    yield Endpoint(
        "POST", "/archives/restore", _restore, "Brings a conversation back, bit for bit.",
        body=RestoreBody, answer=Restored,
    )  # fmt: skip
    yield Endpoint("GET", "/archives/verify", _verify, "Compares every archive with the journal.", answer=Checked)
    yield Endpoint(
        "POST", "/conversations/{id:path}/forget", _forget,
        "Removes what was said in a conversation for good; a proof of it stays in the journal.",
        body=Empty, answer=Forgotten,
    )  # fmt: skip


async def _list(request: Request) -> Response:
    return JSONResponse({"archives": [asdict(each) for each in await lab_of(request).archives.listed()]})


async def _create(request: Request) -> Response:
    body = await json_of(request, ArchiveBody)
    made = await lab_of(request).archives.create(
        [body.conversation] if body.conversation else None,
        idle_s=body.idle_s or 0.0,
        sender=caller_of(request).name,
    )
    return JSONResponse({"archives": [asdict(each) for each in made]}, 201)


async def _restore(request: Request) -> Response:
    body = await json_of(request, RestoreBody)
    count = await lab_of(request).archives.restore(body.conversation)
    return JSONResponse({"conversation": body.conversation, "entries": count})


async def _verify(request: Request) -> Response:
    found = await lab_of(request).archives.verify()
    return JSONResponse({"ok": found.ok} | asdict(found))


async def _forget(request: Request) -> Response:
    lab = lab_of(request)
    await json_of(request, Empty)
    gone = await lab.archives.forget(request.path_params["id"], sender=caller_of(request).name)
    await lab.library.caught_up(gone.sequence)
    return JSONResponse(asdict(gone))
