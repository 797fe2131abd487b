"""What a person sees: data on stdout, everything else on stderr, and nothing from a worker that drives a terminal."""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

PATIENCE_S = 1.0  # of a person who sees nothing
UNITS = ("B", "kB", "MB", "GB", "TB")


def plain(text: object, *, lines: bool = False) -> str:
    """`text` with each character that would drive a terminal or hide text written as its escape.

    With `lines` it may have several lines; else they are escaped too.
    """
    kept = "\n\t" if lines else ""
    return "".join(
        each if each.isprintable() or each in kept else each.encode("unicode_escape", "surrogatepass").decode()
        for each in str(text)
    )


def say(text: object = "") -> None:
    """One line of data. `text` may come from a worker."""
    print(plain(text, lines=True), flush=True)


def say_on(text: object) -> None:
    """A piece of data: what comes next goes on in its line."""
    _hush()
    print(plain(text, lines=True), end="", flush=True)


def note(text: object) -> None:
    """One line about how it goes, apart from the data."""
    print(plain(text, lines=True), file=sys.stderr, flush=True)


def data(value: Any) -> None:
    """A JSON document."""
    print(json.dumps(value, indent=2), flush=True)


def data_line(value: Any) -> None:
    """One JSON object on one line."""
    print(json.dumps(value), flush=True)


def console(*, error: bool = False) -> "Console":
    """A console that never guesses: no markup, no highlighting, nothing cut off where no terminal is."""
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else 200
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=width)


def is_lively(stream: TextIO) -> bool:
    """Whether somebody looks at a terminal where lines can move."""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


_moving = 0  # places where something moves already
_waiting: tuple[Event, Thread] | None = None  # who tells already that there is something to wait for, and its end


@contextmanager
def moving() -> Iterator[None]:
    """What the body shows moves: nothing else does meanwhile."""
    global _moving
    _moving += 1
    try:
        yield
    finally:
        _moving -= 1


@contextmanager
def patience() -> Iterator[None]:
    """Where a person looks and waits for over a second, says for how long; and takes that back."""
    global _waiting
    if _moving or _waiting or not is_lively(sys.stderr):
        yield
        return
    over = Event()

    def tell() -> None:
        began, shown = time.monotonic(), False
        while not over.wait(PATIENCE_S) and not _moving:
            sys.stderr.write(f"\r… {time.monotonic() - began:.0f} s\x1b[K")
            sys.stderr.flush()
            shown = True
        if shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    teller = Thread(target=tell, daemon=True)
    mine = _waiting = over, teller
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
        if _waiting is mine:  # another thread may have begun to tell of its own
            _waiting = None


def _hush() -> None:
    """Takes back what is told of waiting, before its line is written over what there is to see."""
    if _waiting is not None:
        over, teller = _waiting
        over.set()
        teller.join()


def heed_environment() -> None:
    """What people say of colours, in all the ways they say it, as the two that our libraries know."""
    if os.environ.get("NO_COLOR") or os.environ.get("FORCE_COLOR"):
        return
    if os.environ.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        os.environ["FORCE_COLOR"] = "1"
    elif os.environ.get("CLICOLOR") == "0":
        os.environ["NO_COLOR"] = "1"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, styles: Sequence[str] = ()) -> None:
    """Rows under headings, as wide as the terminal is. `styles` colours whole columns.

    The first column, by which a person names a row to the next command, is never cut; the last one goes on below.
    """
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    cells = [[each if isinstance(each, Text) else Text(plain(each)) for each in row] for row in rows]
    for index, column in enumerate(columns):
        last = index == len(columns) - 1
        shown.add_column(
            column,
            style=styles[index] if styles else "",
            no_wrap=not last,
            overflow="fold" if last else "ellipsis",
            min_width=max((row[0].cell_len for row in cells), default=0) if index == 0 else None,
        )
    for row in cells:
        shown.add_row(*row)
    screen = console()
    with screen.capture() as captured:
        screen.print(shown)
    for line in captured.get().splitlines():
        print(line.rstrip())  # what fills a line up says nothing to a program


def entry(head: str, about: str) -> None:
    """One thing in a list of things that say much: a first line, and below it the rest, both as wide as the terminal.

    Where no terminal is it is one line: a program, or `grep`, reads that.
    """
    if not sys.stdout.isatty():
        say(plain(f"{head}  {about}"))
        return
    from textwrap import wrap

    width = console().width
    for line in wrap(plain(head), width, subsequent_indent="    "):
        say(line)
    for line in wrap(plain(about), width, initial_indent="    ", subsequent_indent="    "):
        say(line)


def size(count: float) -> str:
    """Bytes as a person reads them: 3.2 MB."""
    for unit in UNITS:
        if count < 1000 or unit == UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def span(seconds: float | None) -> str:
    """A time span as a person reads it: 3 min 20 s."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{value} {unit}" for value, unit in [each for each in parts if each[0]][:2])


def ago(at: float | None) -> str:
    """How long ago a moment (seconds since the epoch) was."""
    return "-" if at is None else f"{span(max(time.time() - at, 0))} ago"


def clock(at: float) -> str:
    """A moment as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
