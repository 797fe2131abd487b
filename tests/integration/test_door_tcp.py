"""The page's listener: its port, who is let in by the command line, and what the settings refuse."""

import json
import re
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from starlette.requests import Request

from core.config import load
from core.grace.cli.client import Client
from core.grace.cli.main import run
from core.grace.door import peers
from core.grace.door.callers import CALLER, THE_OPERATOR, caller_of
from core.grace.door.peers import is_ours
from protos.errors import InvalidArgument, Unauthenticated
from tests.commands import COMMAND, ECHO, Madlab, a_lab, environment
from tests.labs import a_home, opened
from tests.surface import Caller


async def test_a_port_of_the_settings_that_is_taken_is_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with a_home(f"{ECHO}[web]\nport = {port}\n") as home:
            async with opened(home) as lab:
                found = int((home.path / "port").read_text())
                assert found != port
                assert lab.web == f"http://127.0.0.1:{found}"
                client = (await Caller(lab, unix=True).ask("POST", "/clients", {"name": "ci"})).json["token"]
                assert (await Caller(lab, client).ask("GET", "/whoami")).status == 200


async def test_a_port_that_nobody_was_let_in_at_is_not_used_again() -> None:
    with a_home(ECHO) as home:
        found = set()
        for _ in range(2):
            async with opened(home) as lab:
                assert lab.web == f"http://127.0.0.1:{(home.path / 'port').read_text().strip()}"
                found.add(lab.web)
        assert len(found) == 2


async def test_a_lab_that_wants_no_page_has_none() -> None:
    with a_home(f"{ECHO}[web]\nenabled = false\n") as home:
        async with opened(home) as lab:
            assert lab.web == ""
            answer = await Caller(lab, unix=True).ask("POST", "/tickets", {})
            assert (answer.status, answer.json["error"]["message"]) == (503, "This lab has no page.")


async def test_the_page_listens_on_the_other_loopback_too() -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no ::1")
    with a_home(f'{ECHO}[web]\nhost = "::1"\n') as home:
        async with opened(home) as lab:
            assert lab.web.startswith("http://[::1]:")
            client = (await Caller(lab, unix=True).ask("POST", "/clients", {"name": "ci"})).json["token"]
            assert (await Caller(lab, client).ask("GET", "/whoami")).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "localhost", "", "127.0.0.1.example"])
def test_only_loopback_is_listened_on(host: str) -> None:
    with a_home(f'[web]\nhost = "{host}"\n') as home, pytest.raises(InvalidArgument, match=r"web\.host"):
        load(home, {})


def test_where_no_door_has_set_a_caller_there_is_none() -> None:
    request = Request({"type": "http", "headers": []})
    with pytest.raises(Unauthenticated):
        caller_of(request)
    assert caller_of(Request({"type": "http", "headers": [], CALLER: THE_OPERATOR})) is THE_OPERATOR


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("by_list", [False, True])
def test_the_kernel_says_whose_the_other_end_is(address: str, by_list: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if address == "::1" and not _has_ipv6():
        pytest.skip("this machine has no ::1")
    if by_list:  # as where the kernel has no sock_diag
        monkeypatch.setattr(peers, "SOCK_DIAG", 31)
    family = socket.AF_INET6 if address == "::1" else socket.AF_INET
    with ExitStack() as held:
        listener = held.enter_context(socket.create_server((address, 0), family=family))
        there = held.enter_context(socket.create_connection((address, listener.getsockname()[1])))
        here = held.enter_context(listener.accept()[0])
        peer, ours = here.getpeername()[:2], here.getsockname()[:2]
        assert is_ours(peer, ours)
        assert not is_ours((address, 1), ours)
        there.close()
        assert not is_ours(peer, ours)  # it is nobody's any more


@pytest.fixture(scope="module")
def madlab() -> Iterator[Madlab]:
    with a_lab() as lab:
        yield lab


def test_the_command_line_lets_a_browser_in_and_shows_it_to_nobody_else(madlab: Madlab, tmp_path: Path) -> None:
    """The browser is a script here, which notes what a process list would show of it."""
    seen, script = tmp_path / "seen", tmp_path / "browser"
    script.write_text(f'#!/bin/sh\necho "$@" > {seen}.part\nmv {seen}.part {seen}\n')
    script.chmod(0o700)
    nobody = environment(madlab.home.path) | {"BROWSER": str(tmp_path / "none"), "PATH": str(tmp_path)}
    refused = subprocess.run([*COMMAND, "open"], env=nobody, capture_output=True, text=True, timeout=120)
    assert (refused.returncode, "madlab open --print" in refused.stderr) == (2, True), refused.stderr
    surroundings = environment(madlab.home.path) | {"BROWSER": str(script)}
    done = subprocess.run([*COMMAND, "open"], env=surroundings, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    shown = seen.read_text().strip()
    place = Path(shown.removeprefix("file://"))
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    url = re.search(r"(http://127\.0\.0\.1:\d+)/#ticket=([\w-]{43})", place.read_text())
    assert url is not None
    assert url[2] not in shown + done.stdout + done.stderr
    assert url[1] == f"http://127.0.0.1:{(madlab.home.path / 'port').read_text().strip()}"


def test_the_command_line_prints_an_address_and_lists_and_ends_sessions(
    madlab: Madlab, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(*words: str) -> str:
        assert run(["--home", str(madlab.home.path), *words]) == 0
        return capsys.readouterr().out

    client = Client(madlab.home)
    for _ in range(2):
        ticket = say("open", "--print").partition("#ticket=")[2].strip()
        client.post("/api/v1/sessions", {"ticket": ticket})
    first, second = json.loads(say("sessions", "--json"))["sessions"]
    assert first["id"] in say("sessions")
    say("sessions", "revoke", first["id"])
    assert [each["id"] for each in json.loads(say("sessions", "--json"))["sessions"]] == [second["id"]]
    say("sessions", "revoke", "--all")
    assert json.loads(say("sessions", "--json"))["sessions"] == []
    assert len(json.loads(say("sessions", "--all", "--json"))["sessions"]) == 2


def test_the_command_line_adds_shows_and_revokes_clients(madlab: Madlab, capsys: pytest.CaptureFixture[str]) -> None:
    def say(*words: str, code: int = 0) -> str:
        assert run(["--home", str(madlab.home.path), "client", *words]) == code
        return capsys.readouterr().out

    token = say("add", "ci", "--may", "echo.say", "--ttl", "30d").strip()
    assert token.startswith("madlab_client_")
    say("add", "ci", code=2)  # there is one
    say("add", "x", "--may", "echo.shout", code=2)  # there is no such tool
    say("add", "a b", code=2)
    say("add", "x", "--sees", "much", code=2)
    (listed,) = json.loads(say("list", "--json"))["clients"]
    assert (listed["name"], listed["may"], listed["sees"], listed["holds"]) == ("ci", ["echo.say"], "own", True)
    assert "echo.say" in say("show", "ci")
    assert token not in say("list") + say("show", "ci") + say("list", "--json")
    say("revoke", "ci")
    assert json.loads(say("list", "--json")) == {"clients": []}
    (ended,) = json.loads(say("list", "--all", "--json"))["clients"]
    assert not ended["holds"]
    say("revoke", "nobody", code=2)


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
