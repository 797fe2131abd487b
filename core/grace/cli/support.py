"""One command makes what somebody needs who shall help, and nothing that was said: `support-bundle`.

What goes in is chosen field by field: what is not named here stays out. Then the core takes out every value that it
keeps secret, and last what looks like a key is taken out of everything. With the core down the bundle holds what can be
read without it; the log was looked through by the core when it was written.
"""

import io
import json
import os
import platform
import re
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from core import VERSION
from core.grace.cli import screen
from core.grace.cli.client import Client, Unreachable
from core.grace.cli.life import Json
from core.home import Home
from protos.errors import Conflict, Error, NotFound

LOG_BYTES = 1 << 20  # of the log's end
RUNS = 200
# Settings whose texts are words of ours. Of any other text only its length is told.
PLAIN = frozenset(
    {
        "class",
        "home",
        "runtime",
        "least",
        "calls",
        "kind",
        "wire",
        "structured",
        "provider",
        "default",
        "lock",
        "header",
    }
    | {"signals", "service", "reasoning_effort", "max_tokens_field", "fallbacks", "image"}
)
RUN = ("id", "mad", "state", "outcome", "created", "started", "ended", "parent", "place")
COST = ("wall_s", "cpu_s", "memory_bytes", "bytes_in", "bytes_out", "dropped", "tokens", "usd")
STATUS = ("pid", "version", "lab", "ready", "uptime_s", "runs", "incidents", "approvals", "files", "memory_bytes")
MAD = ("name", "kind", "version", "tools", "state", "warm", "home", "restarts")
INCIDENT = ("id", "at", "run", "mad", "encoding", "ended")
KEYS = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    rb"|\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{12,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}"
    rb"|\bxox[abposr]-[\w-]{10,}|\bA(?:KIA|SIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    rb"|(?i:\bbearer\s+)[\w.~+/-]{8,}=*|(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)",
    re.DOTALL,
)
WORD = re.compile("[a-z][a-z0-9_]{0,40}")  # a key of the settings; what people name may tell more
FRAME = re.compile(r'^\s*File "([^"]+)", line (\d+), in (\S+)')
RAISED = re.compile(
    r"^\s*(?:[|+-]\s*)*([A-Za-z_][\w.]*(?:Error|Exception|Group|Interrupt|Exit|Warning|[A-Z]\w+))(?::|$)"
)
NOT_IN_IT = (
    "what was said: messages, prompts, answers, arguments, reasons, titles, remarks, lines of runs",
    "names and contents of files and reports, addresses, and hosts",
    "secrets, their names, keys, tokens, the vault; texts in the settings that may hold any of it",
    "the journal, Dewey's index, archives and blobs themselves",
    "names of the machine, its users and its network",
)

Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to [madlab-support-LAB-TIME.tar.gz].")]


def add_to(app: typer.Typer) -> None:
    app.command("support-bundle")(support_bundle)


def support_bundle(context: typer.Context, out: Out = None, json: Json = False) -> None:
    """Make an archive for whoever shall help: what the lab is and did, without anything that was said."""
    bundle = Bundle()
    home = _home(context.obj, bundle)
    client = _client(context.obj, bundle)
    target = out or Path(f"madlab-support-{home.lab if home else 'none'}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")
    if target.exists():  # said before what takes long
        raise _taken(target)
    screen.note("Looking …")
    bundle.add("versions.json", _versions)
    bundle.add("doctor.json", lambda: _doctor(context.obj))
    if home is not None:
        bundle.add("settings.json", lambda: settings(_read(home.settings)))
        bundle.add("home.json", lambda: _files(home.path))
        bundle.add("core.log", lambda: log(_read(home.path / "core.log", LOG_BYTES)))
    if client is not None:
        for name, look in _asked(client).items():
            bundle.add(name, look)
    written = bundle.write(target, client)
    if json:
        screen.data({"file": str(target), "contents": written, "left_out": bundle.left_out})
        return
    screen.table(("FILE", "SIZE"), [(name, screen.size(bytes)) for name, bytes in written.items()])
    for each in bundle.left_out:
        screen.note(f"left out: {each}")
    screen.say(f"{target}: look into it before you send it.")


