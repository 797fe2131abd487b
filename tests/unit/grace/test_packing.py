"""What `scan` sends: a tree, an unread archive, or a sentence."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from core.grace.cli.packing import open_source
from core.home import Home
from protos.errors import InvalidArgument, NotFound
from protos.tree import TreeRefused


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "home").mkdir()
    return Home(tmp_path / "home", "00000000", tmp_path)


def no_note(text: str) -> None:
    raise AssertionError(text)


def test_a_directory_is_a_packed_tree(home: Home, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "a.py").write_text("print()\n")
    source = open_source(tmp_path / "work", home, history=True, note=no_note)
    assert (source.kind, source.name, source.size) == ("tree", "work", 8)
    for _ in range(2):  # it can be sent again
        with tarfile.open(fileobj=io.BytesIO(b"".join(source.chunks()))) as tree:
            assert tree.getnames() == ["a.py"]


def test_an_archive_goes_in_unread(home: Home, tmp_path: Path) -> None:
    wheel, tar = tmp_path / "a.whl", tmp_path / "a.tar"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("../escape", "x")
    with tarfile.open(tar, "w") as plain:
        plain.addfile(tarfile.TarInfo("/absolute"))
    for each in (wheel, tar):
        source = open_source(each, home, history=True, note=no_note)
        assert (source.kind, source.name) == ("archive", each.name)
        assert b"".join(source.chunks()) == each.read_bytes()


def test_what_ordinary_tools_open_is_an_archive_whatever_it_begins_with(home: Home, tmp_path: Path) -> None:
    with (tmp_path / "app.pyz").open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("__main__.py", "print()")
            archive.comment = b"c" * 60_000
    with tarfile.open(tmp_path / "old.tar", "w", format=tarfile.USTAR_FORMAT) as plain:
        plain.addfile(tarfile.TarInfo("a"))
    block = bytearray((tmp_path / "old.tar").read_bytes())
    block[257:265] = bytes(8)  # of the time before `ustar`
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    (tmp_path / "old.tar").write_bytes(block)
    for name in ("app.pyz", "old.tar"):
        assert open_source(tmp_path / name, home, history=True, note=no_note).kind == "archive"


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF" + bytes(600), b"PK\x05\x06"[::-1] * 200])
def test_a_file_that_is_no_archive_is_refused(home: Home, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InvalidArgument, match="is no archive that can be scanned"):
        open_source(tmp_path / "file", home, history=True, note=no_note)


def test_a_missing_path_and_an_empty_directory_are_sentences(home: Home, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="does not exist"):
        open_source(tmp_path / "none", home, history=True, note=no_note)
    with pytest.raises(InvalidArgument, match="holds no file"):
        open_source(tmp_path / "empty", home, history=True, note=no_note)


def test_the_operators_caps_hold(home: Home, tmp_path: Path) -> None:
    home.settings.write_text("[tree]\nfiles = 1\n")
    (tmp_path / "work").mkdir()
    for name in ("a", "b"):
        (tmp_path / "work" / name).write_text("x")
    with pytest.raises(TreeRefused, match=r"tree\.files"):
        b"".join(open_source(tmp_path / "work", home, history=True, note=no_note).chunks())
