"""What a person types after `madlab browse`, and what Marco's answer may make of it."""

from pathlib import Path
from typing import Any

import pytest

from core.grace.cli import pages
from core.grace.cli.browsing import check_folder, told_apart
from core.grace.cli.client import Fault
from protos.errors import Exhausted, InvalidArgument

PAGE: dict[str, Any] = {
    "url": "http://a.test/", "address": "http://a.test/", "title": "A\x1b[31m", "status": 404, "markdown": "# Hi\n",
    "links": [], "tables": [], "outline": "", "values": [], "dialogs": ["alert: boo"], "windows": [],
    "refused": ["GET http://evil.test/: no"], "requests": 2, "hidden": 1234, "notes": [], "files": [], "problem": "",
}  # fmt: skip
BROWSED: dict[str, Any] = {
    "outcome": "succeeded", "reason": "", "pages": [PAGE], "answer": "", "quotes": [], "unfounded": 1, "model": "",
    "downloads": [{"url": "u", "name": "../x", "size": 5, "digest": "sha256:" + "0" * 64, "media_type": ""}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "urls", "goal"),
    [
        (["https://a.test/x"], ["https://a.test/x"], ""),
        (["a.test"], ["https://a.test"], ""),
        (["a.test:8080/x?y=z", "b.test", "what is it"], ["https://a.test:8080/x?y=z", "https://b.test"], "what is it"),
        (["http://a.test/", "price?"], ["http://a.test/"], "price?"),
        (["HTTP://a.test/"], ["HTTP://a.test/"], ""),
    ],
)
def test_addresses_and_a_goal_are_told_apart(words: list[str], urls: list[str], goal: str) -> None:
    assert told_apart(words) == (urls, goal)


@pytest.mark.parametrize("word", ["file:///etc/passwd", "ftp://a.test/x", "javascript://a.test/%0aalert(1)"])
def test_what_is_no_page_of_the_web_is_refused_before_a_sandbox_starts(word: str) -> None:
    with pytest.raises(InvalidArgument, match="is no page of the web"):
        told_apart([word, "what is it"])


def test_a_folder_that_cannot_be_written_is_told_before_a_page_is_visited(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InvalidArgument, match="nothing can be written in"):
            check_folder(wrong)
    check_folder(tmp_path / "new" / "deeper")
    check_folder(Path("new"))


@pytest.mark.parametrize("words", [["what is it"], ["what", "a.test"], ["a.test", "one goal", "another goal"]])
def test_a_goal_comes_last_and_alone_and_never_without_an_address(words: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        told_apart(words)


def test_what_a_page_says_drives_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    pages.show(pages.parse(BROWSED, "run"))
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert "# Hi" in told.out
    for part in (
        "answered 404",
        "1 of its 2 requests",
        "1,234 characters",
        "alert: boo",
        "In quarantine",
        "stand on no",
    ):
        assert part in told.err


def test_an_answer_of_another_shape_is_refused() -> None:
    bad: list[dict[str, Any]] = [{"pages": [{}]}, {"unfounded": "1"}, {"downloads": [{"x": 1}]}, {"answer": None}]
    wrongs: list[Any] = [{}, [], *(BROWSED | each for each in bad)]
    for wrong in wrongs:
        with pytest.raises(Fault):
            pages.parse(wrong, "run")


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..", "", "a\n\x1bb", ".ssh/id", "C:\\x", "x" * 300])
def test_a_download_is_written_below_the_quarantine_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    place = pages.place_of(tmp_path, name, 3)
    assert place.parent == tmp_path / "quarantine"
    assert place.name.startswith("3-")
    assert place.name.isprintable()


def test_a_file_is_only_its_owners_and_never_behind_a_link(tmp_path: Path) -> None:
    import os

    path = tmp_path / "out" / "page-1.md"
    os.close(pages.create(path))
    assert path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "out" / "link").symlink_to(tmp_path / "victim")
    with pytest.raises(Exhausted):
        pages.create(tmp_path / "out" / "link")
