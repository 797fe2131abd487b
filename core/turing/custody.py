"""Custody: what the operator does with the vault. Journalled before and after, one change at a time, on a thread.

The vault changes in one transaction between *started* and *outcome*; a core that dies on the way leaves it as it was
before or as it is after, and the journal says what was tried. A value comes in as a `Secret` and is made known to the
redactor before it is kept.
"""

import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from anyio import Lock as Turn
from anyio import to_thread

from core.rogers.entry import Entry
from core.rogers.journal import Journal
from core.turing.grants import SECRET, Grants, revoked_entry
from core.turing.headers import NAME
from core.turing.keeper import Keeper
from core.turing.lessons import Lessons
from core.turing.secret import Secret
from core.turing.travel import packed, unpacked
from core.turing.vault import Carried, Vault, Version, check_value
from protos.errors import Conflict, Error, InvalidArgument
from protos.ids import new_id

NAMED = 100  # names that the journal has of an import

T = TypeVar("T")
Leases = Mapping[tuple[str, int], float]  # by name and version: the end of the last lease on it


class Custody:
    """The vault in the operator's hands."""

    def __init__(self, keeper: Keeper, grants: Grants, journal: Journal, lessons: Lessons) -> None:
        self._keeper, self._grants, self._journal, self._lessons = keeper, grants, journal, lessons
        self._turn = Turn()

    async def unlock(self, passphrase: str | None = None) -> None:
        """Unlocks the vault; without a passphrase, by what is kept for it.

        Raises:
            Denied: that does not open it; nothing is changed.
            NotFound, Conflict, Unavailable: there is no vault, it is damaged, or what has the key is not there.
        """
        if self._keeper.state.state == "open":
            return
        async with self._noted("vault.unlock"):
            await self._change(lambda: self._keeper.unlock(passphrase))
        await self._change(self._destroy_retired)

    async def create(self, passphrase: str | None = None) -> None:
        """Makes the vault, open; the first secret does so, too, where no passphrase is wanted.

        Raises:
            Conflict: there is one.
            InvalidArgument: it wants a passphrase, or a longer one.
            Denied, Unavailable: the key or the file cannot be kept where it belongs.
        """
        async with self._noted("vault.create"):
            await self._change(lambda: self._keeper.create(passphrase))

    async def set(self, name: str, value: Secret) -> Version:
        """A new secret. The same value again changes nothing, so whoever got no answer may ask again.

        Raises:
            InvalidArgument: that is no name, or no value.
            Conflict: there is one, with another value; or the vault is damaged.
            Unavailable: the vault is locked, or cannot be written.
        """
        check_name(name)
        check_value(name, value)
        if self._keeper.state.state == "none":
            await self.create()
        async with self._noted("secret.set", name=name) as noted:
            made = await self._change(lambda: self._set(self._keeper.unlocked, name, value))
            noted["version"] = made.version
        return made

    def _set(self, vault: Vault, name: str, value: Secret) -> Version:
        if name not in vault:
            self._lessons.learn_all([Secret(value.reveal(), name=name, version=1)])
            return vault.add(name, value, after=0, keep_until=0, now=time.time())
        if vault.read(name) == value:
            return vault.versions(name)[-1]
        raise Conflict(f"There is a secret {name}.", next=f"Give it a new value: madlab secret rotate {name}")

    async def rotate(self, name: str, value: Secret, *, at_once: bool = False) -> Version:
        """A new value. Who holds a lease on the old one keeps it until that ends, unless `at_once`.

        The value that it has already changes nothing, so whoever got no answer may ask again.

        Raises:
            InvalidArgument: that is no value.
            NotFound: there is no such secret.
            Conflict: the vault is damaged.
            Unavailable: the vault is locked, or cannot be written.
        """
        check_value(name, value)
        self._keeper.vault.versions(name)
        async with self._noted("secret.rotate", name=name, at_once=at_once) as noted:
            made = await self._replace(
                lambda leases: self._rotate(self._keeper.unlocked, name, value, {} if at_once else leases)
            )
            noted["version"] = made.version
        await self._change(self._destroy_retired)
        return made

    def _rotate(self, vault: Vault, name: str, value: Secret, leases: Leases) -> Version:
        now, current = time.time(), vault.versions(name)[-1]
        if _has(vault, name, value):
            return current
        self._lessons.learn_all([Secret(value.reveal(), name=name, version=current.version + 1)])
        until = leases.get((name, current.version), now)
        return vault.add(name, value, after=current.version, keep_until=until, now=now)

    async def remove(self, name: str) -> None:
        """Forgets a secret, its versions, and whatever was granted of it.

        Raises:
            NotFound: there is no such secret.
            Conflict: the vault is damaged.
            Unavailable: it cannot be written.
        """
        self._keeper.vault.versions(name)
        async with self._noted("secret.remove", name=name):
            if ends := [revoked_entry(each.id) for each in self._grants.on(name) if not each.revoked]:
                await self._journal.append(*ends)
            await self._change(lambda: self._remove(name))

    def _remove(self, name: str) -> None:
        self._keeper.vault.remove(name)
        self._lessons.forget(name)  # in the same turn: the next may set the name again

    async def rekey(self, passphrase: str | None = None) -> None:
        """A new master key, below a new lock of the way that the settings name.

        Raises:
            InvalidArgument: it wants a new passphrase, or a longer one.
            Denied, Unavailable: the vault is locked, or the new key cannot be kept; what there was still holds.
            NotFound, Conflict: there is no vault, or it is damaged.
        """
        async with self._noted("vault.rekey"):
            await self._change(lambda: self._keeper.rekey(passphrase))

    async def export(self, passphrase: str) -> bytes:
        """Every current value, sealed with a passphrase of its own.

        Raises:
            InvalidArgument: the passphrase is too short.
            Unavailable: the vault is locked.
            NotFound, Conflict: there is no vault, or it is damaged.
        """

        def pack() -> bytes:
            vault = self._keeper.unlocked
            current = [vault.versions(name)[-1] for name in vault.names]
            values = [
                Carried(each.name, each.version, each.created, vault.read(each.name).reveal()) for each in current
            ]
            return packed(values, passphrase)

        async with self._noted("vault.export", secrets=len(self._keeper.vault)):
            return await self._change(pack)

    async def take_in(self, file: bytes, passphrase: str, *, replace: bool = False) -> tuple[list[str], list[str]]:
        """Takes in what `export` made, all or nothing; returns the names that were taken and those that were left.

        A name that is there is left, or with `replace` gets the value as its next version, unless it has it already;
        who holds a lease on the version before keeps that until it ends, as with `rotate`.

        Raises:
            InvalidArgument: that is no exported vault.
            Denied: the passphrase does not open it.
            Unavailable: the vault is locked, or cannot be written.
            Conflict: the vault is damaged.
        """
        if self._keeper.state.state == "none":
            await self.create()
        carried = await self._change(lambda: unpacked(file, passphrase))
        for each in carried:
            check_name(each.name)
            check_value(each.name, Secret(each.value))
        named = [each.name for each in carried[:NAMED]]
        async with self._noted("vault.import", secrets=len(carried), names=named, replace=replace) as noted:
            taken = await self._replace(lambda leases: self._take_in(self._keeper.unlocked, carried, replace, leases))
            noted |= {"secrets": len(taken), "names": taken[:NAMED]}
        await self._change(self._destroy_retired)
        there = set(taken)
        return taken, [each.name for each in carried if each.name not in there]

    def _take_in(self, vault: Vault, carried: Sequence[Carried], replace: bool, leases: Leases) -> list[str]:
        """Returns the names that were taken."""
        taken = [each for each in carried if replace or each.name not in vault]
        new = [each for each in taken if not _has(vault, each.name, Secret(each.value))]
        self._lessons.learn_all(Secret(each.value, name=each.name) for each in new)
        until = {name: end for (name, version), end in leases.items() if version == _current(vault, name)}
        vault.take_in(new, time.time(), until)
        return [each.name for each in taken]

    async def tend(self) -> None:
        """Destroys values that have retired; the core calls it every hour."""
        if self._keeper.state.state == "open":
            await self._change(self._destroy_retired)

    def _destroy_retired(self) -> None:
        self._keeper.vault.destroy_retired(time.time())

    async def _change(self, work: Callable[[], T]) -> T:
        """Runs `work` on a thread, one at a time: whatever waits for the disk or for Argon2id."""
        async with self._turn:
            return await to_thread.run_sync(work)

    async def _replace(self, work: Callable[[Leases], T]) -> T:
        """`_change` for what puts a new value into the place of an old one: it is told of the leases on those."""
        async with self._turn:
            return await to_thread.run_sync(work, self._grants.held(time.time()))

    @asynccontextmanager
    async def _noted(self, act: str, **fields: object) -> AsyncIterator[dict[str, object]]:
        """Journals what the operator does: *started* before, *outcome* after."""
        id, noted = new_id(), dict(fields)

        def entry(step: str, **more: object) -> Entry:
            body = {"act": act, "step": step, **noted, **more}
            return Entry(f"secret:{id}:{step}", SECRET, json.dumps(body).encode(), sender="operator")

        await self._journal.append(entry("started"))
        try:
            yield noted
        except BaseException as error:
            failed = error.code if isinstance(error, Error) else type(error).__name__
            self._journal.append_soon(entry("outcome", failed=failed))
            raise
        await self._journal.append(entry("outcome"))


def _current(vault: Vault, name: str) -> int:
    """0: there is none."""
    return vault.versions(name)[-1].version if name in vault else 0


def _has(vault: Vault, name: str, value: Secret) -> bool:
    """Whether that is its value already; one that was damaged is no value."""
    try:
        return name in vault and vault.read(name) == value
    except Conflict:
        return False


def check_name(name: str) -> None:
    """
    Raises:
        InvalidArgument: that is no name of a secret.
    """
    if not re.fullmatch(NAME, name):
        raise InvalidArgument(
            f"{name[:64]!r} is no name for a secret.",
            next="Use letters, digits, . _ and -, at most 64; a letter or digit first.",
        )
