"""How fast files go in and out, each figure beside its baseline in the same run: `python -m tests.bench.files`.

The baselines are what a careful person would write by hand: read, hash, write and sync in one thread for a blob,
`tar` for a tree, `git ls-files` for a listing.
"""

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import anyio

from core.horace.snapshot import take
from core.horace.store import Horace
from protos.tree import pack, unpack, walk
from tests.unit.horace.ledger import Ledger

MIB = 1024 * 1024
CHUNK = bytes(range(256)) * 1024
ROUNDS = 10
FILES = 1000

Act = Callable[[], Awaitable[object]]


async def figures(directory: Path, size: int = 64 * MIB) -> list[dict[str, object]]:
    """Rows of {name, value, baseline, unit, better}; medians of ten rounds, ours and the baseline in turns."""
    rows: list[dict[str, object]] = []
    round_number = 0

    async def data() -> AsyncIterator[bytes]:
        for place in range(size // len(CHUNK)):
            yield round_number.to_bytes(4, "big") + place.to_bytes(4, "big") + CHUNK[8:]

    def by_hand() -> None:
        hasher = hashlib.sha256()
        with (directory / f"hand{round_number}").open("wb") as file:
            for place in range(size // len(CHUNK)):
                chunk = round_number.to_bytes(4, "big") + place.to_bytes(4, "big") + CHUNK[8:]
                hasher.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())

    def read_by_hand() -> None:
        hasher = hashlib.sha256()
        with (directory / f"hand{ROUNDS}").open("rb") as file:
            while chunk := file.read(MIB):
                hasher.update(chunk)

    async def compare(name: str, unit: str, of: Callable[[float], float], ours: Act, baseline: Act) -> None:
        nonlocal round_number
        round_number = 0
        taken: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            round_number += 1
            for times, act in zip(taken, (ours, baseline), strict=True):
                began = time.perf_counter()
                await act()
                times.append(time.perf_counter() - began)
        value, hand = (of(statistics.median(times)) for times in taken)
        better = "higher" if unit.endswith("/s") else "lower"
        rows.append({"name": name, "value": value, "baseline": hand, "unit": unit, "better": better})

    def rate(seconds: float) -> float:
        return size / MIB / seconds

    def milliseconds(seconds: float) -> float:
        return seconds * 1000

    async with Horace(directory / "files", Ledger(directory / "ledger"), quota_bytes=64 * size) as horace:
        digest = ""

        async def put() -> None:
            nonlocal digest
            digest = (await horace.put(data())).digest

        async def get() -> None:
            async with aclosing(horace.get(digest)) as chunks:  # type: ignore[type-var]
                async for _ in chunks:
                    pass

        async def put_small() -> None:
            async def small() -> AsyncIterator[bytes]:
                yield os.urandom(1024)

            await horace.put(small())

        def small_by_hand() -> None:
            with (directory / f"small{round_number}").open("wb") as file:
                file.write(os.urandom(1024))
                file.flush()
                os.fsync(file.fileno())

        await compare("a blob in", "MiB/s", rate, put, in_thread(by_hand))
        await horace.sweep([digest], idle_s=-1)
        await compare("a blob out", "MiB/s", rate, get, in_thread(read_by_hand))
        await compare("1 KiB in, synced", "ms", milliseconds, put_small, in_thread(small_by_hand))

    tree = a_repository(directory / "tree")
    packed = directory / "tree.tar"

    def pack_tree() -> None:
        with packed.open("wb") as file:
            file.writelines(pack(tree, walk(tree)))

    def unpack_tree() -> None:
        with packed.open("rb") as file:
            unpack(iter(lambda: file.read(len(CHUNK)), b""), directory / "out")
        shutil.rmtree(directory / "out")

    def untar() -> None:
        (directory / "out").mkdir()
        subprocess.run(["tar", "-xf", packed, "-C", directory / "out"], check=True, stderr=subprocess.DEVNULL)
        shutil.rmtree(directory / "out")

    tar: list[str | Path] = ["tar", "--format=posix", "-cf", directory / "by.tar", "-C", tree, "."]
    listing = ["git", "ls-files", "-co", "--exclude-standard"]
    await compare(f"{FILES:,} files packed", "ms", milliseconds, in_thread(pack_tree), program(tar))
    await compare(f"{FILES:,} files unpacked, removed", "ms", milliseconds, in_thread(unpack_tree), in_thread(untar))
    await compare(f"{FILES:,} files listed", "ms", milliseconds, in_thread(lambda: take(tree)), program(listing, tree))
    return rows


def in_thread(function: Callable[[], object]) -> Act:
    """`function` as an act."""
    return lambda: anyio.to_thread.run_sync(function)


def program(command: Sequence[str | Path], directory: Path | None = None) -> Act:
    """A program's run as an act."""
    return in_thread(lambda: subprocess.run(command, cwd=directory, check=True, capture_output=True))


def a_repository(root: Path) -> Path:
    """A git repository of small files, half of them tracked, with a few ignore rules."""
    for place in range(FILES):
        path = root / f"package{place % 50}" / f"module{place % 7}" / f"file{place}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CHUNK[: place % 8192])
    (root / ".gitignore").write_text("*.pyc\n__pycache__/\n/build/\ndocs/**/out\n*.egg-info/\n.venv\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    tracked = [f"package{place}" for place in range(25)]
    subprocess.run(["git", "add", "--", *tracked], cwd=root, check=True)
    return root


def table(rows: list[dict[str, object]]) -> Iterator[str]:
    """The rows for people."""
    yield f"{'files':34} {'madlab':>10} {'by hand':>10} {'unit':>6}"
    for row in rows:
        yield f"{row['name']!s:34} {row['value']:10.1f} {row['baseline']:10.1f} {row['unit']!s:>6}"


def main() -> None:
    """Prints the table, then the rows as JSON."""
    with tempfile.TemporaryDirectory() as directory:
        rows = anyio.run(figures, Path(directory))
    sys.stdout.write("\n".join([*table(rows), json.dumps(rows)]) + "\n")


if __name__ == "__main__":
    main()
