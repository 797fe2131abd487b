"""Turing: secrets for those who may use them, where they may, and nothing for anybody else.

    keeper.py ▸ vault.py   what is kept, sealed        grants.py   who may use what, where; what was used
                 └────────────────┬───────────────────────┘
                               turing.py   one request: which grants fit, what goes into it, what is journalled

Rules of the file
  1. A value leaves as a `Secret`, for a request that a grant names exactly, together with the entry of its use. Whoever
     asked hands the entry to the journal in the transaction that starts the act, and only then lets the value go:
     where the grant was spent or revoked meanwhile, that append is refused, and nothing is sent.
  2. The most exact grant wins: the longest path, then the narrowest principal, then the oldest. One grant is one use a
     request, however often its handle stands in it.
  3. Whatever is opened is made known to the redactor first.
  4. The core runs with a locked vault, or without one. Only what needs a value says so.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import Self

from anyio import to_thread

from core.rogers.entry import Entry
from core.rogers.journal import Journal
from core.turing.custody import Custody
from core.turing.grants import Grant, Grants, Lease, made_entry, revoked_entry, spent, use_entry
from core.turing.headers import adding_of, fill_handles, is_for_secrets
from core.turing.keeper import Keeper, VaultState
from core.turing.lessons import Learner, Lessons
from core.turing.places import Address, Place, address_of, is_loopback
from core.turing.secret import Secret
from core.turing.settings import Vault as Settings
from core.turing.vault import Version
from protos.errors import Conflict, Denied, InvalidArgument
from protos.ids import new_id


@dataclass(frozen=True, slots=True)
class Credential:
    """A header that a grant adds to a request. Journal `entry` with *started*, then send."""

    header: str
    value: Secret
    entry: Entry


@dataclass(frozen=True, slots=True)
class Revealed:
    """Headers with handles replaced: those are a `Secret` now. Journal `entries` with *started*, then send."""

    headers: tuple[tuple[str, bytes | Secret], ...]
    entries: tuple[Entry, ...]


class Turing:
    """The secrets of a lab. Enter it to open the vault, if there is one that can be unlocked without a person."""

    def __init__(
        self, home: Path, lab: str, journal: Journal, settings: Settings, learner: Learner | None = None
    ) -> None:
        """`learner` is told each value before it is used."""
        self.grants = Grants(journal)
        self._journal, self._lessons = journal, Lessons(learner)
        self._keeper = Keeper(home, lab, settings, learn=self._lessons.learn_all)
        self._lease_s = settings.lease_s
        self.custody = Custody(self._keeper, self.grants, journal, self._lessons)

    async def __aenter__(self) -> Self:
        await self.grants.load()
        await to_thread.run_sync(self._keeper.open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeper.close()

    @property
    def state(self) -> VaultState:
        """How the vault is."""
        return self._keeper.state

    # --- for one request

    def credentials(
        self, principals: Sequence[str], method: str, url: str, *, having: Collection[str] = ()
    ) -> list[Credential]:
        """The headers that grants of `principals` add to a request by themselves, one a header.

        `having` are headers, in lower case, that are not to be added: a handle filled them.

        Raises:
            InvalidArgument: `url` is no address.
            Denied: a value cannot stand in a header.
            Unavailable: a grant fits, and the vault is locked.
        """
        now, address = time.time(), address_of(url)
        found: list[Credential] = []
        taken = set(having)
        for grant in self._fitting(principals, method, address, now):
            adding = adding_of(grant.use)
            if adding is None or adding.header.lower() in taken:
                continue
            taken.add(adding.header.lower())
            value, entry = self._used(grant, principals, method, address, now)
            found.append(Credential(adding.header, adding.filled(value), entry))
        return found

    def reveal_in(
        self, principals: Sequence[str], method: str, url: str, headers: Sequence[tuple[str, bytes]]
    ) -> Revealed:
        """`headers` with each handle `secret://NAME` replaced, where a grant of `principals` is for this very request.

        Raises:
            InvalidArgument: `url` is no address.
            Denied: rule *grant*: a handle that was not granted for this host, path, method and header.
            Unavailable: the vault is locked.
        """
        now, address = time.time(), address_of(url)
        opened: dict[str, tuple[Secret, Entry]] = {}
        revealed: list[tuple[str, bytes | Secret]] = []

        for header, value in headers:

            def open_secret(name: str, header: str = header) -> Secret:
                grant = self._grant_for(name, header, principals, method, address, now)
                if grant.id not in opened:
                    opened[grant.id] = self._used(grant, principals, method, address, now)
                return opened[grant.id][0]

            filled = fill_handles(header, value, open_secret)
            revealed.append((header, value if filled is None else filled))
        return Revealed(tuple(revealed), tuple(entry for _, entry in opened.values()))

    def handles(self, principals: Sequence[str]) -> list[Grant]:
        """What was granted to any of `principals` and still holds."""
        return self.grants.of(principals, time.time())

    def check_use(self, principals: Sequence[str], name: str, method: str = "", url: str = "") -> None:
        """Whether one of `principals` could use a secret now: anywhere, or for that method and address.

        Raises:
            InvalidArgument: `url` is no address.
            Denied: rule *grant*: there is no such grant, or no such secret.
        """
        address = address_of(url) if url else None
        for each in self.grants.of(principals, time.time()):
            by_method = not method or not each.methods or method in each.methods
            if each.name == name and by_method and (address is None or each.place.holds(address)):
                return
        where = f"{address.origin}{address.path[:200]}" if address is not None else "HOST[/PATH]"
        word = quote(name[:64])
        command = f"madlab secret grant {word} --to {principals[-1]} --for {where}"
        if method:
            command += f" --methods {quote(method[:20])}"
        if self.state.state != "damaged" and name not in self.names():
            raise Denied(
                f"rule grant: there is no secret {name[:64]}.", next=f"madlab secret set {word}, and then: {command}"
            )
        what = " ".join(each for each in (method[:20], where if address is not None else "") if each)
        raise Denied(
            f"rule grant: {principals[-1]} has no grant of {name[:64]}{f' for {what}' if what else ''}.",
            next=f"The operator can make one: {command}",
        )

    def open(self, name: str) -> Secret:
        """The current value, for the core's own use: a key that the operator's settings name.

        Raises:
            NotFound: there is no such secret, or no vault.
            Unavailable: the vault is locked.
            Conflict: the vault is damaged.
        """
        return self._lessons.learn(self._keeper.unlocked.read(name))

    def _fitting(self, principals: Sequence[str], method: str, address: Address, now: float) -> list[Grant]:
        """The grants that fit a request, the most exact first."""
        held = self.grants.of(principals, now, address.host)
        found = [each for each in held if each.fits(method, address)]
        return sorted(found, key=lambda each: -len(each.place.segments))

    def _grant_for(
        self, name: str, header: str, principals: Sequence[str], method: str, address: Address, now: float
    ) -> Grant:
        for grant in self._fitting(principals, method, address, now):
            adding = adding_of(grant.use)
            fits = is_for_secrets(header) if adding is None else adding.header.lower() == header.lower()
            if grant.name == name and fits:
                return grant
        had = (each for each in self.grants.on(name) if each.principal in principals and each.fits(method, address))
        if any(not each.holds(now) for each in had):
            raise spent(name)
        place = f"{address.origin}{address.path[:200]}"
        raise Denied(
            f"rule grant: {principals[-1]} may not use {name} for {method} {place} in the header {header[:64]}.",
            next=f"The operator can grant it: madlab secret grant {name} --to {principals[-1]} --for {place}"
            f" --methods {method}" + ("" if is_for_secrets(header) else f" --as {quote(f'header:{header[:64]}={{}}')}"),
        )

    def _used(
        self, grant: Grant, principals: Sequence[str], method: str, address: Address, now: float
    ) -> tuple[Secret, Entry]:
        """The value, of the version that the holder's lease names, and the entry of its use."""
        vault, holder = self._keeper.vault, principals[0]
        if grant.name not in vault:
            raise Denied(f"rule grant: the secret {grant.name} is gone.", next="See: madlab secret list")
        lease = self.grants.lease(holder, grant.name, now)
        versions = {each.version: each for each in vault.versions(grant.name)}
        if lease is None or lease.version not in versions or versions[lease.version].state(now) == "retired":
            until = now + self._lease_s
            lease = Lease(grant.name, max(versions), min(until, grant.expires) if grant.expires else until)
        secret = self._lessons.learn(self._keeper.unlocked.read(grant.name, lease.version, now=now))
        return secret, use_entry(new_id(), grant, holder, lease, method, f"{address.origin}{address.path}", now)

    # --- for the operator: what there is

    def names(self) -> list[str]:
        """Every secret's name; none where there is no vault."""
        return self._keeper.vault.names if self.state.state in ("locked", "open") else []

    def versions(self, name: str) -> Sequence[Version]:
        """Every version there was, the oldest first.

        Raises:
            NotFound: there is no such secret, or no vault.
            Conflict: the vault is damaged.
        """
        return self._keeper.vault.versions(name)

    # --- for the operator: grants

    async def grant(
        self, id: str, name: str, principal: str, place: Place, methods: frozenset[str], use: str, *,
        expires: float = 0.0, uses: int | None = None,
    ) -> Grant:  # fmt: skip
        """Lets `principal` use a secret there. The same `id` again is the same grant.

        Raises:
            InvalidArgument: `use` says nothing that can be done, or the secret would travel in clear, or the words of
                the grant hold a secret's value themselves: the journal would keep other words.
            NotFound: there is no such secret.
            Conflict: the id belongs to another grant.
            Unavailable: the journal is sealed.
        """
        self.versions(name)
        adding_of(use)
        if place.scheme == "http" and not is_loopback(place.host):
            raise InvalidArgument(
                "A secret travels over https, or on this machine.", next=f"Grant it for https://{place.host}"
            )
        words = {"place": str(place), "use": use, "principal": principal, "name": name, "id": id}
        for what, text in (words | {"methods": " ".join(methods)}).items():
            if (value_of := self._lessons.found(text)) is not None:
                raise InvalidArgument(
                    f"rule secret: the {what} of the grant has in it the value of the secret {value_of}.",
                    next=f"Grant it in other words, such as a shorter path; or give {value_of} another value.",
                )
        wanted = Grant(id, name, principal, place, methods, use, expires=expires, uses_left=uses)
        if self.grants.get(id) is None:
            await self._journal.append(made_entry(wanted))
        found = self.grants.get(id)
        if found is None or (found.name, found.principal, found.place) != (name, principal, place):
            raise Conflict(f"There is another grant {id}.", next="Try again.")
        return found

    async def revoke(self, grants: Sequence[Grant]) -> None:
        """Ends grants. A use that has started is not called back.

        Raises:
            Unavailable: the journal is sealed.
        """
        if ends := [revoked_entry(each.id) for each in grants if not each.revoked]:
            await self._journal.append(*ends)
