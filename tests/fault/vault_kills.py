"""Kills a process that rotates, grants and rekeys, at random moments and many times, and looks at what is left.

`python -m tests.fault.vault_kills HOME ROUNDS SEED` prints one JSON object. It forks its victims and those who look
afterwards, so that a round costs milliseconds and not the import of the libraries; it has no thread and no loop itself.
"""

import json
import os
import random
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio

from core.rogers.journal import Journal
from core.turing.grants import GrantsView
from core.turing.places import place_of
from core.turing.secret import Secret
from core.turing.settings import Vault as Settings
from core.turing.turing import Turing
from protos.errors import Denied

NAMES = ("alpha", "beta", "gamma")
SETTINGS = Settings.model_validate({"key_file": "vault.key", "lease_s": 0})


def value_of(name: str, version: int) -> bytes:
    return f"the value of {name}, version {version}".encode()


def say(out: int, *words: object) -> None:
    os.write(out, (" ".join(map(str, words)) + "\n").encode())


async def work(home: Path, turn: int, out: int) -> None:
    """Rotates, grants, revokes and rekeys until it is killed; tells what was acknowledged."""
    async with (
        Journal(home / "journal.db", [GrantsView()]) as journal,
        Turing(home, "lab", journal, SETTINGS) as turing,
    ):
        for name in NAMES:
            if name not in turing.names():
                await turing.custody.set(name, Secret(value_of(name, 1)))
        say(out, "ready")
        for number in range(1_000_000):
            name = NAMES[number % len(NAMES)]
            if (number + turn) % 2:  # most kills meet what comes first
                say(out, "try", "rekey")
                await turing.custody.rekey()
                say(out, "rekeyed", turing.state.secrets)
            say(out, "try", "rotate")
            version = turing.versions(name)[-1].version + 1
            await turing.custody.rotate(name, Secret(value_of(name, version)))
            say(out, "rotated", name, version)
            grant = f"g{turn}n{number}"
            say(out, "try", "grant")
            await turing.grant(grant, name, "mad:marco", place_of("api.example.org"), frozenset({"GET"}), "", uses=1)
            say(out, "granted", grant)
            say(out, "try", "use")
            used = turing.reveal_in(
                ("mad:marco",), "GET", "https://api.example.org/", [("Cookie", f"secret://{name}".encode())]
            )
            await journal.append(*used.entries)
            say(out, "used", json.loads(used.entries[0].body)["grant"])


async def look(home: Path, turn: int, out: int) -> None:
    """Opens what is left and tells all of it, as one line."""
    found: dict[str, Any] = {}
    async with (
        Journal(home / "journal.db", [GrantsView()]) as journal,
        Turing(home, "lab", journal, SETTINGS) as turing,
    ):
        found["state"] = turing.state.state
        found["reason"] = turing.state.reason
        found["keys"] = sum(not each.startswith("#") for each in (home / "vault.key").read_text().splitlines())
        found["versions"] = {}
        for name in turing.names():
            for each in turing.versions(name):
                try:
                    read = turing._keeper.vault.read(name, each.version).reveal()
                except Denied:
                    read = b""
                found["versions"][f"{name} {each.version}"] = read.decode()
        found["grants"] = {each.id: each.uses_left for each in turing.grants.all()}
        rows = await journal.query("SELECT id, uses_left FROM grants")
        found["tables agree"] = dict(rows) == found["grants"]
        found["chain"] = (await journal.verify()).ok
        found["strays"] = sorted(each.name for each in home.iterdir() if each.name.startswith("vault.db-"))
    say(out, json.dumps(found))


def forked(body: Callable[[Path, int, int], Awaitable[None]], home: Path, turn: int) -> tuple[int, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            anyio.run(body, home, turn, writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    return child, reading


def main(home: Path, rounds: int, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    problems: list[str] = []
    rotated: dict[str, int] = {}
    granted: set[str] = set()
    used: set[str] = set()
    caught: Counter[str] = Counter()  # what was under way when the kill came
    for turn in range(rounds):
        child, reading = forked(work, home, turn)
        said = until_killed(child, reading, chance.uniform(0.0, 0.12), at_once=turn % 6 == 5)
        for line in said.splitlines():
            match line.split():
                case ["rotated", name, version]:
                    rotated[name] = int(version)
                case ["granted", grant]:
                    granted.add(grant)
                case ["used", grant]:
                    used.add(grant)
        last = (said.splitlines() or [""])[-1].split()
        if last[:1] == ["try"]:
            caught[last[1]] += 1
        child, reading = forked(look, home, turn)
        told = rest(reading)
        os.close(reading)
        _, status = os.waitpid(child, 0)
        if status:
            problems.append(f"round {turn}: what is left cannot be opened")
            break
        problems += [f"round {turn}: {each}" for each in _wrong(json.loads(told), rotated, granted, used)]
    return {"rounds": rounds, "problems": problems, "caught": dict(caught), "rotations": sum(rotated.values())}


def _wrong(found: dict[str, Any], rotated: dict[str, int], granted: set[str], used: set[str]) -> list[str]:
    """What is neither wholly before nor wholly after."""
    if not found["versions"] and not rotated:
        return []  # killed before anything was kept
    wrong = []
    if found["state"] != "open":
        wrong.append(f"the vault is {found['state']}: {found['reason']}")
    if found["keys"] != 1:
        wrong.append(f"{found['keys']} keys are kept")
    current: dict[str, int] = {}
    for each, text in found["versions"].items():
        name, version = each.split()
        current[name] = max(current.get(name, 0), int(version))
        if text and text.encode() != value_of(name, int(version)):
            wrong.append(f"{each} reads {text!r}")
    for name, version in current.items():
        if not found["versions"][f"{name} {version}"]:
            wrong.append(f"the current version of {name} cannot be read")
        if version not in (rotated.get(name, 1), rotated.get(name, 1) + 1):
            wrong.append(f"{name} is at {version}, acknowledged was {rotated.get(name)}")
        rotated[name] = version
    wrong += [f"grant {each} is gone" for each in granted if each not in found["grants"]]
    wrong += [f"the use of {each} is gone" for each in used if found["grants"].get(each) != 0]
    wrong += [each for each in ("tables agree", "chain") if not found[each]]
    wrong += [f"{each} was left" for each in found["strays"]]
    return wrong


def until_killed(child: int, reading: int, seconds: float, *, at_once: bool) -> str:
    """Kills after about `seconds` of work (or of life), and returns what was said."""
    said = b""
    end = time.monotonic() + seconds if at_once else None
    while end is None or time.monotonic() < end:
        ready, _, _ = select.select([reading], [], [], 30.0 if end is None else max(0.0, end - time.monotonic()))
        if ready:
            chunk = os.read(reading, 65536)
            if not chunk:
                raise RuntimeError(f"the victim ended by itself, having said {said[-300:]!r}")
            said += chunk
        if end is None and b"ready" in said:
            end = time.monotonic() + seconds
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    said += rest(reading)
    os.close(reading)
    return said.decode()


def rest(reading: int) -> bytes:
    said = b""
    while chunk := os.read(reading, 65536):
        said += chunk
    return said


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
