"""The home: found, made once, private, locked, refused when it is not ours to use."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.home import SOCKET_BYTES, Home
from protos.errors import Conflict, InvalidArgument, NotFound


@pytest.fixture(autouse=True)
def short_runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="m") as place:
        monkeypatch.setenv("XDG_RUNTIME_DIR", place)
        yield Path(place)


def test_a_home_is_made_once_and_keeps_its_id(tmp_path: Path) -> None:
    first, second = Home.open(tmp_path / "lab"), Home.open(tmp_path / "lab")
    assert first == second == Home.find(tmp_path / "lab")
    assert len(first.lab) == 8
    assert first.runtime.name == f"madlab-{first.lab}"


def test_nobody_else_can_enter(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir(mode=0o755)
    home = Home.open(tmp_path / "lab")
    assert [stat.S_IMODE(each.stat().st_mode) for each in (home.path, home.runtime)] == [0o700, 0o700]


def test_the_option_beats_the_variable_beats_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MADLAB_HOME", str(tmp_path / "variable"))
    assert Home.locate(tmp_path / "option") == tmp_path / "option"
    assert Home.locate() == tmp_path / "variable"
    monkeypatch.delenv("MADLAB_HOME")
    assert (Home.locate().parent / "pyproject.toml").exists()


def test_the_sockets_stay_where_they_were_when_the_environment_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Home.open(tmp_path / "lab").runtime
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert Home.open(tmp_path / "lab").runtime == before


def test_a_runtime_directory_that_is_too_long_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    home = Home.open(tmp_path / "lab")
    assert long not in home.runtime.parents
    home.runtime.rmdir()


def test_a_runtime_directory_somebody_planted_is_passed_over(tmp_path: Path, short_runtime: Path) -> None:
    home = Home.open(tmp_path / "lab")
    home.runtime.rmdir()
    (short_runtime / home.runtime.name).symlink_to(tmp_path)
    moved = Home.open(tmp_path / "lab").runtime
    assert moved != home.runtime
    moved.rmdir()


def test_a_socket_path_over_the_cap_is_refused(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "lab")
    assert len(os.fsencode(home.socket("x" * 36, "gate.sock"))) <= SOCKET_BYTES
    with pytest.raises(InvalidArgument, match="over 100 bytes"):
        home.socket("x" * 90)


def test_a_second_core_on_the_same_home_is_told_the_pid_of_the_first(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "lab")
    assert home.holder() is None
    with home.locked():
        assert home.holder() == os.getpid()
        with pytest.raises(Conflict, match=rf"another core \(pid {os.getpid()}\)"), home.locked():
            pass
    assert home.holder() is None
    with home.locked():
        pass


def test_a_core_on_a_copied_home_is_refused_too(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "lab")
    (tmp_path / "copy").mkdir()
    for name in ("lab", "version", "runtime"):
        (tmp_path / "copy" / name).write_bytes((home.path / name).read_bytes())
    copy = Home.open(tmp_path / "copy")
    with home.locked(), pytest.raises(Conflict, match="another core"), copy.locked():
        pass


def test_the_lock_ends_with_its_process_however_it_ends(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "lab")
    hold = (
        f"from core.home import Home\nwith Home.open({str(home.path)!r}).locked(): print('held', flush=True); input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert home.holder() == holder.pid
        holder.kill()
    assert home.holder() is None


def test_a_newer_home_is_refused_with_a_sentence(tmp_path: Path) -> None:
    Home.open(tmp_path / "lab")
    (tmp_path / "lab" / "version").write_text("2\n")
    for enter in (Home.open, Home.find):
        with pytest.raises(Conflict, match="made by a newer madlab") as told:
            enter(tmp_path / "lab")
        assert "--home" in told.value.next


def test_a_directory_that_holds_something_else_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidArgument, match=r"holds something else \('notes.txt'\)"):
        Home.open(tmp_path)
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_settings_and_policy_may_be_written_before_the_first_start(tmp_path: Path) -> None:
    (tmp_path / "madlab.toml").write_text("")
    (tmp_path / "policy.toml").write_text("")
    assert Home.open(tmp_path).lab


def test_a_client_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no lab"):
        Home.find(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_file_in_the_place_of_a_home_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument, match="is not a directory"):
        Home.open(tmp_path / "file")
