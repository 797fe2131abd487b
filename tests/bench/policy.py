"""What a decision costs: among ten rules and a thousand, and what the whole gate adds to an act.

A decision is looked up by principal, place and path. The baseline reads the rules downwards, as a person does; beside
that stand the shapes an adversary would choose: a thousand rules for one host, a path that servers read in several
ways, a name of a hundred labels.
"""

import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from core.policy.acts import Act
from core.policy.approvals import ApprovalsView
from core.policy.capabilities import Identity
from core.policy.policy import Policy
from core.policy.rules import BUILT_IN, parse_policy, read_policy
from core.policy.taint import TaintView
from core.policy.targets import address_of, within
from core.ports.acting import acting
from core.ports.services import Services
from core.registry import Registry
from core.rogers.bus import Rogers
from core.rogers.entry import Entry
from core.rogers.journal import Journal
from core.rogers.views import VIEWS
from protos.ids import new_id
from tests.bench.figure import Figure, in_turns

RULES = 1000
DECISIONS, ACTS = 1000, 200
LIMIT_US = 50.0


async def run() -> list[Figure]:
    """Decisions, then acts."""
    spread = of(*(rule(number, f"'h{number}.test', '*.d{number}.test'", f"/v{number}") for number in range(RULES)))
    few = of(*(rule(number, f"'h{number}.test', '*.d{number}.test'", f"/v{number}") for number in range(10)))
    one_host = of(*(rule(number, "'one.test'", f"/a/b{number}", "deny") for number in range(RULES)))
    last = RULES - 1
    found = await in_turns(
        {
            "few": partial(decisions, few, fetch("https://h9.test/v9/x?a=b", 9)),
            "spread": partial(decisions, spread, fetch(f"https://h{last}.test/v{last}/x?a=b", last)),
            "domain": partial(decisions, spread, fetch(f"https://a.b.d{last}.test/v{last}", last)),
            "none": partial(decisions, spread, fetch("https://nowhere.test/", last)),
            "call": partial(decisions, spread, Act("bus.call", ("run:x", "mad:m1"), "hopper.work")),
            "one host": partial(decisions, one_host, fetch(f"https://one.test/a/b{last}/c", 1)),
            "unclear": partial(decisions, one_host, fetch("https://one.test/a/%2e%2e/b", 1)),
            "long": partial(decisions, spread, fetch(f"https://{'a.' * 100}d1.test{'/a' * 500}", 1)),
            "downwards": partial(downwards, spread, fetch(f"https://h{last}.test/v{last}/x?a=b", last)),
        }
    )
    names = {
        "spread": f"a decision among {RULES:,} rules",
        "domain": "... by domain",
        "none": "... that no rule is about",
        "call": "... about a call",
        "one host": f"... {RULES:,} rules for one host",
        "unclear": "... and an unclear path",
        "long": "... a host of 100 labels, a path of 500",
    }
    figures = [Figure("a decision among 10 rules", found["few"], "µs", "limit", LIMIT_US, 1.0)]
    figures += [Figure(name, found[key], "µs", "limit", LIMIT_US, 1.0) for key, name in names.items()]
    figures.append(Figure(f"{RULES:,} rules, looked up", found["spread"], "µs", "read downwards", found["downwards"]))
    with TemporaryDirectory() as directory:
        gate = await acts(Path(directory))
    figures.append(Figure("an act through the gate", gate["gate"], "µs", "its two entries alone", gate["entries"]))
    return figures


def of(*rules: str) -> Policy:
    return Policy([parse_policy("".join(rules), "bench.toml"), read_policy(BUILT_IN)])


def rule(number: int, hosts: str, path: str, verdict: str = "allow") -> str:
    return (
        f'[[rules]]\nname = "r{number}"\nkinds = ["web.fetch"]\nprincipals = ["mad:m{number % 20}", "mad:m1"]\n'
        f'hosts = [{hosts}]\npaths = ["{path}"]\nmethods = ["GET", "HEAD"]\nverdict = "{verdict}"\n'
    )


def fetch(url: str, number: int) -> Act:
    principals = ("run:m-0123456789", f"mad:m{number % 20}")
    return Act("web.fetch", principals, url, {"method": "GET"}, frozenset({"worker", "web"}))


async def decisions(policy: Policy, act: Act) -> float:
    """Microseconds of one."""
    began = time.perf_counter()
    for _ in range(DECISIONS):
        policy.decide(act)
    return (time.perf_counter() - began) / DECISIONS * 1e6


async def downwards(policy: Policy, act: Act) -> float:
    """Microseconds of reading all rules until one matches."""
    began = time.perf_counter()
    address = address_of(act.target)
    assert address is not None
    for each in policy.rules:
        if act.principals[-1] in each.principals and act.kind in each.kinds and within(address, each.hosts):
            break
    return (time.perf_counter() - began) * 1e6


async def acts(directory: Path) -> dict[str, float]:
    """Microseconds of an act with an empty body, and of its two entries without the gate. Nothing is synced: a disk
    takes a hundred times as long, and would hide what is looked for."""
    journal_ = Journal(directory / "journal.db", [*VIEWS, ApprovalsView(), TaintView()], synchronous="OFF")
    async with journal_ as journal, Rogers(journal) as rogers:
        services = Services(journal, rogers, cast(Any, None), Registry([]))
        who = Identity("echo", frozenset({"files"}), run="echo-1", conversation="c")

        async def gate() -> None:
            async with acting(services, who, Act("files.put", who.principals, "a"), name="a") as added:
                added["size"] = 1

        async def entries() -> None:
            id = new_id()
            for step in ("started", "outcome"):
                await journal.append(Entry(f"act:{id}:{step}", "act", b'{"act": "files.put"}', "c", "echo-1"))

        return await in_turns({"gate": partial(timed, gate), "entries": partial(timed, entries)})


async def timed(act: Callable[[], Awaitable[None]]) -> float:
    """The median of many, in microseconds."""
    taken = []
    for _ in range(ACTS):
        began = time.perf_counter()
        await act()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e6
