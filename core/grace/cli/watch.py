"""`madlab watch`: what the lab does now, on one screen: runs, what needs a person, money. Lines where no terminal is.

Once a second it asks for the newest runs and for what needs somebody, and draws what fits. Everything that a worker
wrote is shown as text.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.grace.cli import screen
from core.grace.cli.client import Client, Unreachable
from core.grace.cli.life import Json
from core.grace.cli.models import money
from core.grace.cli.runs import place, tell_waiting, took

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

EVERY_S = 1.0
COSTS_EVERY_S = 10.0
RUNS = 100
ATTENTION_LINES = 6
LINES = 12  # of the chosen run
ESCAPE_S = 0.02  # what follows an escape within this time belongs to it
KEYS = {"\x1b[A": "up", "\x1bOA": "up", "k": "up", "\x1b[B": "down", "\x1bOB": "down", "j": "down", "\r": "open"}
KEYS |= {"\n": "open", "q": "quit", "\x1b": "back", "c": "cancel", "y": "yes"}
STYLES = {"succeeded": "green", "partial": "yellow", "cancelled": "dim"}
HELP = "↑↓ choose   enter lines   c cancel   q quit"


def add_to(app: typer.Typer) -> None:
    app.command()(watch)


def watch(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    json: Json = False,
) -> None:
    """Watch the lab live: runs, what needs you, and what it costs. Keys: arrows, enter, c to cancel, q to quit."""
    client = Client.to(context.obj, waiting=tell_waiting)
    seen = Seen(client)
    seen.look()
    if once or json or not (screen.is_lively(sys.stdout) and sys.stdin.isatty()):
        _lines(seen, once=once, json=json)
    else:
        _screen(seen)


@dataclass
class Seen:
    """The lab as it was a moment ago, and what of it is chosen."""

    client: Client
    runs: list[dict[str, Any]] = field(default_factory=list)
    attention: list[dict[str, Any]] = field(default_factory=list)
    today: Mapping[str, Any] = field(default_factory=dict)
    away: str = ""  # why nothing is seen
    chosen: str = ""  # a run
    lines: list[dict[str, Any]] | None = None  # of the chosen run, where they are shown
    asks: str = ""  # a run that is cancelled if y is pressed
    _costs_at: float = 0.0

    def look(self) -> None:
        """Looks again. A core that is away is shown, and no end."""
        try:
            self.runs = self.client.get("/api/v1/runs", limit=RUNS)["runs"]
            self.attention = self.client.get("/api/v1/attention")["items"]
            if time.monotonic() - self._costs_at > COSTS_EVERY_S:
                self._costs_at = time.monotonic()
                self.today = self.client.get("/api/v1/costs", by="day", days=1)["today"] or {}
            if self.lines is not None and self.chosen:
                self.lines = self.client.get(place(self.chosen) + "/logs", limit=1000)["logs"]
            self.away = ""
        except Unreachable as error:
            self.away = error.message
        ids = [each["id"] for each in self.runs]
        if self.chosen not in ids:
            self.chosen, self.lines = (ids[0] if ids else ""), None

    def press(self, key: str) -> bool:
        """Takes a key; False ends it."""
        ids = [each["id"] for each in self.runs]
        asked, self.asks = self.asks, ""
        if key == "yes" and asked:
            self.client.post(place(asked) + "/cancel", {})
        elif key in ("up", "down") and ids:
            at = ids.index(self.chosen) + (1 if key == "down" else -1)
            self.chosen = ids[min(max(at, 0), len(ids) - 1)]
            self.lines = None
        elif key == "open":
            self.lines = [] if self.lines is None else None
        elif key == "back":
            self.lines = None
        elif key == "cancel" and any(each["id"] == self.chosen and not each["outcome"] for each in self.runs):
            self.asks = self.chosen
        return key != "quit"

    @property
    def spent(self) -> str:
        """What models have cost today, and what they may."""
        if not self.today:
            return "no models"
        cap = self.today["cap_usd"]
        of = "" if cap is None else f" of {money(cap)}"
        return f"{money(self.today['spent_usd'])}{of} and {self.today['spent_tokens']:,} tokens today"


def _lines(seen: Seen, *, once: bool, json: bool) -> None:
    """A line for each thing that changes."""
    told: dict[str, str] = {}
    while True:
        if once and json:
            screen.data({"runs": seen.runs, "attention": seen.attention, "costs": seen.today})
            return
        for each in reversed(seen.runs):
            state = each["outcome"] or each["state"]
            if told.get(each["id"]) == state or (each["outcome"] and not told and not once):
                continue
            told[each["id"]] = state
            if json:
                screen.data_line(each)
            else:
                screen.say(f"{screen.clock(time.time())}  {state:<12}  {each['id']}  {_title(each)}")
        if not json:
            now = "; ".join(screen.plain(each["title"]) for each in seen.attention)
            if now and told.get("") != now:
                told[""] = now
                screen.say(f"{screen.clock(time.time())}  needs you     {now}")
        told.setdefault("", "")
        if once:
            return
        time.sleep(EVERY_S)
        seen.look()


def _screen(seen: Seen) -> None:
    from rich.live import Live

    console = screen.console()
    with screen.moving(), _keys() as key, Live(console=console, screen=True, auto_refresh=False) as live:
        going, due = True, 0.0
        while going:
            if time.monotonic() >= due:
                seen.look()
                due = time.monotonic() + EVERY_S
            live.update(picture(seen, console), refresh=True)
            pressed = key(max(due - time.monotonic(), 0.0))
            if pressed:
                going = seen.press(pressed)
                if pressed in ("open", "yes"):
                    due = 0.0


def picture(seen: Seen, console: "Console") -> "RenderableType":
    """Everything, in the lines that there are."""
    from rich.console import Group
    from rich.text import Text

    width, height = console.size
    parts: list[RenderableType] = []
    head = seen.away or f"{sum(not each['outcome'] for each in seen.runs)} runs at work, {seen.spent}"
    parts.append(Text(screen.plain(head)[:width], style="bold red" if seen.away else "bold"))
    needs = [screen.plain(f"! {each['title']}") for each in seen.attention[:ATTENTION_LINES]]
    parts += [Text(each[:width], style="yellow") for each in needs]
    used = len(parts) + 2  # the table's head, and the last line
    below: list[RenderableType] = []
    if seen.lines is not None:
        below = [Text(screen.plain(each["text"])[:width], style="dim") for each in seen.lines[-LINES:]] or [
            Text("It has written nothing yet.", style="dim")
        ]
    room = max(height - used - len(below), 3)
    ids = [each["id"] for each in seen.runs]
    first = max(0, min(ids.index(seen.chosen) - room // 2, len(ids) - room)) if seen.chosen in ids else 0
    parts.append(_table(seen.runs[first : first + room], seen.chosen))
    parts += below
    foot = f"Cancel {seen.asks}? Press y." if seen.asks else HELP
    parts.append(Text(foot[:width], style="bold red" if seen.asks else "dim"))
    return Group(*parts)


def _table(runs: Sequence[Mapping[str, Any]], chosen: str) -> "Table":
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=True)
    for name in ("RUN", "STATE", "TOOK"):
        shown.add_column(name, no_wrap=True)
    shown.add_column("COST", no_wrap=True, justify="right")
    shown.add_column("WHAT", no_wrap=True, ratio=1, overflow="ellipsis")
    for each in runs:
        state = each["outcome"] or each["state"]
        style = STYLES.get(state, "red" if each["outcome"] else "cyan")
        usd = each["cost"].get("usd")
        shown.add_row(
            Text(each["id"]), Text(state, style=style), took(dict(each)), money(usd) if usd else "",
            Text(_title(each)), style="reverse" if each["id"] == chosen else "",
        )  # fmt: skip
    return shown


def _title(run: Mapping[str, Any]) -> str:
    return screen.plain(" ".join(str(run.get("title") or run["reason"] or run["mad"]).split()))


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """What is pressed within some seconds, as a word; "" for nothing, or nothing known. The terminal is put back."""
    import os
    import select
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def key(seconds: float) -> str:
        if not select.select([terminal], [], [], seconds)[0]:
            return ""
        pressed = os.read(terminal, 1)
        while pressed.startswith(b"\x1b") and len(pressed) < 3 and select.select([terminal], [], [], ESCAPE_S)[0]:
            pressed += os.read(terminal, 1)
        return KEYS.get(pressed.decode("ascii", "replace"), "") if pressed else "quit"

    tty.setcbreak(terminal)
    try:
        yield key
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
