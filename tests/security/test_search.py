"""What is looked for is found where it is hard to see: so that finding nothing means something."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.security.forms import forms
from tests.security.search import PIECE_BYTES, databases, found_below, found_in_tables

KEY = "sk-test-0123456789abcdefghijkl"


def test_a_key_on_the_border_of_two_pieces_of_a_large_file_is_found_in_every_form(tmp_path: Path) -> None:
    for number, form in enumerate(forms(KEY).values()):
        with (tmp_path / f"{number:02}").open("wb") as file:
            file.seek(PIECE_BYTES * (1 if number else 9) - len(form) // 2)  # what was passed over takes no room
            file.write(form)
        assert found_below(tmp_path, KEY), number
        (tmp_path / f"{number:02}").unlink()


def test_what_is_not_there_to_be_searched_is_no_clean_place(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        found_below(tmp_path / "nowhere", KEY)


def test_a_key_that_two_pages_of_a_table_share_is_found_by_its_column(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "lab.db")) as db:
        db.execute("PRAGMA page_size = 512")
        db.execute("CREATE TABLE told (id INTEGER PRIMARY KEY, text TEXT, body BLOB)")
        for shift in range(0, 512, 16):  # some of them lie across a border, wherever that is
            db.execute("INSERT INTO told (text, body) VALUES (?, ?)", ("x" * (500 + shift) + KEY + "y" * 1000, b""))
        db.execute("INSERT INTO told (text, body) VALUES ('', ?)", (KEY.encode().hex().encode(),))
        db.commit()
    raw = (tmp_path / "lab.db").read_bytes()
    assert raw.count(KEY.encode()) < 512 // 16, "the file itself does not show all of them"
    (database,) = databases(tmp_path)
    assert {each.rpartition(": ")[2] for each in found_in_tables(database, KEY)} >= {"plain", "hexadecimal"}


def test_a_word_of_a_key_is_found_in_an_index_that_keeps_no_text(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "index.db")) as db:
        db.execute("CREATE VIRTUAL TABLE part USING fts5 (body, content = '', columnsize = 0)")
        db.execute("INSERT INTO part (rowid, body) VALUES (1, 'nothing'), (2, ?)", (f"it is {KEY.upper()}!",))
        db.commit()
    assert found_in_tables(tmp_path / "index.db", KEY) == [
        f"{tmp_path}/index.db, part: the word 0123456789abcdefghijkl"
    ]
