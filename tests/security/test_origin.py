"""The page's port, while the core is away and after: nobody else gets it, and what was opened for it ends with it."""

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

from anyio import fail_after, sleep, to_thread

from core.grace.cli.client import Client
from core.grace.door.holding import HOLDER, called, end, told
from core.home import Home
from core.lab import Lab
from tests.commands import ECHO, Madlab, a_lab
from tests.labs import a_home, opened
from tests.surface import Caller

SHORT = f"{ECHO}[runs]\nlease_s = 1\n"
SMALL = 12 * 1024  # KiB
NOBODY = """
import os, socket, sys
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, int(sys.argv[2]), 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
"""


async def session(lab: Lab) -> Caller:
    """The operator in a browser."""
    ticket = (await Caller(lab, unix=True).ask("POST", "/tickets", {})).json["ticket"]
    return Caller(lab, (await Caller(lab).ask("POST", "/sessions", {"ticket": ticket})).json["token"])


def port_of(home: Home) -> int:
    return int((home.path / "port").read_text())


def can_be_taken(port: int) -> bool:
    """Whether another user can listen there: with either way to share an address."""
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        done = subprocess.run([sys.executable, "-I", "-S", "-c", NOBODY, str(port), str(option)], capture_output=True)
        if done.returncode == 0:
            return True
        assert b"Address already in use" in done.stderr, done.stderr
    return False


def holder_of(home: Home) -> int | None:
    """The pid of the process that keeps the port, if there is one."""
    line = called(str(home.runtime / HOLDER))
    if line is None:
        return None
    with line:
        return int.from_bytes(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), sys.byteorder)


def lives(pid: int) -> bool:
    """Whether there is such a process, and it has not only to be buried by who came to be its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def no_holder(home: Home) -> None:
    """Waits until nothing keeps the port."""
    with fail_after(60):
        while await to_thread.run_sync(holder_of, home) is not None:
            await sleep(0.05)


async def test_while_the_core_is_away_the_port_is_nobody_elses_and_then_its_own_again() -> None:
    with a_home(ECHO) as home:
        async with opened(home) as lab:
            page, web = await session(lab), lab.web
        assert not await to_thread.run_sync(can_be_taken, port_of(home))
        with socket.create_connection(("127.0.0.1", port_of(home))) as early:  # whoever comes meanwhile waits
            early.sendall(page.head("GET", "/api/v1/whoami", {}))
            async with opened(home) as lab:
                assert lab.web == web
                early.settimeout(60)
                assert (await to_thread.run_sync(early.recv, 15)).split()[1] == b"200"
                assert (await Caller(lab, page.token).ask("GET", "/whoami")).status == 200


async def test_after_the_lease_the_port_is_left_and_what_was_opened_there_is_worth_nothing() -> None:
    with a_home(SHORT) as home:
        async with opened(home) as lab:
            operator, page = Caller(lab, unix=True), await session(lab)
            client = (await operator.ask("POST", "/clients", {"name": "ci"})).json["token"]
            before = port_of(home)
        await no_holder(home)
        assert await to_thread.run_sync(can_be_taken, before)
        async with opened(home) as lab:
            assert port_of(home) != before
            assert (await Caller(lab, page.token).ask("GET", "/whoami")).status == 401
            assert (await Caller(lab, client).ask("GET", "/whoami")).status == 200  # it is no browser
            (shown,) = (await Caller(lab, unix=True).ask("GET", "/sessions")).json["sessions"]
            assert (shown["holds"], shown["ended"]) == (False, None)


async def test_a_port_of_the_settings_comes_again_and_what_was_opened_there_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as some:
        port = some.getsockname()[1]
    with a_home(f"{SHORT}[web]\nport = {port}\n") as home:
        async with opened(home) as lab:
            page, web = await session(lab), lab.web
            lab.keep_runs = False  # as `madlab down` says
        assert holder_of(home) is None
        async with opened(home) as lab:
            assert lab.web == web
            assert (await Caller(lab, page.token).ask("GET", "/whoami")).status == 401


async def test_settings_that_want_another_place_end_the_old_one() -> None:
    with a_home(ECHO) as home:
        async with opened(home) as lab:
            page = await session(lab)
        before = port_of(home)
        home.settings.write_text(f"{ECHO}[web]\nenabled = false\n")
        async with opened(home) as lab:
            assert lab.web == ""
            assert holder_of(home) is None
        home.settings.write_text(ECHO)
        async with opened(home) as lab:
            assert port_of(home) != before
            assert (await Caller(lab, page.token).ask("GET", "/whoami")).status == 401


async def test_what_keeps_the_port_is_small_private_and_replaced_when_it_is_gone() -> None:
    with a_home(ECHO) as home:
        async with opened(home) as lab:
            assert holder_of(home) is None  # nobody was let in yet
            page = await session(lab)
            place = home.runtime / HOLDER
            assert stat.S_IMODE(place.stat().st_mode) == 0o600
            pid = holder_of(home)
            assert pid is not None
            status = Path(f"/proc/{pid}/status").read_text()
            assert int(status.partition("VmRSS:")[2].split()[0]) < SMALL
            assert lab.origin not in Path(f"/proc/{pid}/cmdline").read_text()
            os.kill(pid, signal.SIGKILL)
            with fail_after(60):
                while holder_of(home) in (None, pid):
                    await sleep(0.05)
        async with opened(home) as lab:
            assert (await Caller(lab, page.token).ask("GET", "/whoami")).status == 200
        pid = holder_of(home)
    assert pid is not None
    with fail_after(60):  # it ends with its home
        while lives(pid):
            await sleep(0.05)


async def test_a_core_that_was_killed_is_waited_for_and_down_ends_that() -> None:
    def run() -> None:
        with a_lab() as madlab:
            before = let_in(madlab)
            madlab.kill_core()
            madlab.up()
            assert port_of(madlab.home) == before
            madlab.kill_core()
            assert not can_be_taken(before)
            assert "given up" in madlab("down").err
            assert holder_of(madlab.home) is None
            assert can_be_taken(before)
            madlab.up()
            assert let_in(madlab) != before
        assert holder_of(madlab.home) is None  # the lab went down in order

    def let_in(madlab: Madlab) -> int:
        Client(madlab.home).post("/api/v1/tickets", {})
        return port_of(madlab.home)

    await to_thread.run_sync(run)


def test_who_says_nothing_sensible_gets_nothing(tmp_path: Path) -> None:
    """To whatever listens there: a line that is no holder's is given up, and none at all is none."""
    assert not end(str(tmp_path / "none"))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"hel")
        theirs.close()
        assert told(ours) == ([], [])
