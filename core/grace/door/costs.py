"""The door's routes for the models there are, what they have cost, and what may still be spent today."""

import time
from collections.abc import Iterator
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.fiedler.escrow import Account
from core.fiedler.ledger import By
from core.fiedler.mad import Known, described, others, spent
from core.fiedler.money import dollars
from core.grace.door.edge import lab_of, number_of
from core.grace.door.routes import Endpoint, choice, number

DAY_S = 86_400.0
ROWS = 1000  # that the page has at hand; it shows them by and by


def routes() -> Iterator[Endpoint]:
    """All of them, below `/api/v1`."""
    yield Endpoint("GET", "/models", _models, "The models there are, the default first.", answer=Known)
    yield Endpoint(
        *("GET", "/costs", _costs, "What models have cost, by day, model, MAD or run, and the account of today."),
        query=(
            choice("by", "What to add up by.", "run", "mad", "model", "day", default="model"),
            number("days", "Of the last so many days; 0 is ever.", default=0),
        ),
    )


async def _models(request: Request) -> Response:
    fiedler = lab_of(request).services.fiedler
    return JSONResponse({"models": [described(each) for each in (fiedler.models() if fiedler else ())]})


async def _costs(request: Request) -> Response:
    by, days = cast(By, request.query_params.get("by", "model")), number_of(request, "days", 0, 36_600)
    fiedler = lab_of(request).services.fiedler
    if fiedler is None:
        return JSONResponse({"by": by, "costs": [], "others": None, "today": None})
    reply = await fiedler.ledger.costs(by, since=time.time() - days * DAY_S if days else 0.0, most=ROWS)
    costs = {"costs": [spent(each) for each in reply.costs], "others": others(reply)}
    return JSONResponse({"by": by, **costs, "today": _account_json(await fiedler.ledger.today())})


def _account_json(account: Account) -> dict[str, Any]:
    """What was spent and set aside of an account, and its caps; null where there is none."""
    return {
        "name": account.name,
        "spent_usd": dollars(account.spent.usd),
        "held_usd": dollars(account.held.usd),
        "cap_usd": None if account.cap_usd is None else dollars(account.cap_usd),
        "spent_tokens": account.spent.tokens,
        "held_tokens": account.held.tokens,
        "cap_tokens": account.cap_tokens,
    }
