"""What a lab needs now and then: `journal verify`, `advisories import|update|status`."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from core.grace.cli import screen
from core.grace.cli.client import CHUNK, Client, Fault
from core.grace.cli.files import check_regular, named
from core.grace.cli.life import Json
from core.grace.cli.progress import Progress, progress
from core.grace.cli.runs import tell_waiting
from core.grace.cli.scanning import GREEN, failed, watch
from core.home import Home
from protos.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from core.grace.cli.packing import Source

NO = 1
INDEX = "advisories"  # the name under which scans find it
LINES = 100  # of a file of checkpoints: the newest
FETCH_S = 60.0  # the longest silence of the other side


def add_to(app: typer.Typer) -> None:
    journal = typer.Typer(help="The record of everything said and done.", no_args_is_help=True)
    journal.command()(verify)
    app.add_typer(journal, name="journal")
    advisories = typer.Typer(help="The OSV database of vulnerable packages.", no_args_is_help=True)
    advisories.command("import")(import_file)
    advisories.command()(update)
    advisories.command("status")(show_status)
    app.add_typer(advisories, name="advisories")


def verify(
    context: typer.Context,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Signed checkpoints that were kept elsewhere.")
    ] = None,
    key: Annotated[str, typer.Option(metavar="KEY", help="Whose they must be; else the lab's own key file says.")] = "",
    json: Json = False,
) -> None:
    """Check the hash chain of the journal, that no body is missing, and that its end was not cut off."""
    client = Client.to(context.obj)
    if checkpoint is None:
        found: dict[str, Any] = client.get("/api/v1/journal/verify")
    else:
        check_regular(checkpoint, streams=True)
        lines = [line for line in checkpoint.read_text(errors="replace").splitlines() if line.strip()]
        if not lines:
            raise NotFound(f"{checkpoint} holds no checkpoint", next="see [audit] in core/policy/README.md")
        found = client.post("/api/v1/journal/verify", {"lines": lines[-LINES:], "key": key})
    if json:
        screen.data(found)
    else:
        chain = "intact" if found["chain_intact"] else "BROKEN"
        tail = "intact" if found["tail_intact"] else "CUT OFF"
        screen.say(f"integrity     the chain of {found['entries']:,} entries is {chain}, head {found['head'][:16]}")
        screen.say(
            f"completeness  {found['bodies_present']:,} bodies present, {found['bodies_archived']:,} archived,"
            f" {found['bodies_removed']:,} removed by policy,"
            f" {found['bodies_missing']:,} missing, {found['bodies_altered']:,} altered"
        )
        if found["proofs_broken"]:
            screen.say(f"proofs        {found['proofs_broken']:,} proofs of deletion DO NOT FIT")
        screen.say(f"tail          {tail}: {found['noted']:,} entries were noted beside the journal")
        if checkpoint is not None:
            screen.say(
                f"checkpoints   {found['checkpoints_met']} of {found['checkpoints']} are in the chain where they say,"
                f" signed by {found['key']}"
            )
        for problem in found["problems"]:
            screen.say(f"  {screen.plain(problem)}")
        if found["more_problems"]:
            screen.say(f"  and {found['more_problems']:,} more")
    raise typer.Exit(0 if found["ok"] else NO)


def import_file(
    context: typer.Context,
    path: Annotated[
        Path, typer.Argument(parser=named, metavar="FILE", help="An OSV zip, or a directory of OSV records.")
    ],
    json: Json = False,
) -> None:
    """Take in an OSV database. It is read in a sandbox; scans use it from then on."""
    from core.grace.cli.packing import open_source

    client = Client.to(context.obj, waiting=tell_waiting)
    client.get("/api/v1/status")
    home = Home.find(context.obj)
    source = open_source(path, home, history=False, note=lambda text: screen.note(f"Note: {text}"))
    _index(client, source, json)


def update(context: typer.Context, json: Json = False) -> None:
    """Fetch the OSV database from `advisories.url` and take it in."""
    from core.config import load
    from core.grace.cli.packing import Source, read

    home = Home.find(context.obj)
    client = Client.to(context.obj, waiting=tell_waiting)
    client.get("/api/v1/status")
    url = load(home).advisories.url
    with NamedTemporaryFile(suffix=".zip") as file, progress() as shown:
        _fetch(url, file, shown)
        path = Path(file.name)
        source = Source("archive", "osv.zip", path.stat().st_size, f"what {url} holds", lambda: read(path))
        _index(client, source, json)


def show_status(context: typer.Context, json: Json = False) -> None:
    """Say which OSV database scans use."""
    client = Client.to(context.obj)
    try:
        found = client.get(f"/api/v1/files/{INDEX}")
    except NotFound:
        found = None
    if json:
        screen.data({"installed": found is not None, "database": found})
    elif found is None:
        screen.say("No OSV database is installed: scans say so, and check no dependencies.")
        screen.say("Take one in with: madlab advisories import FILE")
    else:
        screen.say(f"version {found['version']}, {screen.size(found['size'])}, taken in {screen.ago(found['at'])}")
        screen.say(found["digest"])


def _fetch(url: str, file: IO[bytes], shown: Progress) -> None:
    """Downloads `url` into `file`.

    Raises:
        Unavailable: it cannot be had.
    """
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=FETCH_S) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
            for chunk in shown.through(iter(lambda: answer.read(CHUNK), b""), f"Fetching {url}", size):
                file.write(chunk)
        file.flush()
    except OSError as error:
        raise Unavailable(
            f"{url} cannot be fetched: {error}", next="fetch it elsewhere, then: madlab advisories import FILE"
        ) from None


def _index(client: Client, source: "Source", as_json: bool) -> None:
    """Has the database indexed in a sandbox, and makes the index the one that scans find."""
    with progress() as shown:
        blob = client.upload(
            lambda: shown.through(source.chunks(), f"Sending {source.what}", source.size),
            name=source.name,
            media_type="application/octet-stream",
        )
        message = {"recipient": "mcnamara", "kind": "call", "tool": "index_advisories", "blobs": [blob]}
        arguments = {"source": blob["digest"], "kind": source.kind}
        run = watch(client, client.publish(message | {"arguments": arguments})["run"], shown)
    if run["outcome"] not in GREEN:
        raise failed(run)
    if not run["artifacts"]:
        raise Fault("no_result", f"the run {run['id']} left no index", next=f"see: madlab show {run['id']}")
    found = client.put(f"/api/v1/files/{INDEX}", {"digest": run["artifacts"][0]["digest"]})
    if as_json:
        screen.data({"installed": True, "database": found, "run": run["id"], "evidence": run["evidence"]})
    else:
        screen.say(f"Version {found['version']} is installed ({screen.size(found['size'])}); scans use it from now on.")
        screen.say(counted(run["evidence"]))


def counted(evidence: Mapping[str, Any]) -> str:
    """What of a database went into the index and what did not, as the indexer counted it."""
    count = {name: number for name, number in evidence.items() if isinstance(number, int)}
    advisories, packages, unreadable = (count.get(name, 0) for name in ("advisories", "packages", "unreadable"))
    said = f"{advisories:,} advisor{'y' if advisories == 1 else 'ies'} of {packages:,} package{'s'[: packages != 1]}"
    for name, what in (("withdrawn", "withdrawn"), ("other", "of other ecosystems")):
        said += f"; {count[name]:,} {what}, left out" if count.get(name) else ""
    return said + (f"; {unreadable:,} record{'s'[: unreadable != 1]} could not be read" if unreadable else "")
