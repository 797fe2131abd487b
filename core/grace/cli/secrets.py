"""`madlab secret …`: what is kept secret, who may use it, and who did. No value is an argument, and none is shown."""

import base64
import json as json_module
import os
import re
import sys
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import typer

from core.grace.cli import screen
from core.grace.cli.client import Client
from core.grace.cli.files import check_regular
from core.grace.cli.life import Json
from protos.errors import InvalidArgument, NotFound

VALUE_BYTES = 64 * 1024
SHORT = 16  # bytes of a value below which ordinary text may hold it by chance
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
NEVER = "A value is never an argument: arguments can be seen by everybody on this machine."

secret = typer.Typer(help="Secrets: kept sealed, used by handle, never shown.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="What the secret is called.")]
Stdin = Annotated[bool, typer.Option("--from-stdin", help="Read the value from stdin.")]
From = Annotated[Path | None, typer.Option("--from-file", metavar="FILE", help="Read the value from a file.")]
PassphraseFile = Annotated[
    str, typer.Option("--passphrase-file", metavar="FILE", help="Read the passphrase from a file; - is stdin.")
]
PassphraseFd = Annotated[
    int | None, typer.Option("--passphrase-fd", min=0, metavar="N", help="Read the passphrase from a file descriptor.")
]
STRAY = {"allow_extra_args": True}  # so that a value given as one is refused without being repeated


def add_to(app: typer.Typer) -> None:
    app.add_typer(secret, name="secret")


# --- values


@secret.command("set", context_settings=STRAY)
def set_value(
    context: typer.Context, name: Name, from_stdin: Stdin = False, from_file: From = None, json: Json = False
) -> None:
    """Keep a new secret. Without an option its value is asked for and not shown."""
    _refuse_stray(context)
    client = Client.to(context.obj)
    before = client.get("/api/v1/vault")
    value = _value(name, from_stdin, from_file)
    if before["state"] == "none" and before["way"] == "passphrase":
        screen.note("There is no vault yet. What you type now opens it from now on.")
        client.post("/api/v1/vault", {"passphrase": _passphrase("Passphrase of the vault", is_new=True)})
    made = client.put(_at(name), {"value": value})
    if before["state"] == "none":
        _tell_made(made["vault"])
    if json:
        screen.data(made)
    else:
        screen.note(f"{name} is kept (version {made['version']}). Nobody may use it yet: madlab secret grant {name} …")


@secret.command("list")
def list_secrets(context: typer.Context, json: Json = False) -> None:
    """List the secrets: names, versions, grants and uses; never a value."""
    found = Client.to(context.obj).get("/api/v1/secrets")
    if json:
        screen.data(found)
        return
    screen.table(
        ("NAME", "VERSION", "SINCE", "GRANTS", "USES", "LAST"),
        [
            (
                each["name"],
                each["version"],
                screen.ago(each["created"]),
                each["grants"] or "",
                each["uses"] or "",
                screen.ago(each["last"]),
            )
            for each in found["secrets"]
        ],
    )
    screen.note(vault_sentence(found["vault"]))


@secret.command("rotate", context_settings=STRAY)
def rotate(
    context: typer.Context,
    name: Name,
    from_stdin: Stdin = False,
    from_file: From = None,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="End the leases on the old value, too: it was seen by somebody.")
    ] = False,
    json: Json = False,
) -> None:
    """Give a secret a new value. Who is at work with the old one keeps that until the lease ends."""
    _refuse_stray(context)
    client = Client.to(context.obj)
    client.get(_at(name, "versions"))
    made = client.post(_at(name, "rotate"), {"value": _value(name, from_stdin, from_file), "at_once": at_once})
    if json:
        screen.data(made)
        return
    screen.note(f"{name} is at version {made['version']}.")
    leases = [lease for each in made["versions"] for lease in each["leases"] if each["state"] == "leased"]
    if leases:
        until = max(each["until"] for each in leases)
        screen.note(f"{len(leases)} at work with the version before may use it until {screen.clock(until)}.")


