"""What was done: `audit`."""

import re
import time
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from core.grace.cli import screen
from core.grace.cli.client import Client
from core.grace.cli.life import Json
from core.grace.cli.runs import Follow, tell_waiting
from protos.errors import InvalidArgument

UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
HIDDEN = frozenset({"request", "address", "cut"})  # details for programs
TARGET_CHARACTERS, DETAIL_CHARACTERS = 80, 40


def add_to(app: typer.Typer) -> None:
    app.command()(audit)


def audit(
    context: typer.Context,
    principal: Annotated[str, typer.Option(metavar="P", help="Of one: mad:NAME, run:ID, operator.")] = "",
    since: Annotated[str, typer.Option(metavar="T", help="30m, 2h, 7d, or a date and time.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="At most the newest N.")] = 200,
    follow: Follow = False,
    json: Json = False,
) -> None:
    """Show what was done, decided and refused: each privileged act with its intent, its rule and its outcome."""
    client = Client.to(context.obj, waiting=tell_waiting)
    moment = _moment(since)
    found = client.get("/api/v1/audit", principal=principal or None, since=moment, limit=limit)["acts"]
    if json and not follow:
        screen.data({"acts": found})
        return
    for each in found:
        _show(each, as_json=json)
    if follow:
        path = f"/api/v1/audit?{urlencode({'principal': principal})}"
        for each in client.follow(path, after=max((each["last"] for each in found), default=0)):
            _show(each, as_json=json)


def _show(line: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        screen.data_line(line)
        return
    said = {"allow": "allowed", "ask": "asked", "deny": "denied"}.get(line["verdict"], "")
    decided = " ".join(each for each in (said, f"by {line['rule']}" if line["rule"] else "") if each)
    took = f" in {screen.span(line['ended'] - line['at'])}" if line["ended"] and line["ended"] > line["at"] else ""
    head = (screen.clock(line["at"]), line["principal"], line["act"], decided, f"{line['outcome'] or 'began'}{took}")
    details = [
        f"{name}={_cut(value, DETAIL_CHARACTERS)}" for name, value in line["details"].items() if _is_shown(name, value)
    ]
    taint = f"taint={','.join(line['taint'])}" if line["taint"] else ""
    about = (_cut(line["target"], TARGET_CHARACTERS), line["reason"], *details, taint, f"[{line['id']}]")
    screen.entry("  ".join(filter(None, head)), "  ".join(filter(None, about)))


def _is_shown(name: str, value: object) -> bool:
    """Whether a detail tells a person something; --json has them all."""
    return name not in HIDDEN and value not in ("", None, 0, [], {}) and not str(value).startswith("sha256:")


def _cut(value: object, most: int) -> str:
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}…"


def _moment(text: str) -> float:
    """Seconds since the epoch.

    Raises:
        InvalidArgument: it is no span and no date.
    """
    if not text:
        return 0.0
    if span := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text):
        return time.time() - float(span[1]) * UNITS_S[span[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise InvalidArgument(
            f"--since: {text[:40]!r} is no time", next="write 30m, 2h, 7d or 2026-11-22T10:00"
        ) from None
