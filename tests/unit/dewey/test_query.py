"""Everything that a person types means something, or is refused in one sentence, and FTS5 can read it."""

import random
import sqlite3
from contextlib import closing

import pytest

from core.dewey.query import EXAMPLE, FIELDS, Query, key, parse
from core.dewey.words import Term
from protos.errors import InvalidArgument

NOW = 1_795_000_000.0


def asked(text: str) -> Query:
    return parse(text, now=lambda: NOW)


def test_words_phrases_beginnings_and_choices_are_told_apart() -> None:
    query = asked('red "green blue" bro* this OR that')
    assert query.groups == (
        (Term(("red",)),),
        (Term(("green", "blue")),),
        (Term(("bro",), prefix=True),),
        (Term(("this",)), Term(("that",))),
    )


def test_fields_become_keys_and_several_values_mean_any() -> None:
    query = asked("kind:runs from:ann from:ben -to:eve #Release word")
    assert key("kind", "run") in query.match
    assert f'"{key("from", "ann")}" OR "{key("from", "ben")}"' in query.match
    assert f'NOT (keys : "{key("to", "eve")}")' in query.match
    assert key("tag", "release") in query.match
    assert query.terms == (Term(("word",)),)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("https://example.org/a", [("https", "example", "org", "a")]),
        ("std::vector", [("std", "vector")]),
        ("std::map", [("std", "map")]),
        ("localhost:8080", [("localhost", "8080")]),
        ('"foo:bar"', [("foo", "bar")]),
        ("foo: bar", [("foo",), ("bar",)]),
        ("core/app.py", [("core", "app", "py")]),
        ("snake_case", [("snake", "case")]),
        ("CVE-2024-1234", [("cve", "2024", "1234")]),
        ("getUserName", [("getusername",)]),
        ("Crème brûlée", [("creme",), ("brulee",)]),
        ("\u7814\u7a76\u6240", [("\u7814\u7a76", "\u7a76\u6240")]),
        ("a AND b", [("a",), ("b",)]),
        ("x OR", [("x",)]),
        ("*** word ***", [("word",)]),
    ],
)
def test_what_looks_like_syntax_and_is_none_is_words(text: str, terms: list[tuple[str, ...]]) -> None:
    assert [each.words for each in asked(text).terms] == terms


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("after:2026-11-22", 1_795_305_600.0),
        ("after:2026-11-22T01:00+01:00", 1_795_305_600.0),
        ("after:2h", NOW - 7200),
        ("after:2026", 1_767_225_600.0),
        ("after:1795305600", 1_795_305_600.0),
        ("-before:2026-11-22", 1_795_305_600.0),
    ],
)
def test_times_are_days_moments_and_spans(text: str, since: float) -> None:
    assert asked(text).since == since


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("before:soon", "is no time"),
        ("kind:elephant", "is none of message, run, finding, act"),
        ("foo:bar", "there is no field 'foo'"),
        ("word -foo:bar", "there is no field 'foo'"),
        ('foo:"bar baz"', "there is no field 'foo'"),
        ('word "unclosed phrase', 'a quotation mark is never closed: "unclosed phrase'),
        ('from:"ann', "a quotation mark is never closed"),
        ("***", "holds no word"),
        ("x " * 40, "32 may be"),
        ("x" * 1001, "it may have 1,000"),
    ],
)
def test_what_means_nothing_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=sentence) as refused:
        asked(text)
    assert refused.value.next


def test_who_names_a_field_that_is_none_is_told_the_fields_and_how_to_say_it_as_words() -> None:
    with pytest.raises(InvalidArgument) as refused:
        asked("form:ann")
    assert all(f"{each}:" in refused.value.next for each in FIELDS)
    assert '"form:ann"' in refused.value.next
    assert asked(EXAMPLE).match, "the example is one"


def test_a_field_that_is_being_typed_is_no_mistake() -> None:
    for text in ("from:", "", "   ", "before:", "#"):
        assert asked(text).terms == ()


def test_fts5_can_read_whatever_comes_of_what_is_typed() -> None:
    chosen = random.Random(5)
    pieces = ['"', "'", "*", "-", "(", ")", ":", "^", "+", "{", "}", "OR", "AND", "NOT", "NEAR(", "a", "b1", " ", " ",
              "from:", "kind:run", "#t", "\0", "\ud800", "\u7814", "é", "\\", ";", "--", "|", "before:1d"]  # fmt: skip
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE VIRTUAL TABLE t USING fts5 (title, body, keys)")
        for _ in range(3000):
            text = "".join(chosen.choices(pieces, k=chosen.randint(1, 9)))
            try:
                query = asked(text)
            except InvalidArgument:
                continue
            db.execute("SELECT rowid FROM t WHERE t MATCH ?", (query.match,)).fetchall()