@secret.command("versions")
def versions(context: typer.Context, name: Name, json: Json = False) -> None:
    """List the versions of a secret: current, leased (an old one still in use), retired (destroyed, only listed)."""
    found = Client.to(context.obj).get(_at(name, "versions"))
    if json:
        screen.data(found)
        return
    screen.table(
        ("VERSION", "STATE", "MADE", "LEASES", "UNTIL"),
        [
            (
                each["version"],
                each["state"],
                screen.clock(each["created"]),
                ", ".join(f"{lease['principal']} ({lease['uses']})" for lease in each["leases"]),
                screen.clock(each["retires"]) if each["retires"] else "",
            )
            for each in found["versions"]
        ],
    )


@secret.command("remove")
def remove(context: typer.Context, name: Name) -> None:
    """Forget a secret, its versions and its grants."""
    Client.to(context.obj).post(_at(name, "remove"), {})
    screen.note(f"{name} is gone. Revoke it where it came from, too, if it is still good there.")


# --- grants


@secret.command("grant")
def grant(
    context: typer.Context,
    name: Name,
    to: Annotated[str, typer.Option(metavar="PRINCIPAL", help="mad:NAME, run:ID, client:NAME or operator.")],
    place: Annotated[str, typer.Option("--for", metavar="HOST[/PATH]", help="Where, by https. A path holds below it.")],
    methods: Annotated[str, typer.Option(metavar="A,B", help="Which methods; `any` for all.")] = "GET",
    use: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="HOW",
            help="Added by itself as header:NAME='Bearer {}' or basic:USER; else only where secret://NAME stands.",
        ),
    ] = "",
    ttl: Annotated[
        str, typer.Option(metavar="TIME", help="How long: 30s, 20m, 1h, 7d. Without it, until revoked.")
    ] = "",
    uses: Annotated[int | None, typer.Option(min=1, metavar="N", help="How often.")] = None,
    json: Json = False,
) -> None:
    """Let a principal use a secret at one host, below one path, by some methods."""
    wanted = {
        "id": token_hex(5),
        "to": to,
        "place": place,
        "methods": _methods(methods),
        "use": use,
        "ttl_s": seconds(ttl) if ttl else None,
        "uses": uses,
    }
    client = Client.to(context.obj)
    made = client.post(_at(name, "grants"), wanted)
    if json:
        screen.data(made)
        return
    if nobody := _nobody(client, made["principal"]):
        screen.note(f"{nobody} To take it back: madlab secret revoke {name} --id {made['id']}")
    if made["principal"] != to:
        screen.note(f"{screen.plain(to)} is understood as {made['principal']}.")
    how = f", added as {made['use']}" if made["use"] else f", where secret://{name} stands in a header"
    screen.note(
        f"{made['principal']} may use {name} for {', '.join(made['methods']) or 'any method'} {made['place']}{how};"
        f" {_limits(made)}. Grant {made['id']}."
    )


@secret.command("revoke")
def revoke(
    context: typer.Context,
    name: Name,
    to: Annotated[str, typer.Option("--from", metavar="PRINCIPAL", help="Only what this principal has.")] = "",
    id: Annotated[str, typer.Option("--id", metavar="GRANT", help="Only this grant.")] = "",
    json: Json = False,
) -> None:
    """End the grants of a secret: all, those of one principal, or one."""
    ended = Client.to(context.obj).post(_at(name, "revoke"), {"to": to, "id": id})
    if json:
        screen.data(ended)
        return
    for each in ended["revoked"]:
        screen.note(f"{each['principal']} may no longer use {name} for {each['place']} (grant {each['id']}).")


