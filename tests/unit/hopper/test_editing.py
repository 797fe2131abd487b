"""What a model does to files, and what it is told when it asks for something that does not go."""

import shutil
from pathlib import Path

import pytest

from periphery.hopper import editing
from periphery.hopper.shell import Shell
from periphery.hopper.workspace import inside
from protos.errors import InvalidArgument


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tree = tmp_path / "repo"
    (tree / "src").mkdir(parents=True)
    (tree / "src/a.py").write_text("def one():\n    return 1\n\n\ndef two():\n    return 1\n")
    (tree / "crlf.txt").write_bytes(b"one\r\ntwo\r\n")
    (tree / "latin.txt").write_bytes(b"caf\xe9\n")
    (tree / "data.bin").write_bytes(b"\0\1\2")
    return tree


def test_a_file_is_read_with_numbers_in_parts(root: Path) -> None:
    assert editing.read(root, "src/a.py", 5, 6) == ("src/a.py, lines 5-6 of 6\n    5\tdef two():\n    6\t    return 1")
    (root / "long.txt").write_text("".join(f"{number}\n" for number in range(1000)))
    assert editing.read(root, "long.txt").startswith("long.txt, lines 1-400 of 1000\n")
    assert editing.read(root, "long.txt", 900).startswith("long.txt, lines 900-1000 of 1000\n")
    (root / "wide.txt").write_text("x" * 5000 + "\n")
    assert editing.read(root, "wide.txt").endswith("[… 5,000 characters]")
    assert editing.read(root, ".") == "crlf.txt\ndata.bin\nlatin.txt\nlong.txt\nsrc/\nwide.txt"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("none.py", "There is no file none.py"),
        ("src/b.py", "Did you mean a.py"),
        ("data.bin", "is no text"),
        ("../x", "is outside"),
        ("/etc/passwd", "is outside"),
        (".git/config", "not yours to touch"),
        ("a\0b", "is no path"),
    ],
)
def test_what_cannot_be_read_is_said_with_what_to_do(root: Path, path: str, problem: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        editing.read(root, path)
    assert problem in f"{raised.value.message} {raised.value.next}"


def test_a_link_out_of_the_tree_leads_nowhere(root: Path) -> None:
    (root / "out").symlink_to("/etc/passwd")
    with pytest.raises(InvalidArgument, match="is outside"):
        editing.read(root, "out")
    editing.remove(root, "out")
    assert not (root / "out").is_symlink()
    assert inside(root, str(root / "src/a.py")) == root / "src/a.py"


def test_an_edit_replaces_the_one_place(root: Path) -> None:
    done = editing.edit(root, "src/a.py", "def two():\n    return 1", "def two():\n    # a pair\n    return 2")
    assert (done.path, done.added, done.removed) == ("src/a.py", 2, 1)
    assert (root / "src/a.py").read_text().endswith("def two():\n    # a pair\n    return 2\n")


def test_an_edit_keeps_line_ends_and_bytes_that_are_no_utf8(root: Path) -> None:
    editing.edit(root, "crlf.txt", "one\ntwo", "one\n2")
    assert (root / "crlf.txt").read_bytes() == b"one\r\n2\r\n"
    editing.edit(root, "latin.txt", "caf", "Caf")
    assert (root / "latin.txt").read_bytes() == b"Caf\xe9\n"


@pytest.mark.parametrize(
    ("old", "hint"),
    [
        ("    return 1", "stands 2 times in src/a.py: at lines 2, 6"),
        (
            "def two():\n  return 1",
            "Only the white space differs. At line 5 it reads exactly:\ndef two():\n    return 1",
        ),
        ("def too():\n    return 1", "The nearest is at line 5"),
        ("    5\tdef two():", "line numbers"),
        ("something else entirely", "Nothing like it"),
        ("", "is empty"),
    ],
)
def test_an_edit_that_does_not_fit_says_what_is_there(root: Path, old: str, hint: str) -> None:
    before = (root / "src/a.py").read_bytes()
    with pytest.raises(InvalidArgument) as raised:
        editing.edit(root, "src/a.py", old, "new")
    assert hint in f"{raised.value.message} {raised.value.next}"
    assert (root / "src/a.py").read_bytes() == before


def test_write_makes_directories_and_keeps_the_mode(root: Path) -> None:
    assert editing.write(root, "new/deep/ü.txt", "a\nb\n").added == 2
    (root / "src/a.py").chmod(0o755)
    editing.write(root, "src/a.py", "x = 1\n")
    assert (root / "src/a.py").stat().st_mode & 0o777 == 0o755
    with pytest.raises(InvalidArgument, match="is a directory"):
        editing.write(root, "src", "x")
    with pytest.raises(InvalidArgument, match="control character"):
        editing.write(root, "two\nlines", "x")
    with pytest.raises(InvalidArgument, match="is a file"):
        editing.write(root, "src/a.py/b", "x")


def test_remove_takes_files_and_empty_directories(root: Path) -> None:
    assert editing.remove(root, "src/a.py").removed == 6
    editing.remove(root, "src")
    assert not (root / "src").exists()
    for path, problem in (("src", "There is no"), (".", "itself")):
        with pytest.raises(InvalidArgument, match=problem):
            editing.remove(root, path)


@pytest.mark.parametrize("program", ["rg", "own"])
async def test_search_finds_lines_with_and_without_ripgrep(
    root: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    if program == "rg" and shutil.which("rg") is None:
        pytest.skip("ripgrep is not installed")
    monkeypatch.setattr(shutil, "which", lambda name: None if program == "own" else f"/usr/bin/{name}")
    shell = Shell(root, root.parent / "home")
    assert await editing.search(shell, r"def \w+\(") == "src/a.py:1:def one():\nsrc/a.py:5:def two():"
    assert await editing.search(shell, "two", "crlf.txt") == "crlf.txt:2:two"
    assert await editing.search(shell, "nowhere") == "Nothing matches nowhere."
    with pytest.raises(InvalidArgument, match="no regular expression"):
        await editing.search(shell, "(")
    with pytest.raises(InvalidArgument, match="There is no"):
        await editing.search(shell, "x", "none")
