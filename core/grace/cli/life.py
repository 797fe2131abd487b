"""The core's life: `up`, `down`, `status`, `doctor`."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.grace.cli import screen
from core.grace.cli.client import Client, Unreachable
from core.grace.door.holding import HOLDER, end
from core.home import Home
from protos.errors import BY_CODE, Conflict, Error, InvalidArgument, Unavailable

if TYPE_CHECKING:
    from core.doctor import Finding

READY_S = 120.0  # to reconcile with whatever an earlier core left
GRACE_S = 30.0  # for a core to end by itself
LOG_BYTES = 16 * 1024**2  # of core.log; the part before is kept once

NO = 1

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(doctor)


def up(
    context: typer.Context,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay, and log to this terminal.")] = False,
    passphrase_file: Annotated[
        str, typer.Option(metavar="FILE", help="Unlock the vault with the passphrase in a file; - is stdin.")
    ] = "",
    passphrase_fd: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Unlock it with the passphrase from a file descriptor.")
    ] = None,
    json: Json = False,
) -> None:
    """Start the lab's core, and return when it is ready."""
    home = Home.open(context.obj)
    if foreground:
        if passphrase_file or passphrase_fd is not None:
            raise InvalidArgument(
                "With --foreground the passphrase is read from where the settings say.",
                next="Set [vault] passphrase_file or credential in madlab.toml.",
            )
        from core.app import run

        run(home)
        return
    pid = home.holder()
    started = time.monotonic()
    if pid is None:
        _await_ready(home, _start(home))
        took = f"ready in {time.monotonic() - started:.1f} s"
    else:
        _await_ready(home, None)
        took = f"was running already (pid {pid})"
    _unlock(Client(home), passphrase_file, passphrase_fd)
    state = Client(home).get("/api/v1/status")
    if json:
        screen.data(state)
    else:
        screen.say(f"The lab {home.lab} {took}. It listens at {home.api_socket}")


def _unlock(client: Client, passphrase_file: str, passphrase_fd: int | None) -> None:
    """Asks for the vault's passphrase, where somebody is there to be asked. The lab runs without it, too."""
    vault = client.get("/api/v1/vault")
    if vault["state"] not in ("locked", "damaged"):
        return
    from core.grace.cli.secrets import open_vault, vault_sentence

    if passphrase_file or passphrase_fd is not None or (vault["way"] == "passphrase" and sys.stdin.isatty()):
        open_vault(client, passphrase_file, passphrase_fd)
    else:
        screen.note(vault_sentence(vault))


def _start(home: Home) -> "subprocess.Popen[bytes]":
    """Starts the core in a session of its own, its words in core.log."""
    log = home.path / "core.log"
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(home.path / "core.log.1")
    command = [sys.executable, "-m", "core.grace.cli.main", "--home", str(home.path), "up", "--foreground", "--json"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    with log.open("ab") as words:
        os.fchmod(words.fileno(), 0o600)
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            cwd="/",
            env=environment,
            start_new_session=True,
        )


def _await_ready(home: Home, core: "subprocess.Popen[bytes] | None") -> None:
    """Returns when the core says that it is ready.

    Raises:
        Error: the core ended first, with what it said last.
        Unavailable: it is not ready in time.
    """
    deadline = time.monotonic() + READY_S
    client = Client(home)
    while time.monotonic() < deadline:
        if core is not None and core.poll() is not None:
            raise _last_words(home, core.returncode)
        try:
            if client.get("/api/v1/status")["ready"]:
                return
        except Unavailable:
            if core is None and home.holder() is None:
                raise
        time.sleep(0.02)
    raise Unavailable(f"the core is not ready after {READY_S:g} s", next=f"see {home.path / 'core.log'}")


def _last_words(home: Home, code: int) -> Error:
    """The error a core ended with, read from the end of its log."""
    log = home.path / "core.log"
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 65536, 0))
        lines = file.read().decode(errors="replace").splitlines()
    try:
        said = json.loads(lines[-1])["error"]
        return BY_CODE[said["code"]](said["message"], next=said["next"])
    except (IndexError, ValueError, KeyError, TypeError):
        last = lines[-1][:300] if lines else "nothing"
        return Unavailable(f"the core ended with code {code}; its last words: {last}", next=f"see {log}")