@secret.command("who-could")
def who_could(context: typer.Context, name: Name, json: Json = False) -> None:
    """List who could use a secret now, where, and for how long."""
    found = Client.to(context.obj).get(_at(name, "grants"))
    if json:
        screen.data(found)
        return
    screen.table(
        ("PRINCIPAL", "FOR", "METHODS", "AS", "UNTIL", "USES LEFT", "GRANT"),
        [
            (
                each["principal"],
                each["place"],
                ",".join(each["methods"]) or "any",
                each["use"] or "handle",
                screen.clock(each["expires"]) if each["expires"] else "revoked",
                "any" if each["uses_left"] is None else each["uses_left"],
                each["id"],
            )
            for each in found["grants"]
        ]
        + [
            (each["principal"], each["address"], "any", "key", "madlab.toml", "any", f"providers.{each['provider']}")
            for each in found["providers"]
        ],
    )
    if found["ended"]:
        screen.note(f"{len(found['ended'])} more grants have ended.")


@secret.command("uses")
def uses(
    context: typer.Context,
    name: Name,
    limit: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="The latest N.")] = 100,
    json: Json = False,
) -> None:
    """List who used a secret, when, and for which request."""
    found = Client.to(context.obj).get(_at(name, "uses"), limit=limit)
    if json:
        screen.data(found)
        return
    screen.table(
        ("AT", "PRINCIPAL", "VERSION", "GRANT", "REQUEST"),
        [
            (
                screen.clock(each["at"]),
                each["principal"],
                each["version"],
                each["grant"],
                f"{each['method']} {each['target']}",
            )
            for each in found["uses"]
        ],
    )
    for each in found["providers"]:
        last = f", the last {screen.ago(each['last'])}" if each["requests"] else ""
        screen.note(f"As the key of the provider {each['provider']}: {each['requests']} requests{last}.")


# --- the vault


@secret.command("unlock")
def unlock(
    context: typer.Context, passphrase_file: PassphraseFile = "", passphrase_fd: PassphraseFd = None, json: Json = False
) -> None:
    """Unlock the vault of a running lab."""
    state = open_vault(Client.to(context.obj), passphrase_file, passphrase_fd)
    if json:
        screen.data(state)
    else:
        screen.note(vault_sentence(state))


@secret.command("rekey")
def rekey(
    context: typer.Context, passphrase_file: PassphraseFile = "", passphrase_fd: PassphraseFd = None, json: Json = False
) -> None:
    """Give the vault a new master key, and a new lock of the way that [vault] unlock names. Values stay."""
    client = Client.to(context.obj)
    body: dict[str, object] = {}
    if client.get("/api/v1/vault")["wanted"] == "passphrase":
        body["passphrase"] = _passphrase("New passphrase of the vault", passphrase_file, passphrase_fd, is_new=True)
    state = client.post("/api/v1/vault/rekey", body)
    if json:
        screen.data(state)
        return
    screen.note(f"The vault has a new master key. {vault_sentence(state)}")
    if state["place"]:
        screen.note(
            f"Its key is in {state['place']}: copy it to a safe place again. The old one opens old copies only."
        )


