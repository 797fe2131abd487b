"""`madlab browse`: has Marco visit pages in a sandbox, and prints what a person would read there."""

import json as jsons
import os
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from core.grace.cli import screen
from core.grace.cli.client import Client, Fault
from core.grace.cli.life import Json
from core.grace.cli.runs import place, tell_waiting
from core.grace.cli.scanning import failed, watch
from core.grace.cli.talk import fault
from protos.errors import InvalidArgument

if TYPE_CHECKING:
    from core.grace.cli.pages import Browsed

RESULT_BYTES = 64 * 1024**2
GREEN = ("succeeded", "partial")
_HOST = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:\d+)?([/?#]\S*)?")


def add_to(app: typer.Typer) -> None:
    app.command()(browse)


def browse(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="URL… [GOAL]", help="Addresses; then what to find there.")],
    screenshot: Annotated[bool, typer.Option("--screenshot", help="Take a picture of each page.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write pages, pictures and downloads there.")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="With navigation, footers and asides.")] = False,
    only_host: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="Nothing else is reached; may be given again.")
    ] = None,
    model: Annotated[str, typer.Option(metavar="ALIAS", help="Which model answers; else the lab's default.")] = "",
    json: Json = False,
) -> None:
    """Visit pages with a real browser in a sandbox, and get what a person would read there.

    With a GOAL a model answers it, with quotes that stand on the pages. Downloads are kept in quarantine.
    """
    from core.grace.cli import pages
    from core.grace.cli.progress import progress

    urls, goal = told_apart(words)
    if out is not None:
        check_folder(out)
    client = Client.to(context.obj, waiting=tell_waiting)
    message = {
        "recipient": "marco",
        "kind": "call",
        "tool": "browse",
        "arguments": {"urls": urls, "goal": goal, "screenshot": screenshot, "whole": whole, "model": model},
        "terms": {"web": only_host} if only_host else {},
    }
    with progress() as shown:
        run = watch(client, client.publish(message)["run"], shown)
    said = _answer(run)
    if said["kind"] == "fault":
        error = fault(said)
        raise _explained(client, error, _unreached(client, run, [error.message]), as_json=json)
    if run["outcome"] not in GREEN:
        raise failed(run)
    content = said["data"] or jsons.loads(_download(client, said["blobs"], "result.json"))
    found = pages.parse(content, run["id"])
    written = _write(client, run, found, out) if out is not None else []
    unreached = _unreached(client, run, [each.problem for each in found.pages])
    if json:
        told = {"written": [str(each) for each in written], "unreached": unreached}
        screen.data({"run": run["id"]} | found.model_dump() | told)
        return
    pages.show(found)
    for row in unreached:
        screen.note(f"{row['url']}: {row['reason']}. See: madlab policy explain {row['act']}")
    for each in written:
        screen.note(f"Written: {each}")


def told_apart(words: Sequence[str]) -> tuple[list[str], str]:
    """The addresses, and what is to be found.

    Raises:
        InvalidArgument: there is no address, one that is none of the web, or more than one goal.
    """
    *firsts, last = words
    goal = "" if _is_address(last) else last
    urls = firsts if goal else [*firsts, last]
    if wrong := [each for each in urls if not _is_address(each)]:
        raise InvalidArgument(f"{wrong[0]!r} is no address", next="put the goal last, in quotes")
    if not urls:
        raise InvalidArgument("there is no address to visit", next='write: madlab browse URL "what to find"')
    for each in urls:
        scheme = each.partition("://")[0].lower() if "://" in each else "https"
        if scheme not in ("http", "https"):
            raise InvalidArgument(f"{each!r} is no page of the web", next="name an address with http or https")
    return [each if "://" in each else f"https://{each}" for each in urls], goal


def check_folder(out: Path) -> None:
    """Looked at before any page is visited.

    Raises:
        InvalidArgument: nothing can be written below it.
    """
    there = next(each for each in (out, *out.absolute().parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InvalidArgument(f"nothing can be written in {out}", next="name a folder of yours, or a new one in it")


def _is_address(word: str) -> bool:
    return "://" in word.partition(" ")[0] or _HOST.fullmatch(word) is not None


def _answer(run: dict[str, Any]) -> dict[str, Any]:
    """What Marco answered.

    Raises:
        Fault: he did not.
    """
    for each in reversed(run["messages"]):
        if each["kind"] in ("reply", "fault") and each["tool"] == "browse":
            found: dict[str, Any] = each
            return found
    raise failed(run)


def _unreached(client: Client, run: dict[str, Any], problems: Sequence[str]) -> list[dict[str, str]]:
    """The requests that the core did not make, of those hosts that Marco's problems speak of; with the core's reason.

    Marco hears one answer for a name that nobody knows and for one that leads inside. Whoever runs the lab hears which.
    """
    if not any(problems):
        return []
    rows = client.get(place(run["id"]) + "/activity", limit=1000)["web"]
    found = [
        each
        for each in rows
        if each["reason"] and each["host"] and any(each["host"] in problem for problem in problems)
    ]
    return [{name: each[name] for name in ("url", "outcome", "reason", "act")} for each in found]


def _explained(client: Client, told: Fault, unreached: Sequence[dict[str, str]], *, as_json: bool) -> Fault:
    """What Marco says of addresses that were not reached, as the lab knows it, with the rule that would be needed."""
    from core.grace.cli.policies import suggested

    if not unreached:
        return told
    row = unreached[-1]
    known = client.get("/api/v1/policy/explain/" + quote(row["act"], safe=""))
    code, message, next = told.said, told.message, told.next
    if known["act"]["details"].get("why"):
        code, message = "not_reached", f"{row['url']} was not reached: {row['reason']}"
        next = f"{known['next']} See: madlab policy explain {row['act']}"
    if known["suggestion"] and not as_json:
        next = f"{next}\n\n{suggested(known)}"
    return Fault(code, message, next=next)


def _download(client: Client, blobs: Sequence[dict[str, Any]], name: str) -> bytes:
    """
    Raises:
        Fault: there is none of that name, or it is far too big.
    """
    found = next((each for each in blobs if each["name"] == name), None)
    if found is None or found["size"] > RESULT_BYTES:
        raise Fault("no_result", f"the answer has no {name} that can be read", next="see: madlab runs")
    with TemporaryFile() as file:
        client.download(found["digest"], file)
        file.seek(0)
        return file.read()


def _write(client: Client, run: dict[str, Any], found: "Browsed", out: Path) -> list[Path]:
    """Writes what was found, and returns the files. Their names are ours; downloads go below `quarantine`."""
    from core.grace.cli import pages

    wanted: list[tuple[Path, str]] = []
    kept = {each["name"]: each["digest"] for each in run["artifacts"]}
    for number in range(1, len(found.pages) + 1):
        wanted += [(out / name, kept[name]) for kind in ("md", "png") if (name := f"page-{number}.{kind}") in kept]
    for number, each in enumerate(found.downloads, 1):
        wanted.append((pages.place_of(out, each.name, number), each.digest))
    for path, digest in wanted:
        with os.fdopen(pages.create(path), "wb+") as file:
            client.download(digest, file)
    with os.fdopen(pages.create(out / "result.json"), "w", encoding="utf-8") as file:
        file.write(found.model_dump_json(indent=2) + "\n")
    return [*(path for path, _ in wanted), out / "result.json"]
