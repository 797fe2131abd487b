"""What Marco saw, read as data from strangers: checked, printed, and written to a folder of the person who asked."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.grace.cli import screen
from core.grace.cli.client import Fault
from protos.errors import Exhausted

QUARANTINE = "quarantine"
_UNSAFE = re.compile(r"[^A-Za-z0-9.()+@_-]+")
Text = Annotated[str, Field(max_length=2_000_000)]
Lines = Annotated[list[Text], Field(max_length=10_000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Link(_Part):
    """A link that a person could see."""

    text: Text
    url: Text


class Table(_Part):
    """A table of data."""

    caption: Text
    rows: list[Lines]


class Page(_Part):
    """A page as it was seen."""

    url: Text
    address: Text
    title: Text
    status: int
    markdown: Text
    links: list[Link]
    tables: list[Table]
    outline: Text
    values: Lines
    dialogs: Lines
    windows: Lines
    refused: Lines
    requests: int
    hidden: int
    notes: Lines
    files: Lines
    problem: Text


class Download(_Part):
    """A file in quarantine."""

    url: Text
    name: Text
    size: int
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    media_type: Text


class Quote(_Part):
    """Words that stand on a page."""

    text: Text
    url: Text


class Browsed(_Part):
    """All of it."""

    outcome: Text
    reason: Text
    pages: Annotated[list[Page], Field(max_length=100)]
    downloads: Annotated[list[Download], Field(max_length=100)]
    answer: Text
    quotes: Annotated[list[Quote], Field(max_length=100)]
    unfounded: int
    model: Text


def parse(content: Any, run: str) -> Browsed:
    """
    Raises:
        Fault: it is not what Marco says.
    """
    try:
        return Browsed.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"])
        said = f"the run {run} left a result that is none: {place}: {first['msg']}"
        raise Fault("no_result", said, next=f"see: madlab show {run}") from None


def show(found: Browsed) -> None:
    """Prints the answer where there is one, else the pages; what else there is to know goes to stderr."""
    if found.answer:
        screen.say(found.answer)
        for quote in found.quotes:
            screen.say(f"\n> {screen.plain(quote.text)}\n> — {screen.plain(quote.url)}")
    else:
        for page in found.pages:
            if not page.problem:
                screen.say(f"<{screen.plain(page.address)}>  {screen.plain(page.title)}\n\n{page.markdown}")
    for line in notes(found):
        screen.note(line)


def notes(found: Browsed) -> Iterator[str]:
    """What a person should know beside what was read."""
    for page in found.pages:
        name = screen.plain(page.url)
        if page.problem:
            yield f"{name}: {screen.plain(page.problem)}"
        if page.status >= 400:
            yield f"{name}: the server answered {page.status}."
        if page.refused:
            yield f"{name}: {len(page.refused)} of its {page.requests} requests were refused; see --json."
        if page.hidden:
            yield f"{name}: {page.hidden:,} characters that nobody can see were left out."
        for line in (*page.notes, *(f"it said in a window: {each}" for each in page.dialogs)):
            yield f"{name}: {screen.plain(line)}"
    for each in found.downloads:
        yield f"In quarantine: {screen.plain(each.name)}, {screen.size(each.size)}, {each.digest}"
    if found.unfounded:
        yield f"{found.unfounded} quotes of the model stand on no page, and were dropped."
    if found.answer and not found.quotes:
        yield "No quote founds the answer: do not rely on it."
    if found.reason and not any(page.problem for page in found.pages):
        yield screen.plain(found.reason)


def place_of(folder: Path, name: str, number: int) -> Path:
    """Where a download goes, whatever it is called: below the quarantine, and each somewhere else."""
    safe = _UNSAFE.sub("_", name).strip("._")[:100] or "file"
    return folder / QUARANTINE / f"{number}-{safe}"


def create(path: Path) -> int:
    """A descriptor of a new or emptied file that only its owner may read, and that cannot be run.

    Raises:
        Exhausted: it cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Exhausted(f"{path} cannot be written: {error.strerror}", next="name another folder") from None
