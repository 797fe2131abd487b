"""How fast files go in and out, and how much memory that takes, each figure beside its baseline in the same run.

The baselines are what a careful person would write by hand: read, hash, write and sync in one thread for a blob, `tar`
for a tree, `git ls-files` for a listing.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

from anyio import to_thread

from core.horace.snapshot import take
from core.horace.store import Horace
from protos.tree import pack, unpack, walk
from tests.bench.figure import Figure, in_turns
from tests.integration.test_horace_memory import EXTRA, extra_memory
from tests.unit.horace.ledger import Ledger

MIB = 1024 * 1024
CHUNK = bytes(range(256)) * 1024
SIZE = 64 * MIB
FILES = 1000

Act = Callable[[], object]


async def run() -> list[Figure]:
    """Medians of ten rounds, ours and the baseline in turns."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        size = 256 * MIB
        extra = await to_thread.run_sync(extra_memory, place / "memory", size)
        return [
            *await blobs(place),
            *await trees(place),
            Figure(f"{size // MIB} MiB in and out: extra memory", extra / MIB, "MiB", "limit", EXTRA / MIB, 1.0),
        ]


async def blobs(place: Path) -> list[Figure]:
    """One big blob and small ones, in and out."""
    round_number = 0
    digest = ""

    def content() -> Iterator[bytes]:
        for at in range(SIZE // len(CHUNK)):
            yield round_number.to_bytes(4, "big") + at.to_bytes(4, "big") + CHUNK[8:]

    async def source() -> AsyncIterator[bytes]:
        for each in content():
            yield each

    async def small() -> AsyncIterator[bytes]:
        yield os.urandom(1024)

    async def put() -> None:
        nonlocal digest, round_number
        round_number += 1
        digest = (await horace.put(source())).digest

    async def get() -> None:
        async with aclosing(horace.get(digest)) as chunks:  # type: ignore[type-var]
            async for _ in chunks:
                pass

    def put_by_hand() -> None:
        hasher = hashlib.sha256()
        with (place / f"hand{round_number}").open("wb") as file:
            for each in content():
                hasher.update(each)
                file.write(each)
            file.flush()
            os.fsync(file.fileno())

    def get_by_hand() -> None:
        hasher = hashlib.sha256()
        with (place / f"hand{round_number}").open("rb") as file:
            while step := file.read(MIB):
                hasher.update(step)

    def small_by_hand() -> None:
        with (place / f"small{time.monotonic_ns()}").open("wb") as file:
            file.write(os.urandom(1024))
            file.flush()
            os.fsync(file.fileno())

    async with Horace(place / "files", Ledger(place / "ledger"), quota_bytes=64 * SIZE) as horace:
        into = await in_turns({"horace": timed(put), "hand": timed(threaded(put_by_hand))})
        out = await in_turns({"horace": timed(get), "hand": timed(threaded(get_by_hand))})
        tiny = await in_turns({"horace": timed(lambda: horace.put(small())), "hand": timed(threaded(small_by_hand))})
    hand = "one thread: hash, write, fsync"
    return [
        Figure("a blob in", rate(into["horace"]), "MiB/s", hand, rate(into["hand"]), higher_is_better=True),
        Figure("a blob out, checked", rate(out["horace"]), "MiB/s", hand, rate(out["hand"]), higher_is_better=True),
        Figure("1 KiB in, durable", tiny["horace"] * 1000, "ms", "write and fsync", tiny["hand"] * 1000),
    ]


async def trees(place: Path) -> list[Figure]:
    """A repository listed, packed and unpacked."""
    tree, packed, out = repository(place / "tree"), place / "tree.tar", place / "out"

    def pack_tree() -> None:
        with packed.open("wb") as file:
            file.writelines(pack(tree, walk(tree)))

    def unpack_tree() -> None:
        with packed.open("rb") as file:
            unpack(iter(lambda: file.read(len(CHUNK)), b""), out)
        shutil.rmtree(out)

    def untar() -> None:
        out.mkdir()
        program(["tar", "-xf", packed, "-C", out])()
        shutil.rmtree(out)

    tar = program(["tar", "--format=posix", "-cf", place / "by.tar", "-C", tree, "."])
    git = program(["git", "ls-files", "-co", "--exclude-standard"], tree)
    listed = await in_turns({"madlab": timed(threaded(lambda: take(tree))), "git": timed(threaded(git))})
    packing = await in_turns({"madlab": timed(threaded(pack_tree)), "tar": timed(threaded(tar))})
    unpacking = await in_turns({"madlab": timed(threaded(unpack_tree)), "tar": timed(threaded(untar))})
    return [
        Figure(f"{FILES:,} files listed", listed["madlab"] * 1000, "ms", "git ls-files", listed["git"] * 1000),
        Figure(f"{FILES:,} files packed", packing["madlab"] * 1000, "ms", "tar", packing["tar"] * 1000),
        Figure(f"{FILES:,} files unpacked, removed", unpacking["madlab"] * 1000, "ms", "tar", unpacking["tar"] * 1000),
    ]


def rate(seconds: float) -> float:
    """MiB a second, for one blob."""
    return SIZE / MIB / seconds


def timed(act: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[float]]:
    """The seconds that `act` takes."""

    async def measure() -> float:
        began = time.perf_counter()
        await act()
        return time.perf_counter() - began

    return measure


def threaded(act: Act) -> Callable[[], Awaitable[object]]:
    """`act` in a thread."""
    return lambda: to_thread.run_sync(act)


def program(command: Sequence[str | Path], directory: Path | None = None) -> Act:
    """A program's run as an act."""
    return lambda: subprocess.run(command, cwd=directory, check=True, capture_output=True)


def repository(root: Path) -> Path:
    """A git repository of small files, half of them tracked, with a few ignore rules."""
    for at in range(FILES):
        path = root / f"package{at % 50}" / f"module{at % 7}" / f"file{at}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CHUNK[: at % 8192])
    (root / ".gitignore").write_text("*.pyc\n__pycache__/\n/build/\ndocs/**/out\n*.egg-info/\n.venv\n")
    program(["git", "init", "-q"], root)()
    program(["git", "add", "--", *(f"package{at}" for at in range(25))], root)()
    return root
