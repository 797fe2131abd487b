"""The keeper: has the vault and comes by its key. What it does waits for a disk, a program or Argon2id: use a thread.

A new lock is noted in the vault as *spare*, its key is kept where it belongs, then the vault is sealed with it and the
old lock is spare, and then the spare's key is dropped. So whenever this process dies, the key that the vault wants is
kept, and the next unlocking drops the other one. Which of the two is the spare's is read from the file each time: a
commit that reports an error may have been made, and then what is in memory is the wrong way round.
"""

import os
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from core.turing.envelope import new_key
from core.turing.locks import (
    KeyFile,
    Lock,
    SystemStore,
    check_passphrase,
    derive,
    key_file_of,
    new_lock,
    read_passphrase,
)
from core.turing.secret import Secret
from core.turing.settings import Vault as Settings
from core.turing.settings import Way
from core.turing.vault import Vault
from protos.errors import Conflict, Denied, Error, NotFound, Unavailable

logger = structlog.get_logger()

State = Literal["none", "locked", "open", "damaged"]
UNLOCK = "Unlock it: madlab secret unlock"


@dataclass(frozen=True, slots=True)
class VaultState:
    """How the vault is."""

    state: State
    way: Way  # what opens it, or what would open a new one
    place: str = ""  # of its key, where that is a file
    secrets: int = 0
    reason: str = ""  # why it is locked or damaged
    next: str = ""
    wanted: Way = "key_file"  # what would open it after the next `rekey`


