"""What a person names is looked at before it is opened: nothing waits for ever, and an empty name is no folder."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.grace.cli.batch import read_batch
from core.grace.cli.files import check_regular
from core.grace.cli.main import run
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