@dataclass
class Bundle:
    """What goes in, and what does not and why."""

    parts: dict[str, bytes] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str, look: Callable[[], Any]) -> None:
        """Puts in what `look` finds; where it cannot be had, says so instead."""
        try:
            found = look()
        except (Error, OSError, ValueError, tomllib.TOMLDecodeError, KeyError) as error:
            why = error.code if isinstance(error, Error) else type(error).__name__
            self.left_out.append(f"{name}: it could not be had ({why})")
            return
        text = found if isinstance(found, str) else json.dumps(found, indent=2, ensure_ascii=False) + "\n"
        self.parts[name] = text.encode("utf-8", "replace")

    def write(self, target: Path, client: Client | None) -> dict[str, int]:
        """Writes the archive, readable by its owner alone; returns the sizes of what is in it.

        Raises:
            Conflict: there is a file of that name.
        """
        import tarfile

        self.parts = {name: strained(content, client) for name, content in self.parts.items()}
        self.parts = {"README.txt": strained(self._page().encode(), client)} | self.parts
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise _taken(target) from None
        with open(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, content in self.parts.items():
                member = tarfile.TarInfo(f"madlab-support/{name}")
                member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
                archive.addfile(member, io.BytesIO(content))
        return {name: len(content) for name, content in self.parts.items()}

    def _page(self) -> str:
        lines = [f"A support bundle of madlab {VERSION}.", "", "In it:"]
        lines += [f"  {name}, {screen.size(len(content))}" for name, content in self.parts.items()]
        lines += ["", "Not in it, on purpose:", *(f"  {each}" for each in NOT_IN_IT)]
        lines += [
            "",
            "Not in it, because it could not be had:",
            *(f"  {each}" for each in self.left_out or ["nothing"]),
        ]
        return "\n".join([*lines, ""])


def strained(content: bytes, client: Client | None) -> bytes:
    """Without what the lab keeps secret, and without what looks like a key."""
    if client is not None:
        content = client.strain(content)
    return KEYS.sub(b"[looks like a key]", content)


def settings(text: str) -> dict[str, Any]:
    """The operator's file: every key, numbers and truths, and the few texts that are words of ours."""

    def shown(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            named = [name if WORD.fullmatch(name) else f"(name {place})" for place, name in enumerate(value, 1)]
            return {name: shown(key, each) for name, (key, each) in zip(named, value.items(), strict=True)}
        if isinstance(value, list):
            return [shown(key, each) for each in value]
        if isinstance(value, bool | int | float) or key in PLAIN:
            return value
        return f"({len(str(value))} characters)"

    return {name: shown(name, value) for name, value in tomllib.loads(text).items()}


def log(text: str) -> str:
    """The log's lines as telemetry would tell them; of what was raised, where it was and its type."""
    from core.telemetry.logs import told

    lines = []
    for line in text.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            lines += list(_frames([line]))
            continue
        if not isinstance(said, dict):
            continue
        kept = told(said, str(said.get("level", "")))
        about = {
            "timestamp": str(said.get("timestamp", ""))[:40],
            "level": kept.level[:20],
            "event": _event(kept.event),
        }
        lines.append(json.dumps(about | dict(kept.attributes)))
        lines += list(_frames(str(said.get("exception", "")).splitlines()))
    return "\n".join([*lines, ""])


def _event(text: str) -> str:
    """What happened, in the lab's own few words; what a library said is not known to be any."""
    return text if re.fullmatch(r"[a-z][\w ,'-]{0,60}", text, re.IGNORECASE) else f"({len(text)} characters)"


def _frames(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if found := FRAME.match(line):
            yield f"    {_within(found[1])}:{found[2]} {found[3]}"
        elif found := RAISED.match(line):
            yield f"    {found[1]}"


def _within(path: str) -> str:
    """A file of code, from its package on: not where on this machine it lies."""
    parts = Path(path).parts
    for start in ("site-packages", "core", "protos", "sandbox", "periphery"):
        if start in parts:
            return "/".join(parts[parts.index(start) :])
    return parts[-1] if parts else ""


def _asked(client: Client) -> Mapping[str, Callable[[], Any]]:
    """What only a core that runs can tell."""

    def runs() -> list[dict[str, Any]]:
        found = client.get("/api/v1/runs", limit=RUNS)["runs"]
        return [_only(RUN, each) | {"cost": _only(COST, each["cost"])} for each in found]

    def incidents() -> list[dict[str, Any]]:
        return [_only(INCIDENT, each) for each in client.get("/api/v1/incidents", limit=RUNS)["incidents"]]

    def status() -> dict[str, Any]:
        found = client.get("/api/v1/status")
        about = _only(STATUS, found) | {"mads": [_mad(each) for each in found["mads"]]}
        about["journal"] = _only(("messages", "bytes", "lost"), found["journal"])
        about["journal"]["sealed"] = found["journal"]["sealed"] is not None
        about["vault"] = _only(("state", "way", "secrets"), found["vault"])
        return about | {"sandboxes": len(found["sandboxes"]), "dead_letters": len(found["dead_letters"])}

    def verified() -> dict[str, Any]:
        found: dict[str, Any] = client.get("/api/v1/journal/verify")
        return found | {"problems": len(found["problems"])}

    return {
        "status.json": status,
        "runs.json": runs,
        "incidents.json": incidents,
        "journal.json": verified,
        "metrics.txt": lambda: client.text("/metrics"),
    }


def _mad(mad: Mapping[str, Any]) -> dict[str, Any]:
    error = str(mad.get("error") or "").partition(":")[0]
    return _only(MAD, mad) | ({"error": error} if re.fullmatch(r"\w{1,60}", error) else {})


def _only(names: Iterable[str], found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in names if name in found}


def _taken(target: Path) -> Conflict:
    return Conflict(f"{target} is there already", next="name another one: --out FILE")


def _home(path: str | None, bundle: Bundle) -> Home | None:
    try:
        return Home.find(path)
    except NotFound:
        bundle.left_out.append("the lab's data: there is no lab here")
        return None


def _client(path: str | None, bundle: Bundle) -> Client | None:
    try:
        client = Client.to(path)
        client.get("/api/v1/status")
    except Unreachable:
        bundle.left_out.append("status, runs, incidents, journal and metrics: the core does not run")
        return None
    return client


def _versions() -> dict[str, Any]:
    from importlib.metadata import distributions

    packages = {each.metadata["Name"]: each.version for each in distributions()}
    return {
        "madlab": VERSION,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": os.cpu_count(),
        "packages": dict(sorted(packages.items())),
    }


def _doctor(path: str | None) -> list[dict[str, Any]]:
    """The card, without its details where they name places."""
    import anyio

    from core.doctor import Finding, examine

    async def look() -> list[Finding]:
        return [each async for each in examine(path)]

    found = anyio.run(look)
    return [{name: value for name, value in asdict(each).items() if name != "mend"} | _detail(each) for each in found]


def _detail(finding: Any) -> dict[str, str]:
    """A path names people and machines: each is cut to its last part."""
    return {"detail": re.sub(r"(?<![\w.])/(?:[^\s/:,;]+/)*", "…/", finding.detail)}


def _files(place: Path) -> dict[str, Any]:
    """What lies in the home, by the names that are the lab's own, with sizes."""
    return {
        each.name: each.stat().st_size if each.is_file() else "directory"
        for each in sorted(place.iterdir())
        if re.fullmatch(r"[a-z]+(\.(db|db-wal|db-shm|db\.head|db\.lock|toml|log))?", each.name)
    }


def _read(path: Path, last: int | None = None) -> str:
    with path.open("rb") as file:
        if last is not None and path.stat().st_size > last:
            file.seek(-last, os.SEEK_END)
            file.readline()
        return file.read().decode("utf-8", "replace")