def down(
    context: typer.Context,
    keep_runs: Annotated[
        bool, typer.Option("--keep-runs", help="Leave sandboxes running for a core that is back within the lease.")
    ] = False,
) -> None:
    """Stop the lab's core. Runs that are not over are cancelled."""
    try:
        home = Home.find(context.obj)
    except Error as error:
        screen.note(f"Nothing to stop: {error.message}")
        return
    pid = home.holder()
    if pid is None:
        given_up = not keep_runs and end(str(home.runtime / HOLDER))
        also = ", and the page's port is given up" if given_up else ""
        screen.note(f"Nothing to stop: the lab is not running{also}.")
        return
    try:
        Client(home).post("/api/v1/shutdown", {"runs": "keep" if keep_runs else "cancel"})
    except Unreachable as error:
        raise Conflict(f"the core (pid {pid}) runs and does not answer", next=f"end it with: kill {pid}") from error
    deadline = time.monotonic() + GRACE_S
    while home.holder() == pid:
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the core (pid {pid}) is still ending after {GRACE_S:g} s", next=f"end it: kill -9 {pid}"
            )
        time.sleep(0.02)
    screen.note("The lab is down." + (" Its sandboxes wait for the next core." if keep_runs else ""))


def status(context: typer.Context, json: Json = False) -> None:
    """Show what the lab is and does."""
    state: dict[str, Any] = Client.to(context.obj).get("/api/v1/status")
    if json:
        screen.data(state)
        return
    runs, journal = state["runs"], state["journal"]
    ready = "ready" if state["ready"] else "starting"
    facts = [
        ("lab", f"{state['lab']}, {ready}, up {screen.span(state['uptime_s'])}"),
        ("core", f"pid {state['pid']}, version {state['version']}, {screen.size(state['memory_bytes'])} of memory"),
        ("runs", f"{runs['running']} running, {runs['queued']} queued"),
        ("sandboxes", ", ".join(each["name"] for each in state["sandboxes"]) or "none"),
        ("vault", _vault(state["vault"])),
        ("journal", f"{journal['messages']:,} messages, {screen.size(journal['bytes'])}"),
    ]
    if waiting := state["approvals"]:
        facts.append(("waiting", f"{waiting} for a person, see: madlab approvals"))
    if state["incidents"]:
        facts.append(("INCIDENTS", f"{state['incidents']}: see madlab incidents"))
    if journal.get("sealed"):
        facts.append(("SEALED", journal["sealed"]))
    for name, value in facts:
        screen.say(f"{name:<10} {screen.plain(value)}")
    screen.say()
    screen.table(
        ("MAD", "KIND", "STATE", "TOOLS", "WHAT IT IS FOR"),
        [(each["name"], each["kind"], each["state"], each["tools"], each["summary"]) for each in state["mads"]],
    )
    for each in state["mads"]:
        if each.get("restarts"):
            screen.say(
                f"{each['name']} was restarted {each['restarts']} times. The last time: {screen.plain(each['error'])}"
            )
    for letter in state["dead_letters"]:
        screen.say(f"{letter['sender']} wrote to {screen.plain(letter['recipient'])}: {screen.plain(letter['reason'])}")


def _vault(vault: dict[str, Any]) -> str:
    """How the vault is, in a few words."""
    if vault["state"] == "none":
        return "none yet"
    secrets = f"{vault['secrets']} secret{'' if vault['secrets'] == 1 else 's'}"
    return f"{vault['state']}, {secrets}" + (f": {vault['reason']}" if vault["reason"] else "")


def doctor(context: typer.Context, json: Json = False) -> None:
    """Check this machine: what is weak, and how to mend it.

    What is ok was tried. A - stands where the lab does without, and nobody has seen it work here.
    """
    import anyio

    from core.doctor import Finding, as_json, can_run, examine

    found: list[Finding] = []

    async def look() -> None:
        async for each in examine(context.obj):
            found.append(each)
            if not json:
                _show(each)

    anyio.run(look)
    if json:
        screen.data(as_json(found))
    else:
        weak = sum(each.state == "weak" for each in found)
        verdict = "The lab can run here" if can_run(found) else "The lab cannot run here"
        screen.say(f"{verdict}; {weak or 'nothing'} {'is' if weak < 2 else 'are'} weak.")
    raise typer.Exit(0 if can_run(found) else NO)


def _show(finding: "Finding") -> None:
    sign = "-" if finding.state == "unseen" else finding.state
    screen.say(f"{sign:<5} {finding.name:<17} {finding.detail}")
    if finding.mend:
        screen.say(f"{'':<23} → {finding.mend}")
