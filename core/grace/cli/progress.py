"""How far the work is, on stderr: a bar where a person looks, a line for each new step where a log is written."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from core.grace.cli import screen


class Progress:
    """Shows one thing at a time."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def show(self, what: str, done: float = 0, total: float | None = None) -> None:
        """`what` is being done, so much of so much."""
        if what not in self._told:
            screen.note(what)
            self._told.add(what)

    def through(self, chunks: Iterable[bytes], what: str, size: int) -> Iterator[bytes]:
        """The chunks as they are, with what has passed shown."""
        passed = 0
        self.show(what, 0, size)
        for chunk in chunks:
            yield chunk
            passed += len(chunk)
            self.show(what, passed, max(size, passed))


class _Bar(Progress):
    """The same with a bar that moves."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Rich

        text = TextColumn("{task.description}", markup=False)
        columns = (SpinnerColumn(), text, BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self.rich = Rich(*columns, console=screen.console(error=True), transient=True)
        self._task = self.rich.add_task("", total=None)

    def show(self, what: str, done: float = 0, total: float | None = None) -> None:
        self.rich.update(self._task, description=screen.plain(what), completed=done, total=total)


@contextmanager
def progress() -> Iterator[Progress]:
    """Whatever fits the place that stderr leads to."""
    if not sys.stderr.isatty():
        yield Progress()
        return
    bar = _Bar()
    with screen.moving(), bar.rich:
        yield bar
