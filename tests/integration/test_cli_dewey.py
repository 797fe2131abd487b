"""`madlab search`, `index`, `archive` and `forget`, as a person types them."""

import hashlib
import time
from collections.abc import Iterator

import pytest

from core.grace.cli.client import Client
from tests.commands import Madlab, a_lab


@pytest.fixture(scope="module")
def madlab() -> Iterator[Madlab]:
    with a_lab() as madlab:
        yield madlab


def spoken(madlab: Madlab, text: str) -> str:
    """Says something and returns its conversation, once it can be found."""
    assert "no_thought_engine" in madlab("say", "echo", text, "--json").err
    client, end = Client(madlab.home), time.monotonic() + 60
    while not (found := client.get("/api/v1/search", q=text, kind="message")["hits"]):
        assert time.monotonic() < end, "it is never found"
        time.sleep(0.05)
    return str(found[0]["conversation"])


def test_what_was_said_is_found_archived_brought_back_and_forgotten(madlab: Madlab) -> None:
    conversation = spoken(madlab, "where is the cassowary")
    shown = madlab("search", "cassowary", "from:operator")
    assert shown.code == 0, shown.err
    assert "operator to echo" in shown.out
    assert "where is the cassowary" in shown.out
    assert "of 1" in shown.err

    made = madlab("archive", "create", conversation)
    assert made.code == 0, made.err
    (archive,) = madlab("archive", "list", "--json").json["archives"]
    assert archive["conversation"] == conversation
    checked = madlab("archive", "verify")
    assert (checked.code, "all as they were" in checked.out) == (0, True)
    assert "archived" in madlab("journal", "verify").out
    assert madlab("search", "cassowary", "--json").json["total"] >= 1
    path = next((madlab.home.path / "archives").iterdir())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == archive["sha256"]
    assert madlab("archive", "restore", conversation).code == 0

    asked = madlab("forget", conversation, stdin="n\n")
    assert asked.code != 0
    assert "cannot be undone" in asked.err
    gone = madlab("forget", conversation, "--yes")
    assert gone.code == 0, gone.err
    assert "The proof is entry" in gone.out
    none = madlab("search", "cassowary")
    assert (none.code, none.out) == (1, "")
    assert madlab("journal", "verify").code == 0


def test_the_index_says_how_it_fares_and_is_made_anew(madlab: Madlab) -> None:
    made = madlab("index", "rebuild")
    assert made.code == 0, made.err
    assert "can be found" in made.out
    status = madlab("index", "status", "--json").json
    assert (status["rebuilding"], status["error"]) == (None, "")
    assert "can be found" in madlab("index", "status").out


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["search", "kind:elephant"], "is none of message, run, finding, act"),
        (["search", "foo:bar"], "the fields are from:"),
        (["search", 'back "word number'], "a quotation mark is never closed"),
        (["search", "***"], "holds no word"),
        (["archive", "create"], "--idle SPAN"),
        (["archive", "create", "--idle", "soon"], "is no span"),
        (["archive", "restore", "nothing"], "is not archived"),
        (["forget", "nothing", "--yes"], "nothing left of conversation"),
    ],
)
def test_mistakes_are_one_sentence_and_the_next_step(madlab: Madlab, command: list[str], sentence: str) -> None:
    ended = madlab(*command)
    assert ended.code == 2
    assert sentence in ended.err
    assert "Traceback" not in ended.err
