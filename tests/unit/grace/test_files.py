"""What a person names is looked at before it is opened: nothing waits for ever, and an empty name is no folder."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.grace.cli.batch import read_batch
from core.grace.cli.files import check_regular
from core.grace.cli.main import run, unusable
from core.grace.cli.packing import open_source
from core.home import Home
from protos.errors import InvalidArgument


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Ends a test that waits for somebody to write into a pipe."""

    def wake(number: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, wake)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize(
    "arguments",
    [
        ("policy", "backtest"),
        ("secret", "import"),
        ("journal", "verify", "--checkpoint"),
        ("dispatch",),
    ],
)
def test_a_named_pipe_is_refused_before_anybody_waits_for_it(
    tmp_path: Path, pipe: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    Home.open(str(tmp_path / "home"))
    assert run(["--home", str(tmp_path / "home"), *arguments, str(pipe), "--json"]) == 2
    told = json.loads(capsys.readouterr().err)["error"]
    assert told["message"] == f"{pipe} is a named pipe, and no regular file"
    assert told["next"]


@pytest.mark.parametrize("how", ["--home {}", "--home={}", ""])
def test_a_file_of_the_labs_own_that_cannot_be_used_is_no_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    home = Home.open(str(tmp_path / "home"))
    home.settings.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MADLAB_HOME", str(home.path))
    adding = ["provider", "add", "ours", "--kind", "openai", "--model", "a=b"]
    assert run([*how.format(home.path).split(), *adding]) == 3
    assert capsys.readouterr().err.startswith(
        f"madlab: the lab's own file {home.settings}: Is a directory\n  see whose"
    )


@pytest.mark.parametrize(
    ("file", "words", "code"),
    [
        ("named/there", ["scan", "named"], 2),
        ("named", ["scan", "x", "--out=named"], 2),
        ("home/named", ["scan", "home/named"], 2),
        ("here", ["code", "x"], 2),
        ("home/keys/x", ["code", "x"], 3),
        ("/elsewhere", ["code", "x"], 4),
    ],
)
def test_a_file_that_is_not_there_is_bad_input_where_a_person_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, words: list[str], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MADLAB_HOME", str(tmp_path / "home"))
    with pytest.raises(FileNotFoundError) as caught:
        open(file).close()
    said, message, next, status = unusable(caught.value, words)
    assert (said, status) == ("UNAVAILABLE" if code == 3 else "OS", code)
    assert str(tmp_path / file) in message
    assert next


def test_what_is_scanned_or_sent_is_a_regular_file(tmp_path: Path, pipe: Path) -> None:
    home = Home(tmp_path, "00000000", tmp_path)
    for each in (pipe, Path("/dev/null")):
        with pytest.raises(InvalidArgument, match="no regular file"):
            open_source(each, home, history=False, note=lambda text: None)
    with pytest.raises(InvalidArgument, match="no regular file"):
        read_batch(pipe)


def test_what_a_shell_passes_as_a_stream_is_read_where_it_is_read_once() -> None:
    reads, writes = os.pipe()
    try:
        place = Path(f"/dev/fd/{reads}")
        check_regular(place, streams=True)
        with pytest.raises(InvalidArgument, match="is a named pipe"):
            check_regular(place)
    finally:
        os.close(reads)
        os.close(writes)


@pytest.mark.parametrize(
    "arguments",
    [
        ("scan", ""),
        ("scan", ".", "--baseline", ""),
        ("--home", "", "down"),
        ("advisories", "import", ""),
        ("code", "mend it", "--repo", ""),
        ("apply", "hopper-1", "--repo", ""),
        ("mcp", "--root", ""),
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert run([*arguments, "--json"] if arguments[0] != "mcp" else list(arguments)) == 2
    assert "the path is empty" in capsys.readouterr().err
