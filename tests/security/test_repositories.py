"""Hostile repositories on the road of every scan: listed and packed here, sent, unpacked and scanned in a sandbox.

Two things must never happen: a program that a repository names runs on this machine, and something that lies outside of
a repository leaves it. What was sent is searched, loose git objects unpacked; so is every blob and message of the lab.
"""

import io
import re
import shutil
import sqlite3
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from core.grace.cli.packing import open_source
from protos.errors import InvalidArgument
from protos.tree import TreeRefused
from tests.commands import Madlab, a_lab
from tests.labs import ROOT, a_home
from tests.security.repositories import REPOSITORIES, Trap, git, plain

# A link that leaves the tree, or what is no file, is refused with the whole tree, and the person is told its name.
REFUSED = {
    "linked_files": b"'folder': a link to '/",
    "climbing_links": b"'link': a link to '../../outside/secret'",
    "tracked_below_a_link": b"'folder': a link to '/",
    "pipes": b"'.gitignore': a FIFO",
}


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path)


@pytest.mark.parametrize("name", REPOSITORIES)
@pytest.mark.parametrize("history", [True, False])
def test_packing_runs_nothing_and_takes_nothing_from_outside(name: str, history: bool, trap: Trap) -> None:
    root = trap.place / "repository"
    REPOSITORIES[name](trap, root)
    trap.ran.unlink(missing_ok=True)  # git itself may have been caught while the trap was laid
    refusal = packed = b""
    with a_home() as home:
        try:
            packed = b"".join(open_source(root, home, history=history, note=lambda text: None).chunks())
        except (TreeRefused, InvalidArgument) as error:
            refusal = error.message.encode()
    assert refusal.startswith(REFUSED.get(name, b""))
    assert bool(refusal) == (name in REFUSED)
    assert not trap.ran.exists()
    assert trap.secret.encode() not in packed + unpacked_objects(packed)
    assert not re.search(rb"\.git/(config|hooks|commondir|objects/info)\0", packed)


@pytest.mark.parametrize("name", ["watcher", "filters", "included"])
def test_git_itself_is_caught_by_the_same_repository(name: str, trap: Trap) -> None:
    root = trap.place / "repository"
    REPOSITORIES[name](trap, root)
    trap.ran.unlink(missing_ok=True)
    git(root, "status")
    assert trap.ran.exists(), "else the tests above would show nothing"


@pytest.fixture(scope="module")
def madlab(runtime: str) -> Iterator[Madlab]:
    settings = f'emads = ["{ROOT / "periphery/mcnamara"}"]\n[sandbox]\nruntime = "{runtime}"\n'
    with a_lab(settings, images=("base", "mcnamara")) as lab:
        yield lab


@pytest.mark.docker
@pytest.mark.ordinarily("runc")
def test_all_of_them_are_scanned_and_nothing_ran_or_leaked(madlab: Madlab, trap: Trap) -> None:
    """One scan of a directory with every repository that is not refused at once, and one of a hostile one alone."""
    together = plain(trap.place / "together")
    for name, make in REPOSITORIES.items():
        if name not in REFUSED:
            make(trap, together / name)
    alone = together.with_name("alone")
    shutil.copytree(together / "nested", alone, symlinks=True)
    trap.ran.unlink(missing_ok=True)

    found = set()
    for path in (together, alone):
        told = madlab("scan", path, "--format", "json")
        assert told.code == 0, told.err
        assert told.json["outcome"] in ("succeeded", "partial")
        assert trap.secret not in told.out + told.err
        found |= {each["path"] for each in told.json["findings"]}
    assert "settings_of_tools/b.py" in found, "its own settings say to look away"
    assert not trap.ran.exists()
    assert leaked(madlab.home.path, trap.secret.encode()) == []


@pytest.mark.docker
@pytest.mark.ordinarily("runc")
def test_a_repository_that_is_refused_is_told_in_one_sentence(madlab: Madlab, trap: Trap) -> None:
    root = trap.place / "repository"
    REPOSITORIES["linked_files"](trap, root)
    told = madlab("scan", root)
    assert told.code == 2
    assert "link" in told.err
    assert leaked(madlab.home.path, trap.secret.encode()) == []


def unpacked_objects(packed: bytes) -> bytes:
    """What is in the loose git objects of a packed tree."""
    found = b""
    with tarfile.open(fileobj=io.BytesIO(packed or b"\0" * 1024)) as tree:
        for member in tree:
            if re.search(r"\.git/objects/[0-9a-f]{2}/", member.name) and member.isreg():
                file = tree.extractfile(member)
                assert file is not None
                found += zlib.decompress(file.read())
    return found


def leaked(home: Path, secret: bytes) -> list[str]:
    """Where a secret is among all that a lab holds: blobs, also as trees of git objects, and the journal."""
    found = []
    for blob in (home / "blobs").rglob("*"):
        if blob.is_file():
            content = blob.read_bytes()
            with suppress(tarfile.TarError, zlib.error):  # a report, or an archive: searched as it is
                content += unpacked_objects(content)
            if secret in content:
                found.append(blob.name)
    with sqlite3.connect(f"file:{home / 'journal.db'}?mode=ro", uri=True) as journal:
        found += [
            f"message {n}" for (n,) in journal.execute("SELECT sequence FROM body WHERE instr(body, ?)", (secret,))
        ]
    journal.close()
    return found
