"""Tickets for people who wait."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

DESKS = ("red", "green", "blue")


@dataclass(frozen=True)
class Ticket:
    number: int
    desk: str


def draw(place: Path | None = None) -> Ticket:
    """The next ticket. The counter goes on where it was."""
    counter = (place or Path(tempfile.gettempdir())) / "tickets.counter"
    number = int(counter.read_text()) + 1 if counter.exists() else 0
    counter.write_text(str(number))
    return Ticket(number, DESKS[number % 3 + 1])
