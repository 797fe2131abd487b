"""The core's life as an operator sees it: up, status, down, and what is said when that cannot be."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import VERSION
from core.home import Home
from tests.commands import COMMAND, ROOT, Madlab, a_lab, environment
from tests.labs import a_home
from tests.sizes import full


@pytest.fixture(scope="module")
def madlab() -> Iterator[Madlab]:
    with a_lab() as lab:
        yield lab


def test_status_has_exactly_what_programs_rely_on(madlab: Madlab) -> None:
    told = madlab("status", "--json")
    assert (told.code, told.err) == (0, "")
    state = told.json
    assert {
        "pid",
        "version",
        "lab",
        "ready",
        "uptime_s",
        "mads",
        "runs",
        "sandboxes",
        "journal",
        "memory_bytes",
    } <= set(state)
    assert (state["pid"], state["lab"], state["ready"]) == (madlab.home.holder(), madlab.home.lab, True)
    assert set(state["runs"]) == {"running", "queued"}
    assert {"messages", "bytes"} <= set(state["journal"])
    assert [each["name"] for each in state["mads"]] == ["echo", "fiedler", "dewey", "foreman"]
    assert state["memory_bytes"] < 120 * 1024**2


def test_status_for_a_person_is_a_few_plain_lines(madlab: Madlab) -> None:
    told = madlab("status")
    assert told.code == 0
    assert f"lab        {madlab.home.lab}, ready" in told.out
    assert "\x1b" not in told.out


def test_up_twice_is_up_once(madlab: Madlab) -> None:
    pid = madlab.home.holder()
    told = madlab("up")
    assert (told.code, madlab.home.holder()) == (0, pid)
    assert f"was running already (pid {pid})" in told.out


def test_a_second_core_is_refused_with_the_pid_of_the_first(madlab: Madlab) -> None:
    told = madlab("up", "--foreground", "--json")
    assert told.code == 2
    assert f"another core (pid {madlab.home.holder()})" in told.error["message"]
    assert "madlab down" in told.error["next"]


def test_nobody_else_gets_near_the_lab(madlab: Madlab) -> None:
    home = madlab.home
    modes = {each: stat.S_IMODE(each.stat().st_mode) for each in (home.path, home.runtime, home.api_socket)}
    assert list(modes.values()) == [0o700, 0o700, 0o600]
    assert len(os.fsencode(home.api_socket)) <= 100


def test_a_core_that_was_killed_comes_up_again_at_the_same_place(madlab: Madlab) -> None:
    place = madlab.home.api_socket
    madlab.kill_core()
    assert madlab("status").code == 3
    madlab.up()
    assert madlab("status", "--json").json["ready"] is True
    assert Home.find(madlab.home.path).api_socket == place


def test_down_leaves_no_socket_and_twice_is_once(madlab: Madlab) -> None:
    for _ in range(2):
        assert madlab("down").code == 0
    assert madlab.home.holder() is None
    assert not madlab.home.api_socket.exists()
    madlab.up()


def test_a_lab_that_is_not_running_is_3_and_says_how_to_start_it() -> None:
    with a_home() as home:
        for command in (["status"], ["runs"], ["tools"], ["call", "a.b"], ["say", "a", "b"], ["journal", "verify"]):
            told = Madlab(home)(*command, "--json")
            assert (told.code, told.out) == (3, ""), command
            assert told.error["code"] == "UNAVAILABLE"
            assert "madlab up" in told.error["next"]


def test_the_version_needs_no_lab() -> None:
    with a_home() as home:
        told = Madlab(home)("--version")
    assert (told.code, told.out, told.err) == (0, f"madlab {VERSION}\n", "")


def test_a_home_that_was_never_made_is_3_and_stays_unmade(tmp_path: Path) -> None:
    with a_home() as home:
        told = Madlab(home)("--home", tmp_path / "none", "status")
    assert told.code == 3
    assert "there is no lab in" in told.err
    assert not (tmp_path / "none").exists()


WRONG = [
    ("[runs]\nmax_runing = 1\n", "runs.max_runing is no setting"),
    ("emads = ['nowhere']\n", "nowhere/manifest.toml"),
    ('[residents]\nx = { class = "nowhere:X" }\n', "residents.x.class"),
    ("emads = [\n", "madlab.toml"),
]


@pytest.mark.parametrize(("settings", "sentence"), WRONG if full() else WRONG[:2])
def test_a_wrong_setting_is_told_by_up_itself(settings: str, sentence: str) -> None:
    with a_home() as home:
        home.settings.write_text(settings)
        told = Madlab(home)("up", "--json")
        assert (told.code, told.out) == (2, "")
        assert sentence in told.error["message"]


def test_a_home_from_a_newer_version_is_refused_by_every_command() -> None:
    with a_home() as home:
        (home.path / "version").write_text("99\n")
        for command in ("up", "status", "runs"):
            told = Madlab(home)(command, "--json")
            assert told.code == 2
            assert "made by a newer madlab" in told.error["message"]


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["show"], ["status", "--nonsense"], ["runs", "--limit", "0"], ["scan", ".", "--format", "xml"], []],
)
def test_a_slip_of_the_tongue_is_2_and_prints_no_data(madlab: Madlab, arguments: list[str]) -> None:
    told = madlab(*arguments)
    assert told.code == 2
    if arguments:
        assert told.out == ""
        assert told.err.startswith("madlab: ")


def test_usage_errors_are_json_where_that_was_asked(madlab: Madlab) -> None:
    told = madlab("show", "--json")
    assert (told.code, told.error["code"]) == (2, "USAGE")


def test_no_engine_is_no_obstacle_to_the_core_and_a_sentence_of_the_run() -> None:
    with a_home('emads = ["ROOT/tests/emads/echo"]\n'.replace("ROOT", str(Path(__file__).parents[2]))) as home:
        lab = Madlab(home)
        os.environ["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
        try:
            lab.up()
        finally:
            del os.environ["DOCKER_HOST"]
        told = lab("call", "echo.say", '{"text": "x"}', "--json")
        assert told.code == 4
        assert "no Docker engine answers" in told.error["message"]
        assert lab("runs", "--json").json["runs"][0]["outcome"] == "failed"
        assert lab("down").code == 0


@pytest.mark.parametrize("command", ["status", "runs", "models", "tools", "costs", "approvals", "incidents", "audit"])
def test_a_command_needs_nothing_that_another_has_imported(madlab: Madlab, command: str) -> None:
    told = subprocess.run(
        [*COMMAND, command], env=environment(madlab.home.path), cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout or told.stderr.count("\n") == 1, told.stderr  # which says that there is nothing
