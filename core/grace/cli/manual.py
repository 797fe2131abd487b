"""The help of every command: which panel it stands in, and lines that work as they stand. One table for all of them."""

import typer

PANELS: dict[str, tuple[str, ...]] = {
    "The lab": ("up", "down", "status", "watch", "open", "doctor", "support-bundle", "completion"),
    "Work": ("code", "resume", "steer", "apply", "scan", "browse", "chart", "dispatch"),
    "Talk": ("ask", "panel", "say", "call", "tools", "history", "search", "forget", "archive", "index"),
    "Runs": ("runs", "show", "logs", "cancel"),
    "Models and money": ("models", "costs", "model", "provider"),
    "Who may do what": ("approvals", "approve", "deny", "policy", "secret", "client", "sessions"),
    "The record": ("audit", "incidents", "journal", "advisories"),
    "Others": ("mcp",),
}
EXAMPLES: dict[str, tuple[str, ...]] = {
    "up": ("madlab up", "madlab --home ./lab up --foreground"),
    "down": ("madlab down", "madlab down --keep-runs"),
    "status": ("madlab status", "madlab status --json | jq .runs"),
    "watch": ("madlab watch", "madlab watch --once", "madlab watch --json | jq .id"),
    "open": ("madlab open", "madlab open --print"),
    "doctor": ("madlab doctor", "madlab doctor --json"),
    "support-bundle": ("madlab support-bundle", "madlab support-bundle --out help.tar.gz"),
    "code": ('madlab code "make the tests pass"', 'madlab code "add a --json flag" --test "pytest -q" --budget 0.50'),
    "forget": ("madlab forget CONVERSATION",),
    "resume": ("madlab resume foreman-1a2b3c4d5e --budget 1",),
    "steer": ('madlab steer foreman-1a2b3c4d5e "leave the parser alone"',),
    "apply": ("madlab apply foreman-1a2b3c4d5e",),
    "scan": ("madlab scan .", "madlab scan app.whl --format sarif --out app.sarif", "madlab scan . --fail-on high"),
    "browse": ("madlab browse https://example.org",),
    "chart": ('madlab chart sales.csv "revenue by month"',),
    "dispatch": (
        "madlab dispatch nightly.toml",
        "madlab dispatch nightly.toml --check",
        "madlab dispatch nightly.toml --round 2026-11-22",
    ),
    "ask": ('madlab ask "what is a monad?"', "madlab ask - < question.txt"),
    "panel": ('madlab panel "is this safe?" --models local,coder',),
    "say": ('madlab say MAD "what have you found so far?"',),
    "call": ("madlab call dewey.status", """madlab call dewey.search '{"query": "timeout"}'"""),
    "tools": ("madlab tools", "madlab tools hopper"),
    "history": ("madlab history CONVERSATION", "madlab history CONVERSATION -f"),
    "search": ('madlab search "timeout in the parser"',),
    "runs": ("madlab runs", "madlab runs --mad mcnamara --top", "madlab runs --limit 5 --json"),
    "show": ("madlab show foreman-1a2b3c4d5e",),
    "logs": ("madlab logs foreman-1a2b3c4d5e -f",),
    "cancel": ("madlab cancel foreman-1a2b3c4d5e",),
    "models": ("madlab models",),
    "costs": ("madlab costs", "madlab costs --by run"),
    "approvals": ("madlab approvals", "madlab approvals -f"),
    "approve": ("madlab approve 3f9a1c", "madlab approve 3f9a1c --uses 3"),
    "deny": ("madlab deny 3f9a1c",),
    "audit": ("madlab audit --since 2h", "madlab audit --principal run:marco-1a2b3c4d5e"),
    "incidents": ("madlab incidents",),
    "mcp": ("claude mcp add madlab -- madlab mcp",),
}  # fmt: skip
NOTES = {
    "say": "For MADs that read prose, as one of your own may. Those that come with the lab take calls: madlab call.",
    "panel": "A panel needs two models. A lab begins with one, local; madlab provider add brings more.",
    "dispatch": """
The file: [batch] with name, at_once = 4, usd (of all jobs together); and a [jobs.NAME] for each job, which is one of
call = "MAD.TOOL" with arguments = {…}; scan = "PATH"; code = "PATH" with goal, test, model, agent. Each may have
after = ["NAME"], usd, tokens and seconds. Paths are beside the file.
""",
}


def add_to(app: typer.Typer) -> None:
    """Gives every command that is in `app` its panel and its examples."""
    panels = {name: panel for panel, names in PANELS.items() for name in names}
    for each in app.registered_commands:
        name = _called(each)
        each.rich_help_panel = panels.get(name)
        examples = "\n".join(f"  $ {line}" for line in EXAMPLES.get(name, ()))
        more = f"{' '.join(NOTES[name].split())}\n\n" if name in NOTES else ""
        each.epilog = f"{more}Examples:\n{examples}".replace("[", "\\[") if examples else None
    for group in app.registered_groups:
        name = group.name or (group.typer_instance.info.name if group.typer_instance else "") or ""
        group.rich_help_panel = panels.get(name)
    places = {name: place for place, name in enumerate(panels)}
    app.registered_commands.sort(key=lambda each: places.get(_called(each), len(places)))


def _called(command: "typer.models.CommandInfo") -> str:
    return command.name or (command.callback.__name__.replace("_", "-") if command.callback else "")