@secret.command("export")
def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")],
    passphrase_file: PassphraseFile = "",
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Write every current value to a file that a passphrase of its own seals."""
    if file.exists():
        raise InvalidArgument(f"{file} is there already.", next="Name a new file.")
    client = Client.to(context.obj)
    passphrase = _passphrase("Passphrase of the exported file", passphrase_file, passphrase_fd, is_new=True)
    content = base64.b64decode(client.post("/api/v1/vault/export", {"passphrase": passphrase})["file"])
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    screen.note(f"{file} holds every current value, sealed ({screen.size(len(content))}). Grants stay behind.")


@secret.command("import")
def import_file(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `madlab secret export` wrote.")],
    replace: Annotated[bool, typer.Option("--replace", help="Rotate what is there under these names.")] = False,
    passphrase_file: PassphraseFile = "",
    passphrase_fd: PassphraseFd = None,
    json: Json = False,
) -> None:
    """Take in the values of an exported file, all or none. A name that is there is left as it is."""
    check_regular(file, streams=True)
    content = file.read_bytes()
    client = Client.to(context.obj)
    before = client.get("/api/v1/vault")
    head = {"passphrase": _passphrase("Passphrase of the exported file", passphrase_file, passphrase_fd)}
    if before["state"] == "none" and before["way"] == "passphrase":
        client.post("/api/v1/vault", {"passphrase": _passphrase("New passphrase of the vault", is_new=True)})
    line = json_module.dumps(head | {"replace": replace}).encode()
    found = client.send("/api/v1/vault/import", line + b"\n" + content)
    if before["state"] == "none":
        _tell_made(client.get("/api/v1/vault"))
    if json:
        screen.data(found)
        return
    screen.note(f"{len(found['taken'])} secrets were taken in. Nobody may use them yet: madlab secret grant …")
    if found["left"]:
        screen.note(f"Left as they are here: {', '.join(found['left'])}. To rotate these: --replace")


def open_vault(client: Client, passphrase_file: str = "", passphrase_fd: int | None = None) -> dict[str, Any]:
    """Unlocks the vault, asking for what it wants, and returns its state."""
    state: dict[str, Any] = client.get("/api/v1/vault")
    if state["state"] == "open":
        return state
    body: dict[str, object] = {}
    if state["state"] == "locked" and state["way"] == "passphrase":
        body["passphrase"] = _passphrase("Passphrase of the vault", passphrase_file, passphrase_fd)
    unlocked: dict[str, Any] = client.post("/api/v1/vault/unlock", body)
    return unlocked


def vault_sentence(state: dict[str, Any]) -> str:
    """How the vault is, for people."""
    count = f"{state['secrets']} secret{'' if state['secrets'] == 1 else 's'}"
    match state["state"]:
        case "none":
            return "There is no vault yet: the first secret makes one."
        case "open":
            return f"The vault is open, with {count}."
        case _:
            return f"The vault is {state['state']}, with {count}. {state['reason']} {state['next']}".replace("  ", " ")


def _tell_made(state: dict[str, Any]) -> None:
    """What a newcomer has to know of the vault that was just made."""
    if state["way"] == "key_file":
        screen.note(f"A vault was made. Its key is in {state['place']}, which only you can read.")
        screen.note("Copy that file to a safe place, apart from copies of the lab: without it nobody opens the vault.")
        screen.note("Whoever runs programs as you can read it: madlab.toml, [vault] unlock, names stricter ways.")
    else:
        screen.note("A vault was made.")


def _at(name: str, what: str = "") -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) or name in (".", ".."):
        raise InvalidArgument(
            f"{screen.plain(name[:64])!r} is no name for a secret.", next="Use letters, digits, dots, _ and -."
        )
    return f"/api/v1/secrets/{name}" + (f"/{what}" if what else "")


def _nobody(client: Client, principal: str) -> str:
    """What is said where the lab knows nobody of that name, or nobody any more; else nothing."""
    family, _, name = principal.partition(":")
    missing = f"There is no {'MAD' if family == 'mad' else family} {screen.plain(name)} in this lab,"
    missing += " so nobody has the grant yet."
    try:
        match family:
            case "mad":
                mads = [each["name"] for each in client.get("/api/v1/mads")["mads"]]
                return f"{missing} There are: {', '.join(mads)}." if name not in mads else ""
            case "run":
                client.get(f"/api/v1/runs/{quote(name, safe='')}")
            case "client" if not client.get(f"/api/v1/clients/{quote(name, safe='')}")["holds"]:
                return f"The client {screen.plain(name)} has no token any more, so nobody has the grant."
    except NotFound:
        return f"{missing} See: madlab {'runs' if family == 'run' else 'client list'}."
    return ""


def _methods(text: str) -> list[str]:
    """Which methods are meant. What names none is a slip (an empty variable of a script), and not all of them.

    Raises:
        InvalidArgument: it names none, or `any` beside others.
    """
    named = sorted({each.strip() for each in text.split(",")} - {""})
    if not named or ("any" in named and len(named) > 1):
        raise InvalidArgument(
            f"--methods: {screen.plain(text[:40])!r} does not say which methods.",
            next="Write GET or GET,POST; `any` alone grants all of them.",
        )
    return named if named == ["any"] else sorted({each.upper() for each in named})


def _limits(made: dict[str, Any]) -> str:
    until = f"until {screen.clock(made['expires'])}" if made["expires"] else "until revoked"
    return until if made["uses_left"] is None else f"{until}, {made['uses_left']} times"


def seconds(text: str) -> float:
    """A time span: 30s, 20m, 1h, 7d, 1h30m."""
    parts = re.findall(r"(\d+)([smhd])", text)
    if not parts or "".join(f"{number}{unit}" for number, unit in parts) != text:
        raise InvalidArgument(f"--ttl: {screen.plain(text[:40])!r} is no time span.", next="Write 30s, 20m, 1h or 7d.")
    return float(sum(int(number) * SECONDS[unit] for number, unit in parts))


def _refuse_stray(context: typer.Context) -> None:
    if context.args:
        raise InvalidArgument(NEVER, next="Type it when asked, or use --from-stdin or --from-file FILE.")


def _value(name: str, from_stdin: bool, from_file: Path | None) -> str:
    """The value in base64. One line loses the line break at its end, which files and `echo` add; the rest stays."""
    if from_stdin and from_file is not None:
        raise InvalidArgument("The value comes from stdin or from a file, not from both.", next="Leave one away.")
    if from_file is not None:
        check_regular(from_file, streams=True)
        with from_file.open("rb") as file:
            content = file.read(VALUE_BYTES + 2)
    elif from_stdin:
        content = sys.stdin.buffer.read(VALUE_BYTES + 2)
    else:
        content = _typed(f"Value of {name}").encode()
    if content.count(b"\n") == 1 and content.endswith(b"\n"):
        content = content.removesuffix(b"\n").removesuffix(b"\r")
    if len(content) > VALUE_BYTES:
        raise InvalidArgument(f"The value is over {VALUE_BYTES} bytes.", next="Keep a key to it instead.")
    if len(content) < SHORT:
        screen.note(
            f"{name} has only {len(content)} bytes: a file or a request in which they stand, even by chance, is refused"
            f" wherever that is. {SHORT} bytes or more are hardly met by chance."
        )
    return base64.b64encode(content).decode()


def _passphrase(what: str, file: str = "", descriptor: int | None = None, *, is_new: bool = False) -> str:
    """A passphrase from where the options say, or typed: twice where it is new."""
    if file and descriptor is not None:
        raise InvalidArgument(
            "The passphrase comes from a file or a descriptor, not from both.", next="Leave one away."
        )
    if file or descriptor is not None:
        source: str | int = descriptor if descriptor is not None else 0 if file == "-" else file
        if isinstance(source, str):
            check_regular(Path(source), streams=True)
        with open(source, encoding="utf-8", closefd=source != 0) as opened:
            return opened.read(4096).removesuffix("\n")
    typed = _typed(what)
    if is_new and typed != _typed(f"{what}, once more"):
        raise InvalidArgument("The two are not the same.", next="Type it again.")
    return typed


def _typed(what: str) -> str:
    """What a person types, without showing it."""
    import getpass

    if not sys.stdin.isatty():
        _no_terminal(what)
    return getpass.getpass(f"{what} (it is not shown): ", stream=sys.stderr)


def _no_terminal(what: str) -> NoReturn:
    where = "--passphrase-file FILE" if what.startswith(("Passphrase", "New")) else "--from-stdin or --from-file FILE"
    raise InvalidArgument(f"{what}: there is no terminal to ask on.", next=f"Use {where}.")
