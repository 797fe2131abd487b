"""The door's route for incidents: where a secret or a decoy was seen, and who was ended for it."""

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.grace.door.edge import lab_of, number_of
from core.redaction.canaries import incidents

PAGE = 1000


def routes() -> Iterator[Route]:
    """All of them, below `/api/v1`."""
    yield Route("/api/v1/incidents", _incidents, methods=["GET"])


async def _incidents(request: Request) -> Response:
    lab = lab_of(request)
    limit = number_of(request, "limit", 50, PAGE, least=1)
    return JSONResponse({"incidents": await incidents(lab.journal, limit=limit)})
