"""What a coding run does, as it does it, on stderr: a line for each thing that happened, and below it how it stands.

Where a person looks the last line moves; where a log is written there are only the lines. What a worker says is data:
shown on one line, escaped and cut.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from core.grace.cli import screen
from core.grace.cli.models import money
from core.grace.cli.patches import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

LINE = 200  # characters of one thing that is told
PLAN_LINES = 12
STAGES = {"before": "the untouched tree", "plan": "planner", "review": "reviewer"}


class Live:
    """Tells what comes, line by line."""

    def __init__(self) -> None:
        self._spent: dict[str, tuple[float, float]] = {}  # tokens and dollars of each conversation, as it last said
        self._started = time.monotonic()
        self._talks: list[str] = []

    def hear(self, line: Mapping[str, Any]) -> None:
        """Takes one line of a run's log."""
        fields = line["data"] if isinstance(line["data"], Mapping) else {}
        what, talk = fields.get("what"), str(line["conversation"])
        if line["tool"] == "progress" and what == "model":
            self._spend(talk, fields)
        told = _told(what if line["tool"] == "progress" else "log", str(line["text"]), fields)
        if told is None:
            return
        sign, text, style = told
        who = self._who(talk)
        for number, each in enumerate(text.strip().split("\n")[:PLAN_LINES]):
            lead = f"{sign:<8}" if number == 0 else " " * 8
            self.show(f"{lead}{who}{_cut(each)}", style)

    def show(self, text: str, style: str = "") -> None:
        """One line that stays."""
        screen.note(text)

    @property
    def spent(self) -> str:
        """Tokens and money so far."""
        tokens, usd = (sum(each[place] for each in self._spent.values()) for place in (0, 1))
        return f"{tokens:,.0f} tokens" + (f", {money(usd)}" if usd else "")

    @property
    def took(self) -> str:
        """Since it is watched."""
        return screen.span(time.monotonic() - self._started)

    def _spend(self, talk: str, fields: Mapping[str, Any]) -> None:
        tokens, usd = fields.get("tokens"), fields.get("usd")
        if isinstance(tokens, (int, float)) and isinstance(usd, (int, float)):
            self._spent[talk] = tokens, usd

    def _who(self, talk: str) -> str:
        """Whose line it is, where several are at work: the last part of the conversation's name."""
        name = talk.rpartition("/")[2]
        if name.endswith((".proof", ".original")):
            return "in the clean room: "
        if name in STAGES:
            return f"{STAGES[name]}: "
        if name.isdigit() and name not in self._talks:
            self._talks.append(name)
        return f"[{name}] " if name.isdigit() and len(self._talks) > 1 else ""


class _Moving(Live):
    """The same on a terminal, with a last line that moves: how long, how much, and what is seen just now."""

    def __init__(self, console: "Console") -> None:
        super().__init__()
        self._console = console
        self._seen = ""

    def __rich__(self) -> "Text":
        from rich.text import Text

        standing = f"{self.took}, {self.spent}" + (f"  {self._seen}" if self._seen else "")
        return Text(screen.plain(standing)[: max(self._console.width - 4, 20)], style="dim")

    def hear(self, line: Mapping[str, Any]) -> None:
        super().hear(line)
        self.look(str(line["text"]))

    def show(self, text: str, style: str = "") -> None:
        from rich.text import Text

        if not text.startswith("model"):  # each step of it moves the last line
            self._console.print(Text(screen.plain(text), style=style), soft_wrap=True)

    def look(self, text: str) -> None:
        self._seen = _cut(text.strip().rsplit("\n", 1)[-1])


@contextmanager
def live() -> Iterator[Live]:
    """Whatever fits the place that stderr leads to."""
    if not sys.stderr.isatty():
        yield Live()
        return
    console = screen.console(error=True)
    moving = _Moving(console)
    with screen.moving(), console.status(moving, spinner="dots"):
        yield moving


def _told(what: object, text: str, fields: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """How something that happened is told: a word, a text, and a style; None where it is only looked at."""
    match what:
        case "output":
            return None
        case "command" if "exit_code" not in fields:
            return None
        case "command":
            code, seconds = fields["exit_code"], fields.get("seconds")
            took = f" in {screen.span(seconds)}" if isinstance(seconds, (int, float)) else ""
            ended = "" if code == 0 else f", exit code {code}"
            return "run", f"{fields.get('command') or text}{took}{ended}", "" if code == 0 else "yellow"
        case "tests":
            return "tests", text, "green" if fields.get("passed") else "red"
        case "plan" | "edit" | "remark" | "model":
            state = f"{_how_far(fields)}: " if what == "remark" else ""
            return what, f"{state}{text}", {"edit": "cyan", "model": "dim"}.get(what, "bold")
        case "note" | "log":
            return what, text, "dim"
    return "note", text, "dim"


def _how_far(remark: Mapping[str, Any]) -> str:
    """How far a remark has come."""
    state, note = str(remark.get("state", "")).replace("_", " "), str(remark.get("note") or "")
    return f"{state}, and {_cut(note)}" if note else state


def _cut(text: str) -> str:
    text = text.strip()
    return text if len(text) <= LINE else text[: LINE - 1] + "…"


def summary(files: int, added: int, removed: int) -> str:
    """A patch in numbers."""
    return f"{counted(files, 'file')}, +{added:,} -{removed:,}"
