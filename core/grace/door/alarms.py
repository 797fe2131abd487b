"""The door's route for incidents: where a secret or a decoy was seen, and who was ended for it."""

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.grace.door import answers
from core.grace.door.answers import Answer
from core.grace.door.edge import lab_of, number_of
from core.grace.door.routes import Endpoint, number
from core.redaction.canaries import incidents

PAGE = 1000


class Incident(Answer):
    """A secret or a decoy was seen where it must not be; `ended` names the run that was ended for it."""

    id: str
    at: answers.Moment
    conversation: str


class Incidents(Answer):
    """A page of incidents."""

    incidents: list[Incident]


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint(
        "GET", "/incidents", _incidents, "Where a secret or a decoy was seen, the newest first.",
        query=(number("limit", "at most so many", default=50),), answer=Incidents,
    )  # fmt: skip


async def _incidents(request: Request) -> Response:
    lab = lab_of(request)
    limit = number_of(request, "limit", 50, PAGE, least=1)
    return JSONResponse({"incidents": await incidents(lab.journal, limit=limit)})
