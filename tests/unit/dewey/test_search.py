"""What is found, in which order, with which piece of it: a small set of documents, and questions with known answers."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from core.dewey import index
from core.dewey.documents import ACT, FINDING, RUN, WEIGHTS
from core.dewey.index import Document, Gone, Place
from core.dewey.query import key, parse, within
from core.dewey.search import Found, find
from core.dewey.snippet import snippet
from core.dewey.words import term_of
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, KIND_REPLY

CALL, REPLY, PROSE = (WEIGHTS[each] for each in (KIND_CALL, KIND_REPLY, KIND_PROSE))
NOW = 1_795_000_000.0
DAY_S = 86_400.0

JAPANESE = "\u7814\u7a76\u6240\u306e\u65b0\u3057\u3044\u5b9f\u9a13\u306f\u6210\u529f\u3057\u305f"
GREEK = "\u0395\u03c0\u03b9\u03c3\u03c4\u03ae\u03bc\u03b7 \u03ba\u03b1\u03b9 \u03c4\u03ad\u03c7\u03bd\u03b7"

SAID = {  # id: title, text, weight, days ago
    "asks": ("hopper.code", "goal: find out why the nightly build fails on the cache step", CALL, 3),
    "answers": ("hopper.code", "The nightly build fails because the cache key holds the date.", REPLY, 3),
    "mentions": ("", "Unrelated, but before we go on: the build, which somebody said fails, was nightly once; the rest"
                 " of this long remark is about lunch, the weather, chairs, and who may book the room on Fridays, which"
                 " has nothing to do with any cache step at all.", PROSE, 2),
    "old": ("", "deploy to staging is done", REPLY, 400),
    "new": ("", "deploy to staging is done", REPLY, 1),
    "run": ("hopper: rotate the signing keys", "succeeded\nrotate the signing keys", RUN, 5),
    "act": ("bus.call hopper.code", "arguments: rotate the signing keys", ACT, 5),
    "finding": ("high sql-injection shop/db.py:42", "Built from user input. CWE-89 CVE-2024-1234", FINDING, 9),
    "code": ("", "In core/dewey/app_store.py the function getUserName calls read_all() twice.", PROSE, 9),
    "apart": ("", "The store is closed. An app was read by all users, and its name is not known.", PROSE, 1),
    "french": ("", "Le caf\u00e9 pr\u00e8s de la m\u00e9diath\u00e8que", PROSE, 9),
    "japanese": ("", JAPANESE, PROSE, 9),
    "korean": ("", "\uc2e4\ud5d8\uc2e4\uc5d0\uc11c \uacb0\uacfc\ub97c \ubcf4\uc558\ub2e4", PROSE, 9),
    "greek": ("", GREEK, PROSE, 9),
}  # fmt: skip

JUDGED = [  # a query, and what must come first, in this order
    ("nightly build fails cache", ["answers"]),
    ('"nightly build fails"', ["answers"]),
    ("deploy staging", ["new", "old"]),
    ("rotate signing keys", ["run", "act"]),
    ("app_store", ["code"]),
    ("core/dewey/app_store.py", ["code"]),
    ("app store", ["code", "apart"]),
    ("getusername", ["code"]),
    ("getUserName", ["code"]),
    ('"user name"', ["code"]),
    ("CVE-2024-1234", ["finding"]),
    ("cve-2024", ["finding"]),
    ("sql-inj*", ["finding"]),
    ("shop/db.py", ["finding"]),
    ("cafe mediatheque", ["french"]),
    ("CAF\u00c9", ["french"]),
    ("\u5b9f\u9a13", ["japanese"]),
    ("\u65b0\u3057\u3044\u5b9f\u9a13", ["japanese"]),
    ("\u7814", ["japanese"]),
    ("\uacb0\uacfc", ["korean"]),
    ("\u03b5\u03c0\u03b9\u03c3\u03c4\u03b7\u03bc\u03b7", ["greek"]),
    ("build -cache", []),
    ("staging before:300d", ["old"]),
    ("staging after:30d", ["new"]),
    ("lunch OR mediatheque", ["french", "mentions"]),
    ("rotate kind:run", ["run"]),
    ("signing from:hopper", ["run", "act"]),
]


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    with closing(index.open_index(tmp_path_factory.mktemp("dewey") / "dewey.db")) as db:
        kinds = {"run": "run", "act": "act", "finding": "finding"}
        documents = [
            Document(kinds.get(id, "message"), id, at, "message", NOW - days * DAY_S, title, text,
                     conversation=f"c{at}", sender="hopper", weight=weight)
            for at, (id, (title, text, weight, days)) in enumerate(SAID.items(), 1)
        ]  # fmt: skip
        index.take_in(db, documents, Place(len(documents)))
        yield db


def found(db: sqlite3.Connection, text: str, **more: str) -> Found:
    return find(db, parse(text, now=lambda: NOW), limit=20, now=NOW, **more)


@pytest.mark.parametrize(("text", "best"), JUDGED)
def test_the_best_is_first(db: sqlite3.Connection, text: str, best: list[str]) -> None:
    assert [each.id for each in found(db, text).hits][: len(best) or 1] == best


def test_filters_alone_give_the_newest_first(db: sqlite3.Connection) -> None:
    hits = found(db, "from:hopper").hits
    assert [each.at for each in hits] == sorted((each.at for each in hits), reverse=True)
    assert len(hits) == len(SAID)


def test_what_may_not_be_seen_is_not_even_counted(db: sqlite3.Connection) -> None:
    query = within(parse("staging OR nightly"), [key("conversation", "c5")])
    seen = find(db, query, limit=20, now=NOW)
    assert [each.id for each in seen.hits] == ["new"]
    assert seen.total == 1
    assert seen.counts["sender"] == {"hopper": 1}


def test_ranks_tell_nothing_of_what_may_not_be_seen(tmp_path: Path) -> None:
    mine = [
        Document("message", f"m{at}", at, "message", NOW, "", text, conversation="a")
        for at, text in enumerate(("the heron and a merger", "heron heron merger", "a merger, a merger"), 1)
    ]
    theirs = [Document("message", f"t{at}", at, "message", NOW, "", "merger", conversation="b") for at in range(4, 40)]
    told = []
    for name, documents in (("alone", mine), ("among", mine + theirs)):
        with closing(index.open_index(tmp_path / f"{name}.db")) as db:
            index.take_in(db, documents, Place(99))
            for text in ("heron merger", "heron OR merger", "merger"):
                query = within(parse(text, now=lambda: NOW), [key("conversation", "a")])
                told.append((name, text, [(each.id, each.rank) for each in find(db, query, limit=20, now=NOW).hits]))
    assert [each[1:] for each in told[:3]] == [each[1:] for each in told[3:]]
    assert all(each[2] for each in told)


def test_nothing_that_a_key_is_made_of_is_found_as_a_word(db: sqlite3.Connection) -> None:
    assert found(db, key("from", "hopper")).hits == []


def test_a_document_takes_the_place_of_its_former_self_and_leaves_nothing_when_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "dewey.db"
    with closing(index.open_index(path)) as db:
        first = Document("run", "r", 1, "run", NOW, "before", "quokka", conversation="c/1")
        index.take_in(
            db, [first, Document("message", "m", 2, "message", NOW, "", "wombat", conversation="d")], Place(2)
        )
        index.take_in(db, [Document("run", "r", 3, "run", NOW, "after", "numbat", conversation="c/1")], Place(3))
        assert found(db, "quokka").hits == []
        assert [each.title for each in found(db, "numbat").hits] == ["after"]
        index.take_in(db, [Gone(9, conversation="c")], Place(9))
        assert found(db, "numbat").hits == []
        assert found(db, "wombat").total == 1
        while index.unpacked(db):
            index.pack(db)
    for each in tmp_path.iterdir():
        assert b"numbat" not in each.read_bytes()
        assert b"quokka" not in each.read_bytes()


def test_pages_are_whole_over_several_parts_and_pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.dewey.index.PART_BITS", 4)
    monkeypatch.setattr("core.dewey.search.PART_BITS", 4)
    monkeypatch.setattr("core.dewey.search.POOL", 10)
    with closing(index.open_index(tmp_path / "dewey.db")) as db:
        documents = [Document("message", f"m{at}", at, "message", NOW, "", f"emu {at}") for at in range(1, 100)]
        index.take_in(db, documents, Place(99))
        assert len(index.parts(db)) == 7
        met, more = [], ""
        while True:
            page = find(db, parse("emu"), limit=4, more=more, now=NOW)
            met += [each.id for each in page.hits]
            more = page.more
            if not more:
                break
        assert sorted(met) == sorted(each.ref for each in documents)
        index.take_in(db, [Gone(40, source="message")], Place(100))
        assert find(db, parse("emu"), limit=4, now=NOW).total == 10
        assert len(index.parts(db)) < 7, "an empty part is dropped"


def test_a_file_that_is_no_index_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "dewey.db"
    path.write_bytes(b"no database" * 1000)
    with closing(index.open_index(path)) as db:
        assert index.reached(db).sequence == 0


def test_a_snippet_shows_the_place_without_markup() -> None:
    text = "x " * 200 + "the <b>needle</b> and\nthe thread " + "y " * 200
    shown = snippet(text, tuple(filter(None, (term_of("needle"), term_of("thr*", prefix=True)))))
    assert shown[0] == ("…", False)
    assert [part for part, marked in shown if marked] == ["needle", "thread"]
    assert ("</b> and the ", False) in shown
    assert len("".join(part for part, _ in shown)) < 260
    assert "".join(part for part, _ in snippet("\u7814\u7a76\u6240", ())) == "\u7814\u7a76\u6240"
