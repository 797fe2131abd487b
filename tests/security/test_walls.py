"""What a hostile program tries against its sandbox, and what each attempt must come to, on every accepted runtime."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.emads.hostile import walls
from tests.security.hostile_lab import EVERY, Around, Site, around

pytestmark = pytest.mark.docker
RUNTIMES = EVERY

NO = "EPERM|ENOSYS|EACCES"
UNREACHED = "ENETUNREACH|EHOSTUNREACH|ECONNREFUSED|EPERM|EACCES"
MISSING = "ENOENT|EACCES|EROFS|EPERM|ENXIO|ENOTDIR|ENODEV"
NOTHING_READ = f"{MISSING}|EIO|read (00)*"
NAMES = r"HOME|HOSTNAME|LANG|MADLAB_DOOR|PATH|PWD|PYTHON\w+|TMPDIR"

# The first pattern that an act's name begins with says what its whole answer must look like.
ANSWERS: tuple[tuple[str, str], ...] = (
    ("kernel: new ", f"unshare=({NO}) clone=({NO}) clone3=({NO})"),
    ("kernel: 32-bit entry", f"{NO}|SIGSYS|SIGSEGV|SIGILL"),
    # It may run, and is then no more than it was before.
    ("kernel: runs a program from memory", r"\['10001', '0000000000000000', ('1', )?'2'\]"),
    ("kernel: set-user-id programs", "none"),
    ("kernel: types into a terminal", f"ENOTTY|{NO}"),
    ("kernel: raises its limits", f"not allowed to raise maximum limit|{NO}"),
    ("kernel: real-time scheduling", f"EINVAL|{NO}"),
    ("kernel: makes a device", f"ENXIO|ENODEV|{NO}"),
    ("kernel: ", NO),
    ("network: links", "lo"),
    ("network: abstract sockets of others", "none"),
    ("network: a name server", UNREACHED),
    ("network: a name", r"gaierror -\d+"),
    ("network: family", f"{NO}|EAFNOSUPPORT|EPROTONOSUPPORT|ESOCKTNOSUPPORT|EINVAL"),
    ("network: raw packets", "EPERM|EACCES|EAFNOSUPPORT|EPROTONOSUPPORT"),
    ("network: ", UNREACHED),
    ("engine: ", "ENOENT|EACCES"),
    ("files: writes", MISSING),
    ("files: reads", NOTHING_READ),
    ("files: overwrites", f"ETXTBSY|{MISSING}"),
    ("files: other processes", r"1( \d+){0,4}"),  # the host's hundreds are not there
    ("files: environment", f"({NAMES})( ({NAMES}))*"),
    ("files: ", MISSING),
    ("door: what is in it", "credentials deploy-key gate.sock token"),
    ("door: what is beside it", "madlab"),
    ("door: replaces", f"EXDEV|{MISSING}"),
    ("door: removes", f"EBUSY|ENOTEMPTY|{MISSING}"),
    ("door: ", MISSING),
)
# gVisor is a kernel of its own: there a program may be first in a queue that is only its own sandbox's.
OWN_KERNEL = {"kernel: goes before all others": "done", "kernel: spared when memory is short": "done"}
NOWHERE = {"port": 1, "abstract": "x", "marker": "/x", "journal": "/x"}
ACTS = sorted(walls.acts(NOWHERE))
HOST = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/kernel/modprobe")


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with around(tmp_path_factory.mktemp("around")) as found:
        yield found


@pytest.fixture(scope="module")
async def pushed(site: Site, surroundings: Around) -> dict[str, str]:
    """Every act's answer, from one run; and nothing of the host has changed."""
    before = [_read(each) for each in HOST]
    given = {
        "port": surroundings.port,
        "abstract": surroundings.abstract,
        "marker": str(surroundings.marker),
        "journal": str(site.lab.home.path / "journal.db"),
    }
    came = await site.act("push", given=given)
    assert came.of is not None, came.message.text
    assert [_read(each) for each in HOST] == before
    assert surroundings.secret.encode().hex() not in json.dumps(came.of)
    return came.of  # type: ignore[no-any-return]


@pytest.mark.parametrize("act", ACTS)
def test_an_act_against_the_sandbox_comes_to_nothing(act: str, pushed: dict[str, str], runtime: str) -> None:
    if runtime.startswith("runsc") and pushed[act] == OWN_KERNEL.get(act):
        return
    expected = next(answer for beginning, answer in ANSWERS if act.startswith(beginning))
    assert re.fullmatch(expected, pushed[act]), f"{act}: {pushed[act]}"


def test_every_act_that_there_is_was_done(pushed: dict[str, str]) -> None:
    assert sorted(pushed) == ACTS
    assert len(ACTS) >= 100


def test_nobody_came_to_the_listeners_of_the_host(pushed: dict[str, str], surroundings: Around) -> None:
    assert surroundings.visitors() == 0


async def test_the_door_goes_with_its_run(pushed: dict[str, str], site: Site) -> None:
    assert site.doors() == []
    assert await site.sandboxes() == []


def _read(path: str) -> str:
    return Path(path).read_text() if os.path.exists(path) else ""
