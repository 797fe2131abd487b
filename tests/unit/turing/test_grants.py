"""Grants follow from the journal: what is spent is spent, whoever comes at once, and a rebuild brings the same."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from core.rogers.entry import Entry
from core.rogers.journal import Journal
from core.turing.grants import COLUMNS, Grant, Grants, GrantsView, Lease, made_entry, revoked_entry, use_entry
from core.turing.places import address_of, place_of
from protos.errors import Denied
from protos.ids import new_id

URL = "https://api.example.org/repos/x"


@asynccontextmanager
async def books(path: Path) -> AsyncIterator[tuple[Journal, Grants]]:
    async with Journal(path / "journal.db", [GrantsView()]) as journal:
        grants = Grants(journal)
        await grants.load()
        yield journal, grants


def a_grant(id: str = "g1", *, uses: int | None = None, expires: float = 0.0, to: str = "mad:marco") -> Grant:
    return Grant(
        id, "token", to, place_of("api.example.org/repos"), frozenset({"GET"}), expires=expires, uses_left=uses
    )


def a_use(grant: Grant, *, holder: str = "run:1", version: int = 1, until: float = 2e9) -> Entry:
    return use_entry(new_id(), grant, holder, Lease("token", version, until), "GET", URL)


def a_rotation(version: int, *, at_once: bool) -> Entry:
    body = {"act": "secret.rotate", "step": "outcome", "name": "token", "at_once": at_once, "version": version}
    return Entry(f"secret:{new_id()}:outcome", "secret", json.dumps(body).encode(), sender="operator")


async def tables(journal: Journal) -> dict[str, list[tuple[Any, ...]]]:
    return {
        name: await journal.query(f"SELECT * FROM {name} ORDER BY 1, 2")
        for name in ("grants", "leases", "uses", "rotations")
    }


async def test_a_grant_holds_for_its_principal_until_it_is_revoked(tmp_path: Path) -> None:
    async with books(tmp_path) as (journal, grants):
        await journal.append(made_entry(a_grant()))
        (held,) = grants.of(("run:1", "mad:marco"), 0.0)
        assert held.fits("GET", address_of(URL))
        assert not held.fits("POST", address_of(URL))
        assert not held.fits("GET", address_of("https://api.example.org/other"))
        assert grants.of(("run:1", "mad:hopper"), 0.0) == []
        await journal.append(revoked_entry("g1"))
        assert grants.of(("run:1", "mad:marco"), 0.0) == []
        with pytest.raises(Denied, match="rule grant"):
            await journal.append(a_use(held))


async def test_the_last_use_is_had_by_one_and_what_comes_with_the_other_is_not_written(tmp_path: Path) -> None:
    async with books(tmp_path) as (journal, grants):
        await journal.append(made_entry(a_grant(uses=5)))
        grant = grants.get("g1")
        assert grant is not None
        came: list[bool] = []

        async def act(number: int) -> None:
            started = Entry(f"act:{number}:started", "act", b"{}")
            try:
                await journal.append(a_use(grant, holder=f"run:{number}"), started)
            except Denied:
                came.append(False)
            else:
                came.append(True)

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(act, number)
        assert (came.count(True), came.count(False)) == (5, 35)
        assert await journal.query("SELECT count(*) FROM journal WHERE kind = 'act'") == [(5,)]
        assert await journal.query("SELECT uses_left, used FROM grants") == [(0, 5)]
        assert grants.of(("mad:marco",), 0.0) == []


async def test_after_its_time_a_grant_is_refused_by_the_journal_too(tmp_path: Path) -> None:
    async with books(tmp_path) as (journal, grants):
        grant = a_grant(expires=1000.0)
        await journal.append(made_entry(grant))
        assert grants.of(("mad:marco",), 999.0)
        assert grants.of(("mad:marco",), 1000.0) == []
        await journal.append(a_use(grant)._replace(at=999.0))
        with pytest.raises(Denied):
            await journal.append(a_use(grant)._replace(at=1000.0))


async def test_the_same_use_twice_counts_once(tmp_path: Path) -> None:
    async with books(tmp_path) as (journal, grants):
        await journal.append(made_entry(a_grant(uses=2)))
        use = a_use(a_grant())
        await journal.append(use)
        await journal.append(use)
        held = grants.get("g1")
        assert held is not None
        assert (held.uses_left, held.used) == (1, 1)


async def test_a_lease_holds_one_version_for_one_holder_and_counts(tmp_path: Path) -> None:
    async with books(tmp_path) as (journal, grants):
        await journal.append(made_entry(a_grant()))
        await journal.append(a_use(a_grant(), version=1, until=100.0)._replace(at=10.0))
        await journal.append(a_use(a_grant(), version=1, until=100.0)._replace(at=20.0))
        await journal.append(a_use(a_grant(), version=2, until=200.0, holder="run:2")._replace(at=30.0))
        assert grants.lease("run:1", "token", 99.0) == Lease("token", 1, 100.0, 2)
        assert grants.lease("run:1", "token", 100.0) is None
        assert grants.lease("run:2", "token", 99.0) == Lease("token", 2, 200.0, 1)
        assert grants.lease("run:1", "other", 99.0) is None
        assert {principal for principal, _ in grants.leases_on("token", 99.0)} == {"run:1", "run:2"}
        await journal.append(a_use(a_grant(), version=2, until=300.0)._replace(at=150.0))
        assert grants.lease("run:1", "token", 151.0) == Lease("token", 2, 300.0, 1)


@pytest.mark.parametrize("place", ["https://[secret hook]", "[secret hook]", "https://api.example.org/[secret a]/../x"])
async def test_a_grant_that_cannot_be_read_is_left_out_and_the_others_hold(tmp_path: Path, place: str) -> None:
    async with books(tmp_path) as (journal, grants):
        bad = made_entry(a_grant("bad"))
        bad = bad._replace(body=bad.body.replace(str(a_grant().place).encode(), place.encode()))
        await journal.append(made_entry(a_grant("g1")), bad, made_entry(a_grant("g2")))
        await journal.append(a_use(a_grant("bad")), revoked_entry("bad"))
        again = Grants(journal)
        await again.load()
        for each in (grants, again):
            assert [grant.id for grant in each.of(("mad:marco",), 0.0)] == ["g1", "g2"]


async def test_a_use_is_refused_where_the_value_is_older_than_the_last_rotation_and_nobody_holds_it(
    tmp_path: Path,
) -> None:
    async with books(tmp_path) as (journal, grants):
        await journal.append(made_entry(a_grant()))

        async def used(version: int, *, opened: float, at: float, holder: str = "run:1") -> bool:
            lease = Lease("token", version, at + 50.0)
            entry = use_entry(new_id(), a_grant(), holder, lease, "GET", URL, opened)._replace(at=at)
            try:
                await journal.append(entry)
            except Denied:
                return False
            return True

        assert await used(1, opened=10.0, at=11.0)
        await journal.append(a_rotation(2, at_once=False)._replace(at=20.0))
        assert await used(1, opened=15.0, at=21.0)  # its lease goes on
        assert not await used(1, opened=15.0, at=21.0, holder="run:2")
        assert await used(2, opened=15.0, at=21.0, holder="run:2")
        await journal.append(a_rotation(3, at_once=True)._replace(at=30.0))
        assert grants.lease("run:1", "token", 31.0) is None
        assert not await used(1, opened=25.0, at=31.0)
        assert not await used(2, opened=25.0, at=31.0, holder="run:2")
        assert await used(1, opened=32.0, at=33.0)  # a vault that was put back
        assert await used(3, opened=32.0, at=33.0)


async def test_memory_tables_and_a_rebuild_say_the_same(tmp_path: Path) -> None:
    async with books(tmp_path) as (journal, grants):
        for number in range(6):
            to = f"run:{number % 2}"
            await journal.append(made_entry(a_grant(f"g{number}", to=to, uses=None if number % 3 else 4)))
        for number in range(1, 31):
            grant = grants.get(f"g{number % 6}")
            assert grant is not None
            if grant.holds(0.0):
                holder = f"run:{number % 4}"
                await journal.append(a_use(grant, holder=holder, version=1 + number // 10)._replace(at=float(number)))
            if number == 17:
                await journal.append(revoked_entry("g2"))
            if number in (12, 24):
                await journal.append(a_rotation(1 + number // 10, at_once=number == 12)._replace(at=float(number)))
        before = await tables(journal)
        await journal.rebuild("grants")
        assert await tables(journal) == before
        again = Grants(journal)
        await again.load()
        assert list(again.all()) == sorted(grants.all(), key=lambda each: (each.made, each.id))
        for number in range(4):
            assert again.lease(f"run:{number}", "token", 31.0) == grants.lease(f"run:{number}", "token", 31.0)
        assert len(COLUMNS.split(", ")) == len(before["grants"][0])
        assert [each.at for each in await grants.uses("token", limit=3)] == sorted(
            (each.at for each in await grants.uses("token", limit=100)), reverse=True
        )[:3]