class Keeper:
    """The vault of one lab, if there is one. One call at a time, but for `state` and `vault`."""

    def __init__(
        self,
        home: Path,
        lab: str,
        settings: Settings,
        environment: Mapping[str, str] = os.environ,
        *,
        learn: Callable[[Iterable[Secret]], None] | None = None,
    ) -> None:
        """`learn` is given every value that can be read, before the vault is open."""
        self.path = home / "vault.db"
        self._home, self._lab, self._settings, self._environment = home, lab, settings, environment
        self._learn = learn
        self._vault: Vault | None = None
        self._trouble: Error | None = None

    @property
    def state(self) -> VaultState:
        """How the vault is now."""
        vault, trouble = self._vault, self._trouble
        way = self._settings.unlock if vault is None else vault.lock.way
        reason, next = (trouble.message, trouble.next) if trouble else ("", "")
        try:
            place = str(self._key_file.path) if way == "key_file" else ""
        except Unavailable:
            place = ""
        if vault is None:
            return VaultState("damaged" if trouble else "none", way, place, 0, reason, next, way)
        wanted = self._settings.unlock
        if vault.is_locked:
            return VaultState("locked", way, place, len(vault), reason, _after(next), wanted)
        return VaultState("open", way, place, len(vault), wanted=wanted)

    @property
    def vault(self) -> Vault:
        """The vault, locked or not.

        Raises:
            NotFound: there is none.
            Conflict: it is damaged.
        """
        if self._vault is not None:
            return self._vault
        if self._trouble is not None:
            raise Conflict(self._trouble.message, next=self._trouble.next)
        raise NotFound("There is no vault yet.", next="The first secret makes one: madlab secret set NAME")

    @property
    def unlocked(self) -> Vault:
        """The vault, for whoever needs a value.

        Raises:
            Unavailable: it is locked; with why, and what has to be mended first.
            NotFound, Conflict: as `vault`.
        """
        vault = self.vault
        if vault.is_locked:
            why = self._trouble
            raise Unavailable(
                f"The vault is locked. {why.message if why else ''}".rstrip(), next=_after(why.next if why else "")
            )
        return vault

    def open(self) -> None:
        """Opens the file, if there is one, and unlocks it, if that needs no person. `state` says what is in the way."""
        if not os.path.lexists(self.path):
            return
        try:
            self._vault = Vault.open(self.path)
            self.unlock(None)
        except Error as error:
            self._trouble = error
        except OSError as error:
            self._trouble = Unavailable(f"{self.path} cannot be read: {error.strerror}.", next="See to the file.")
        if self._trouble is not None:
            logger.warning("the vault is not open", reason=self._trouble.message)

    def close(self) -> None:
        """Closes the file and forgets the key."""
        if self._vault is not None:
            self._vault.close()
            self._vault = None

    def create(self, passphrase: str | None) -> None:
        """Makes the vault, open.

        Raises:
            Conflict: there is one, or a passphrase is no way to open it.
            InvalidArgument: it wants a passphrase, or a longer one.
            Denied, Unavailable: the key or the file cannot be kept where it belongs.
        """
        if self._vault is not None or self._trouble is not None:
            raise Conflict("There is a vault already.", next=UNLOCK)
        lock, id = new_lock(self._settings.unlock), str(uuid.uuid4())
        key = self._new_key(lock, id, passphrase)
        try:
            self._vault = Vault.create(self.path, id, lock, key)
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(f"{self.path} cannot be written: {error}.", next="Make room there.") from None
        logger.info("a vault was made", way=lock.way)

    def unlock(self, passphrase: str | None) -> None:
        """Unlocks the vault in its own way. None: without a person.

        Raises:
            Denied: the key is not there, or it is not the right one; nothing is changed.
            Unavailable: the program that has it is not installed.
            NotFound, Conflict: as `vault`.
        """
        vault = self.vault
        if not vault.is_locked:
            return
        try:
            vault.unlock(self._key(vault, passphrase), self._learn)
        except Error as error:
            if passphrase is None:  # what is kept is wrong, and not what somebody typed
                self._trouble = error
            raise
        self._trouble = None
        self._drop_spare(vault)
        logger.info("the vault is open", way=vault.lock.way, secrets=len(vault))

    def rekey(self, passphrase: str | None) -> None:
        """A new master key, and a new lock of the way that the settings name.

        Raises:
            InvalidArgument: it wants a new passphrase, or a longer one.
            Unavailable: the vault is locked, or something cannot be written; what there was still holds.
            Denied: the new key cannot be kept where it belongs; what there was still holds.
            NotFound, Conflict: as `vault`.
        """
        vault = self.unlocked
        lock = new_lock(self._settings.unlock)
        vault.note_spare(lock)
        try:
            vault.rekey(lock, self._new_key(lock, vault.id, passphrase))
        finally:
            self._drop_spare(vault)
        logger.info("the vault has a new key", way=lock.way, secrets=len(vault))

    # --- lock keys

    @property
    def _key_file(self) -> KeyFile:
        return KeyFile(key_file_of(self._settings, self._home, self._lab, self._environment))

    def _key(self, vault: Vault, passphrase: str | None) -> bytes:
        """The key of the vault's lock."""
        match vault.lock.way:
            case "key_file":
                return self._key_file.find(vault.lock.key_id)
            case "system":
                return SystemStore(vault.id).find(vault.lock.key_id)
            case "passphrase":
                return derive(vault.lock, passphrase if passphrase is not None else self._kept_passphrase())

    def _new_key(self, lock: Lock, vault: str, passphrase: str | None) -> bytes:
        """A key for a new lock, kept where it belongs."""
        if lock.way == "passphrase":
            chosen = passphrase if passphrase is not None else self._kept_passphrase()
            check_passphrase(chosen)
            return derive(lock, chosen)
        if passphrase is not None:
            raise Conflict(
                f"The settings say that {'a key file' if lock.way == 'key_file' else 'the system'} opens the vault.",
                next='For a passphrase, set [vault] unlock = "passphrase" in madlab.toml and restart the core.',
            )
        key = new_key()
        try:
            if lock.way == "key_file":
                self._key_file.keep(lock.key_id, key)
            else:
                SystemStore(vault).keep(lock.key_id, key)
        except OSError as error:
            raise Unavailable(
                f"The key of the vault cannot be kept: {error.filename}: {error.strerror}.",
                next='Make room there, or name another file in madlab.toml: [vault] key_file = "/PATH"',
            ) from None
        return key

    def _kept_passphrase(self) -> str:
        """
        Raises:
            Denied: it is kept nowhere, or not well.
        """
        name, directory = self._settings.credential, self._environment.get("CREDENTIALS_DIRECTORY")
        if name is not None and directory:
            return read_passphrase(Path(directory) / name, is_credential=True)
        if self._settings.passphrase_file is not None:
            return read_passphrase(self._home / self._settings.passphrase_file.expanduser())
        raise Denied("The vault wants its passphrase.", next=UNLOCK)

    def _drop_spare(self, vault: Vault) -> None:
        """Forgets the key of the lock that is not the vault's."""
        if vault.spare is None:
            return
        try:
            vault.refresh()
            spare = vault.spare
            if spare is None:
                return
            if spare.way == "key_file":
                self._key_file.drop(spare.key_id)
            elif spare.way == "system":
                SystemStore(vault.id).drop(spare.key_id)
            vault.note_spare(None)
        except (Error, OSError, sqlite3.Error) as error:
            logger.warning("a key that does not open the vault is still kept", reason=str(error))


def _after(next: str) -> str:
    """What opens a locked vault, once `next` is done."""
    if next in ("", UNLOCK):
        return UNLOCK
    return f"{next.removesuffix('.')}; then: madlab secret unlock"
