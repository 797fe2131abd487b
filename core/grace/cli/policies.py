"""The policy, for people: `policy show`, `check`, `explain`, `backtest`, `reload`."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from core.grace.cli import screen
from core.grace.cli.client import Client
from core.grace.cli.files import check_regular
from core.grace.cli.life import Json
from protos.errors import InvalidArgument

NO = 1
PLACES = ("hosts", "targets")  # where a rule says what it is about


def add_to(app: typer.Typer) -> None:
    policy = typer.Typer(help="Who may do what, and why.", no_args_is_help=True)
    policy.command()(show)
    policy.command()(check)
    policy.command()(explain)
    policy.command()(backtest)
    policy.command()(reload)
    app.add_typer(policy, name="policy")


def show(context: typer.Context, json: Json = False) -> None:
    """Show the rules that hold, in the order in which they are read. The first that matches decides."""
    found = Client.to(context.obj).get("/api/v1/policy")
    if json:
        screen.data(found)
        return
    screen.table(
        ("RULE", "VERDICT", "KINDS", "PRINCIPALS", "WHERE", "MORE", "FILE"),
        [
            (
                each["name"],
                each["verdict"],
                ", ".join(each["kinds"]),
                ", ".join(each["principals"]),
                ", ".join(place for name in PLACES for place in each.get(name, ())) or "*",
                _more(each),
                each["file"],
            )
            for each in found["rules"]
        ],
    )
    labels = ", ".join(f"{label}: {verdict}" for label, verdict in found["taint"].items())
    screen.note("What no rule allows is denied. What leaves the lab needs besides, by where it has been: " + labels)
    screen.note(f"Version {found['version']}, {found['digest']}, since {screen.clock(found['since'])}.")


def check(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="web.fetch, secret.use, llm.complete, bus.call …")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="An address, a secret, an alias, MAD.TOOL.")],
    principal: Annotated[
        list[str], typer.Option("--as", metavar="PRINCIPAL", help="mad:NAME or NAME, run:ID, client:NAME, operator.")
    ],
    method: Annotated[str, typer.Option(metavar="METHOD", help="Of a request.")] = "",
    effects: Annotated[str, typer.Option(metavar="EFFECTS", help="Of a tool: read, write, outward.")] = "",
    size: Annotated[int, typer.Option("--bytes", min=0, metavar="N", help="Of a request's body.")] = 0,
    taint: Annotated[list[str] | None, typer.Option(metavar="LABEL", help="worker, file, web.")] = None,
    json: Json = False,
) -> None:
    """Say what the policy says of one act, without doing it. Exits with 0 only where it is allowed."""
    usual = "GET" if kind == "web.fetch" else ""
    details = {"method": method or usual, "effects": effects, "bytes": size}
    act: dict[str, object] = {"kind": kind, "target": target, "principals": principal, "taint": taint or []}
    act["details"] = {name: value for name, value in details.items() if value}
    found = Client.to(context.obj).post("/api/v1/policy/check", act)
    if json:
        screen.data(found)
    else:
        screen.say(f"{found['verdict']}  {_by(found)}: {found['reason']}")
        if found["next"]:
            screen.say(f"  {found['next']}")
        if found["limits"]:
            screen.say(f"  {_limits(found['limits'])}")
    raise typer.Exit(0 if found["verdict"] == "allow" else NO)


def explain(
    context: typer.Context,
    act: Annotated[str, typer.Argument(metavar="ACT", help="An act's id, as a denial and `madlab audit` show it.")],
    json: Json = False,
) -> None:
    """Tell which rule decided about an act, and what would be needed for another decision."""
    found: dict[str, Any] = Client.to(context.obj).get("/api/v1/policy/explain/" + quote(act, safe=""))
    if json:
        screen.data(found)
        return
    line, rule, now = found["act"], found["rule"], found["now"]
    screen.say(f"{line['principal']}  {line['act']} {line['target']}")
    screen.say(f"  at       {screen.clock(line['at'])}")
    screen.say(f"  outcome  {line['outcome'] or 'not over'}")
    screen.say(f"  rule     {line['rule'] or '-'}{': ' + line['reason'] if line['reason'] else ''}")
    if line["taint"]:
        screen.say(f"  taint    {', '.join(line['taint'])}")
    if rule:
        screen.say(f"  stands   in {rule['file']}: {rule['verdict']} {_more(rule)}".rstrip())
    if why := line["details"].get("why"):
        address = line["details"].get("address")
        screen.say(f"  why      {why}{f' ({address})' if address else ''}")
    if found["next"]:
        screen.say(f"  needed   {found['next']}")
    if now:
        screen.say(f"  today    {now['verdict']}, {_by(now)}: {now['reason']}")
    if found["suggestion"]:
        screen.say(f"\n{suggested(found)}")


def suggested(explained: dict[str, Any]) -> str:
    """The rule that would allow an act, with where to put it and how to try it."""
    return (
        f"The narrowest rule that would allow it, for the top of {explained['place']}. Try it first, in a copy of that"
        " file: madlab policy backtest COPY. Where it stands in the file itself: madlab policy reload\n\n"
        f"{explained['suggestion']}"
    )


def backtest(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="NEW.toml", help="A policy file; the built-in rules stay behind it.")],
    days: Annotated[float | None, typer.Option(min=0.01, metavar="N", help="Of the last N days; else 30.")] = None,
    json: Json = False,
) -> None:
    """Decide about recorded acts again, under another policy: what would be newly allowed, asked and blocked."""
    check_regular(path, streams=True)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidArgument(f"{path}: it is no UTF-8", next="mend the file and try again") from None
    body = {"text": text, "name": str(path)[-255:], "days": days}
    found = Client.to(context.obj).post("/api/v1/policy/backtest", body)
    if json:
        screen.data(found)
        return
    if found["groups"]:
        screen.table(
            ("CHANGE", "ACTS", "KIND", "PRINCIPAL", "WHERE", "RULE THEN", "RULE NOW", "FOR EXAMPLE"),
            [
                (
                    *(each["change"], each["count"], each["kind"], each["principal"], each["where"] or "-"),
                    *(each["before"], each["after"], each["example"]),
                )
                for each in found["groups"]
            ],
        )
    same = "all of them as they were" if not found["groups"] else f"{found['same']:,} of them as they were"
    screen.note(f"{found['acts']:,} acts since {screen.clock(found['since'])} were decided about again, {same}.")


def reload(context: typer.Context, json: Json = False) -> None:
    """Have the running lab read its policy files again. Where one is wrong, the rules stay as they were."""
    found = Client.to(context.obj).post("/api/v1/policy/reload", {})
    if json:
        screen.data(found)
    else:
        screen.say(f"Version {found['version']} holds: {found['rules']} rules, {found['digest']}")


def _by(decision: dict[str, Any]) -> str:
    where = f" ({decision['file']})" if decision["file"] else ""
    return f"rule {decision['rule']}{where}"


def _more(rule: dict[str, Any]) -> str:
    """What else a rule asks about, and what it sets."""
    shown = {"name", "kinds", "principals", "verdict", "reason", "file", "limits", *PLACES}
    parts = [f"{name} {', '.join(map(str, value))}" for name, value in rule.items() if name not in shown]
    return "; ".join([*parts, *([_limits(rule["limits"])] if rule.get("limits") else [])])


def _limits(limits: dict[str, Any]) -> str:
    said = {
        "bytes_up": f"up to {screen.size(limits.get('bytes_up', 0))} up",
        "bytes_down": f"up to {screen.size(limits.get('bytes_down', 0))} down",
        "requests_per_minute": f"{limits.get('requests_per_minute')} requests a minute",
        "seconds": f"{limits.get('seconds', 0):g} s each",
        "addresses": f"also the addresses {', '.join(limits.get('addresses', ()))}",
        "packages": "a package index",
    }
    return ", ".join(said[name] for name, value in limits.items() if value not in (False, [], ()))
