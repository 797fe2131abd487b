"""The vault: one file of sealed values, opened with one key, changed in one transaction or not at all.

    lock key  (passphrase, key file or system store; never in the vault)
      └─ seals the master key          one row of the table `vault`
           └─ seals a data key         one for each version of each secret
                └─ seals the value

Rules of the file
  1. Whatever is sealed is bound to where it lies: vault, name, version, and the id of the key above. A row that was
     moved or changed does not open.
  2. What the file holds is also in memory, just as sealed. Reading opens two envelopes and touches no disk, so it may
     be done in the event loop; whatever writes waits for the disk and belongs on a thread, one call at a time.
  3. A change is one SQLite transaction, and memory follows after the commit; whatever it then holds was read or made
     before the commit, so nothing can fail between the two. A new master key re-seals, in that transaction, every data
     key that the file has by then; values are not touched. There is no moment at which two keys are needed.
  4. Pages are overwritten when their content goes (`secure_delete`), and there is no log beside the file between two
     changes. That is what SQL can promise: an SSD, a snapshot or a backup may still hold what was there before.

Names, versions and times are in clear: who has the file knows what there is, not what it says.
"""

import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex

import structlog

from core.redaction.redactor import is_secret
from core.rogers.migrate import load_migrations, migrate
from core.rogers.tables import transaction
from core.turing.envelope import Unopened, new_key, seal, unseal
from core.turing.locks import Lock, sync_directory
from core.turing.secret import MAX_BYTES, Secret
from protos.errors import Conflict, Denied, Exhausted, InvalidArgument, NotFound, Unavailable

MIGRATIONS = Path(__file__).parent / "migrations"
MAX_SECRETS = 100_000
SHORTEST = 8  # bytes of a value: the redactor could not strike out less
KEYS = {"passphrase": "passphrase", "key_file": "key in the key file", "system": "key in the system's store"}

logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a secret, as sealed as it lies in the file. Times are seconds since the epoch."""

    name: str
    version: int
    created: float
    retires: float | None  # None: the current one
    key: bytes | None = field(repr=False)  # None: destroyed, only listed
    value: bytes | None = field(repr=False)

    def state(self, now: float) -> str:
        """current, leased (an old one that somebody may still hold) or retired (only listed)."""
        if self.retires is None:
            return "current"
        return "leased" if self.key is not None and now < self.retires else "retired"


@dataclass(frozen=True, slots=True)
class Carried:
    """A value on its way from one vault to another."""

    name: str
    version: int
    created: float
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Contents:
    """What the file holds, in memory, and the key to it. Replaced as a whole: who reads has one or the other."""

    lock: Lock
    spare: Lock | None
    master_id: str
    sealed_master: bytes
    secrets: Mapping[str, tuple[Version, ...]]
    master: bytes | None = field(default=None, repr=False)


class Vault:
    """An open file; locked until `unlock`. One thread at a time may call what writes."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        """`db` is the file at `path`, brought up to date.

        Raises:
            ValueError, TypeError, sqlite3.Error: it holds no vault.
        """
        self.path = path
        self._db = db
        row = db.execute("SELECT id, created FROM vault").fetchone()
        if row is None:
            raise ValueError("no row in the table vault")
        self.id, self.created = row
        self._contents = self._read(None)

    # --- the file

    @classmethod
    def create(cls, path: Path, id: str, lock: Lock, lock_key: bytes) -> "Vault":
        """Makes an empty vault, whole or not at all, and opens and unlocks it.

        Raises:
            Conflict: there is one.
            OSError, sqlite3.Error: it cannot be written.
        """
        if os.path.lexists(path):
            raise Conflict(f"There is a vault in {path}.", next="Unlock it: madlab secret unlock")
        draft = path.with_name(f"{path.name}.new")
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        master_id, master = token_hex(8), new_key()
        with closing(sqlite3.connect(draft, isolation_level=None)) as db:
            _set_up(db)
            migrate(db, draft, load_migrations(MIGRATIONS))
            sealed = seal(lock_key, master, id, "master", master_id, _text(lock))
            row = (1, id, time.time(), _text(lock), "", master_id, sealed)
            with transaction(db):
                db.execute("INSERT INTO vault VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        os.rename(draft, path)
        sync_directory(path.parent)
        made = cls.open(path)
        made.unlock(lock_key)
        return made

    @classmethod
    def open(cls, path: Path) -> "Vault":
        """Opens a vault; it stays locked.

        Raises:
            Conflict: it is no vault, a damaged one, or a newer version wrote it.
            Denied: it belongs to somebody else, or is a link.
            OSError: it cannot be read.
        """
        about = os.lstat(path)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
            raise Denied(f"{path} is no file of yours.", next="Own it, or take it away.")
        os.chmod(path, 0o600)
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            _set_up(db)
            migrate(db, path, load_migrations(MIGRATIONS))
            vault = cls(path, db)
            if path.with_name(f"{path.name}-journal").exists():  # somebody was killed before the file was changed
                db.execute("PRAGMA user_version = 1")  # a transaction that writes, which takes it away
            return vault
        except (sqlite3.Error, ValueError, TypeError) as error:
            db.close()
            raise Conflict(
                f"{path} is damaged or no vault ({type(error).__name__}).", next="Restore it from a backup."
            ) from None
        except BaseException:
            db.close()
            raise

    def close(self) -> None:
        """Closes the file and forgets the key."""
        self._contents = replace(self._contents, master=None)
        self._db.close()

    def _read(self, master: bytes | None) -> _Contents:
        """What is in the file now."""
        sql = "SELECT lock, spare, master_id, master FROM vault"
        lock, spare, master_id, sealed_master = self._db.execute(sql).fetchone()
        found: dict[str, list[Version]] = {}
        for values in self._db.execute("SELECT name, version, created, retires, key, value FROM secret ORDER BY 1, 2"):
            found.setdefault(values[0], []).append(Version(*values))
        return _Contents(
            Lock(**json.loads(lock)),
            Lock(**json.loads(spare)) if spare else None,
            master_id,
            sealed_master,
            {name: tuple(versions) for name, versions in found.items()},
            master,
        )

    # --- the key

    @property
    def is_locked(self) -> bool:
        """Whether nothing can be read."""
        return self._contents.master is None

    @property
    def lock(self) -> Lock:
        """What opens it."""
        return self._contents.lock

    @property
    def spare(self) -> Lock | None:
        """A lock that is not this vault's yet, or no more, while its key may be kept somewhere."""
        return self._contents.spare

    def unlock(self, lock_key: bytes, learn: Callable[[Iterable[Secret]], None] | None = None) -> None:
        """Opens it. `learn` is given every value that can be read, and done, before anybody else can read one.

        Raises:
            Denied: that is another key; nothing is changed.
        """
        found = self._contents
        try:
            master = unseal(lock_key, found.sealed_master, self.id, "master", found.master_id, _text(found.lock))
        except Unopened:
            raise Denied(
                f"The {KEYS[found.lock.way]} does not open this vault; nothing was changed.",
                next="Try the right one. If vault.db was changed or damaged, restore it from a backup.",
            ) from None
        opened = replace(found, master=master)
        if learn is not None:
            learn(self._readable(opened, time.time()))
        self._contents = opened

    def refresh(self) -> None:
        """Reads the file again: after a commit of which nobody knows whether it was made. A new master key locks it.

        Raises:
            sqlite3.Error: it cannot be read; what was known still is.
        """
        known, found = self._contents, self._read(None)
        self._contents = replace(found, master=known.master if found.master_id == known.master_id else None)

    def rekey(self, lock: Lock, lock_key: bytes) -> None:
        """A new master key below a new lock: every data key is sealed again, in one transaction. The old lock is spare.

        Raises:
            Unavailable: the vault is locked, or the disk refuses.
            Conflict: something does not open; nothing was changed.
        """
        new_id, new = token_hex(8), new_key()
        sealed = seal(lock_key, new, self.id, "master", new_id, _text(lock))
        with self._writing():
            found = self._read(_master(self._contents))
            rows = [
                (seal(new, self._data_key(found, each), self.id, "key", new_id, each.name, each.version), each)
                for versions in found.secrets.values()
                for each in versions
                if each.key is not None
            ]
            self._db.executemany(
                "UPDATE secret SET key = ? WHERE name = ? AND version = ?",
                [(key, each.name, each.version) for key, each in rows],
            )
            self._db.execute(
                "UPDATE vault SET lock = ?, spare = ?, master_id = ?, master = ?",
                (_text(lock), _text(found.lock), new_id, sealed),
            )
            changed = self._read(new)
        self._contents = changed

    def note_spare(self, lock: Lock | None) -> None:
        """Notes a lock whose key is about to be kept somewhere, or that none is any more.

        Raises:
            Unavailable: the disk refuses.
        """
        with self._writing():
            self._db.execute("UPDATE vault SET spare = ?", (_text(lock) if lock is not None else "",))
        self._contents = replace(self._contents, spare=lock)

    # --- what is in it

    @property
    def names(self) -> list[str]:
        """Every name, sorted."""
        return sorted(self._contents.secrets)

    def __len__(self) -> int:
        return len(self._contents.secrets)

    def __contains__(self, name: str) -> bool:
        return name in self._contents.secrets

    def versions(self, name: str) -> tuple[Version, ...]:
        """Every version there was, the oldest first; the last one is the current.

        Raises:
            NotFound: there is no such secret.
        """
        try:
            return self._contents.secrets[name]
        except KeyError:
            raise NotFound(f"There is no secret {name[:64]!r}.", next="See: madlab secret list") from None

    def read(self, name: str, version: int | None = None, *, now: float | None = None) -> Secret:
        """A value, the current one or an older one that has not retired yet.

        Raises:
            NotFound: there is no such secret or version.
            Denied: that version has retired.
            Unavailable: the vault is locked.
            Conflict: the row was changed or moved.
        """
        self.versions(name)
        return self._opened(self._contents, name, version, time.time() if now is None else now)

    def _opened(self, found: _Contents, name: str, version: int | None, now: float) -> Secret:
        for each in reversed(found.secrets[name]):
            if version is None or each.version == version:
                break
        else:
            raise NotFound(f"{name} has no version {version}.", next=f"See: madlab secret versions {name}")
        if each.value is None or each.state(now) == "retired":
            raise Denied(f"Version {each.version} of {name} has retired.", next="Use the current one.")
        data_key = self._data_key(found, each)
        try:
            value = unseal(data_key, each.value, self.id, "value", name, each.version)
        except Unopened:
            raise _damaged(each) from None
        return Secret(value, name=name, version=each.version)

    def _readable(self, found: _Contents, now: float) -> Iterator[Secret]:
        """Every value that can still be read, old versions too. A row that was changed or moved is passed over."""
        for versions in found.secrets.values():
            for each in versions:
                if each.state(now) != "retired" and each.key is not None:
                    try:
                        yield self._opened(found, each.name, each.version, now)
                    except Conflict as error:
                        logger.warning("a secret does not open", reason=error.message)

    def add(self, name: str, value: Secret, *, after: int, keep_until: float, now: float) -> Version:
        """A new version, which follows version `after` (0: a new secret). The one before retires at `keep_until`.

        Raises:
            Conflict: another version is the current one.
            Unavailable: the vault is locked, or the disk refuses.
        """
        found = self._contents
        versions = found.secrets.get(name, ())
        if (versions[-1].version if versions else 0) != after:
            raise Conflict(f"{name} has changed meanwhile.", next=f"See: madlab secret versions {name}")
        if not versions and len(found.secrets) >= MAX_SECRETS:
            raise Exhausted(f"A vault holds {MAX_SECRETS} secrets.", next="Use another lab for more.")
        made = self._sealed(found, Carried(name, after + 1, now, value.reveal()))
        with self._writing():
            if versions:
                self._db.execute(
                    "UPDATE secret SET retires = ? WHERE name = ? AND version = ?", (keep_until, name, after)
                )
            self._insert([made])
        before = (*versions[:-1], replace(versions[-1], retires=keep_until)) if versions else ()
        self._contents = replace(found, secrets={**found.secrets, name: (*before, made)})
        return made

    def take_in(self, carried: Sequence[Carried], now: float, keep_until: Mapping[str, float] | None = None) -> None:
        """Adds values from elsewhere, all or none. One whose name is there becomes its next version.

        The version before it retires now, or at the moment that `keep_until` has for its name.

        Raises:
            Unavailable: the vault is locked, or the disk refuses.
        """
        made, keep_until = [], keep_until or {}
        with self._writing():
            found = self._read(_master(self._contents))
            for each in carried:
                versions = found.secrets.get(each.name, ())
                if versions:
                    each = replace(each, version=versions[-1].version + 1, created=now)
                    sql = "UPDATE secret SET retires = ? WHERE name = ? AND version = ?"
                    self._db.execute(sql, (keep_until.get(each.name, now), each.name, versions[-1].version))
                made.append(self._sealed(found, each))
            self._insert(made)
            changed = self._read(found.master)
        self._contents = changed

    def remove(self, name: str) -> None:
        """Forgets a secret with all its versions.

        Raises:
            Unavailable: the disk refuses.
        """
        with self._writing():
            self._db.execute("DELETE FROM secret WHERE name = ?", (name,))
        secrets = {each: versions for each, versions in self._contents.secrets.items() if each != name}
        self._contents = replace(self._contents, secrets=secrets)

    def destroy_retired(self, now: float) -> list[Version]:
        """Destroys the values of versions that have retired, and returns which: from now on they are only listed.

        Raises:
            Unavailable: the disk refuses.
        """
        due = [
            each
            for versions in self._contents.secrets.values()
            for each in versions
            if each.key is not None and each.state(now) == "retired"
        ]
        if due:
            with self._writing():
                self._db.executemany(
                    "UPDATE secret SET key = NULL, value = NULL WHERE name = ? AND version = ?",
                    [(each.name, each.version) for each in due],
                )
                changed = self._read(self._contents.master)
            self._contents = changed
        return due

    def _insert(self, made: Sequence[Version]) -> None:
        self._db.executemany(
            "INSERT INTO secret VALUES (?, ?, ?, ?, ?, ?)",
            [(each.name, each.version, each.created, each.retires, each.key, each.value) for each in made],
        )

    def _sealed(self, found: _Contents, carried: Carried) -> Version:
        data_key, name, version = new_key(), carried.name, carried.version
        key = seal(_master(found), data_key, self.id, "key", found.master_id, name, version)
        value = seal(data_key, carried.value, self.id, "value", name, version)
        return Version(name, version, carried.created, None, key, value)

    def _data_key(self, found: _Contents, each: Version) -> bytes:
        try:
            return unseal(_master(found), each.key or b"", self.id, "key", found.master_id, each.name, each.version)
        except Unopened:
            raise _damaged(each) from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction; what the disk refuses is said.

        Raises:
            Unavailable: the disk refuses; nothing was changed.
        """
        try:
            with transaction(self._db):
                (master_id,) = self._db.execute("SELECT master_id FROM vault").fetchone()
                if master_id != self._contents.master_id:  # what is sealed with ours would never open again
                    raise Unavailable("The vault has another master key on the disk.", next="Restart the core.")
                yield
        except sqlite3.Error as error:
            raise Unavailable(
                f"The vault cannot be written: {error}.", next=f"Make room on the disk of {self.path}, and try again."
            ) from None


def check_value(name: str, value: Secret) -> None:
    """
    Raises:
        InvalidArgument: it is too short or too long to be a secret, or a plain word.
    """
    size = len(value.reveal().strip())
    if not SHORTEST <= size <= MAX_BYTES:
        raise InvalidArgument(
            f"The value of {name[:64]!r} has {size} bytes; a secret has {SHORTEST} to {MAX_BYTES}.",
            next="What is shorter cannot be told from ordinary text where it must be struck out.",
        )
    if not is_secret(value.reveal()):
        raise InvalidArgument(
            f"The value of {name[:64]!r} is a plain word, which stands in ordinary text, too.",
            next="Use at least 16 bytes, or a digit or a sign among the letters.",
        )


def _master(found: _Contents) -> bytes:
    if found.master is None:
        raise Unavailable("The vault is locked.", next="Unlock it: madlab secret unlock")
    return found.master


def _damaged(each: Version) -> Conflict:
    return Conflict(
        f"Version {each.version} of {each.name} does not open: the vault was changed or is damaged.",
        next="Restore vault.db from a backup, or give the secret a new value: madlab secret rotate",
    )


def _set_up(db: sqlite3.Connection) -> None:
    """No log beside the file outlives a transaction, and what goes is overwritten."""
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("PRAGMA synchronous = EXTRA")
    db.execute("PRAGMA secure_delete = ON")
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute("PRAGMA trusted_schema = OFF")


def _text(lock: Lock) -> str:
    return json.dumps(lock.as_dict(), sort_keys=True)
