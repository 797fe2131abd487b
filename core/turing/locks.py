"""Locks: the three ways to come by the key that opens a vault.

The vault's master key lies in the vault, sealed with a *lock key* that does not. The lock key is

  - made from a passphrase by Argon2id (RFC 9106), with the parameters that the vault stores; or
  - in a key file: a line of a file that its owner alone can read, outside the lab's home unless told otherwise; or
  - in the credential store of the system, asked through its own program.

A file and a store hold keys by their id, several if need be. So a new lock key is kept there *before* the vault is
sealed with it, and the old one is dropped *after*: whenever the power fails, the one that is needed is there.
"""

import base64
import os
import shutil
import stat
import subprocess
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from core.turing.envelope import KEY_BYTES
from core.turing.settings import Vault as Settings
from core.turing.settings import Way
from protos.errors import Conflict, Denied, InvalidArgument, Unavailable

MEMORY_KIB = 64 * 1024  # RFC 9106, the second recommended option
ITERATIONS = 3
LANES = 4
MOST_KIB = 4 * 1024 * 1024  # what a vault may ask for: a file that somebody changed shall not take the machine's memory
PASSPHRASE_CHARACTERS = 12
FILE_BYTES = 64 * 1024
STORE_S = 60.0  # a store may ask a person to unlock it
HEAD = """\
# Keys of madlab's vaults. Whoever has this file and the vault.db that belongs to it can read every secret.
# Keep a copy in another place: without it the vault cannot be opened again.
"""


@dataclass(frozen=True)
class Lock:
    """What a vault says about the key that opens it. The last four are for a passphrase."""

    way: Way
    key_id: str
    salt: str = ""  # hex
    memory_kib: int = 0
    iterations: int = 0
    lanes: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def new_lock(way: Way) -> Lock:
    """A lock with an id of its own, and for a passphrase with today's parameters."""
    if way == "passphrase":
        return Lock(way, token_hex(8), token_hex(16), MEMORY_KIB, ITERATIONS, LANES)
    return Lock(way, token_hex(8))


def derive(lock: Lock, passphrase: str) -> bytes:
    """The key that a passphrase stands for. Takes a tenth of a second and 64 MiB, on purpose: call it in a thread.

    Raises:
        Conflict: the vault asks for parameters that nobody set.
    """
    if not (8 <= lock.memory_kib <= MOST_KIB and 1 <= lock.iterations <= 64 and 1 <= lock.lanes <= 64):
        raise Conflict("the vault's parameters of Argon2id are damaged", next="restore vault.db from a backup")
    kdf = Argon2id(
        salt=bytes.fromhex(lock.salt),
        length=KEY_BYTES,
        iterations=lock.iterations,
        lanes=lock.lanes,
        memory_cost=lock.memory_kib,
    )
    return kdf.derive(unicodedata.normalize("NFC", passphrase).encode())


def check_passphrase(passphrase: str) -> None:
    """
    Raises:
        InvalidArgument: it is too short to be one.
    """
    if len(passphrase) < PASSPHRASE_CHARACTERS:
        raise InvalidArgument(
            f"A passphrase has at least {PASSPHRASE_CHARACTERS} characters.",
            next="Five words that nobody expects will do.",
        )


def read_passphrase(path: Path, *, is_credential: bool = False) -> str:
    """The one line of a file that its owner alone can read; systemd lends its credentials to a group, too.

    Raises:
        Denied: it cannot be read, others can read it, or it holds something else.
    """
    try:
        lines = _read_private(path, "passphrase", 0o007 if is_credential else 0o077).decode().splitlines()
    except UnicodeDecodeError:
        lines = []
    if len(lines) != 1 or not lines[0]:
        raise Denied(f"{path} does not hold one line, the passphrase.", next="Write the passphrase, and nothing else.")
    return lines[0]


def default_key_file(lab: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Outside the home, so that a copy of the home is not a copy of the key.

    Raises:
        Unavailable: the environment names no place for it.
    """
    place = environment.get("XDG_CONFIG_HOME") or (f"{environment['HOME']}/.config" if environment.get("HOME") else "")
    if not place.startswith("/"):
        raise Unavailable(
            "Nothing says where the key of the vault can be kept.",
            next='Set HOME, or name a file in madlab.toml: [vault] key_file = "/PATH"',
        )
    return Path(place) / "madlab" / f"vault-{lab}.key"


def key_file_of(settings: Settings, home: Path, lab: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the key lies, where it lies in a file.

    Raises:
        Unavailable: nothing says where.
    """
    if settings.key_file is not None:
        return home / settings.key_file.expanduser()
    return default_key_file(lab, environment)


@dataclass(frozen=True)
class KeyFile:
    """Lock keys in a file, one a line: an id and 64 hex digits."""

    path: Path

    def find(self, key_id: str) -> bytes:
        """
        Raises:
            Denied: the file is not there, others can open it, or this key is not in it.
        """
        key = self._read().get(key_id)
        if key is None:
            raise Denied(
                f"The key file {self.path} does not hold the key {key_id} of this vault.",
                next="Put the right file there (its copy), or restore the vault.db that it belongs to.",
            )
        return key

    def keep(self, key_id: str, key: bytes) -> None:
        """Adds a key; what is there stays."""
        known = self._read() if os.path.lexists(self.path) else {}
        self._write(known | {key_id: key})

    def drop(self, key_id: str) -> None:
        """Forgets a key; the file of the last one stays, empty."""
        self._draft.unlink(missing_ok=True)  # of a writer that was killed
        known = self._read()
        if known.pop(key_id, None) is not None:
            self._write(known)

    @property
    def _draft(self) -> Path:
        return self.path.with_name(f".{self.path.name}.new")

    def _read(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for line in _read_private(self.path, "key").splitlines():
            if not line.strip() or line.startswith(b"#"):
                continue
            try:
                key_id, text = line.decode("ascii").split()
                found[key_id] = bytes.fromhex(text)
            except ValueError:
                raise Denied(f"The key file {self.path} is damaged.", next="Put its copy there.") from None
        return found

    def _write(self, keys: Mapping[str, bytes]) -> None:
        text = HEAD + "".join(f"{key_id} {key.hex()}\n" for key_id, key in keys.items())
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._draft
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
            sync_directory(self.path.parent)
        finally:
            draft.unlink(missing_ok=True)


def _read_private(path: Path, what: str, others: int = 0o077) -> bytes:
    """
    Raises:
        Denied: it is no regular file, a link, somebody else's, or open to others.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Denied(
            f"The {what} file {path} cannot be read: {error.strerror}.",
            next="Put it there (its copy): a file of yours, no link.",
        ) from None
    try:
        about = os.fstat(descriptor)
        wrong = ""
        if not stat.S_ISREG(about.st_mode):
            wrong = "is no regular file"
        elif about.st_uid not in (os.geteuid(), 0):
            wrong = "belongs to somebody else"
        elif about.st_mode & others:
            wrong = f"can be opened by others (mode {stat.S_IMODE(about.st_mode):04o})"
        if wrong:
            raise Denied(f"The {what} file {path} {wrong}.", next=f"Own it, and: chmod 600 {path}")
        return os.read(descriptor, FILE_BYTES)
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Makes names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class SystemStore:
    """Lock keys in the credential store of the system. They go through pipes: never an argument, never a variable.

    Tried against programs that speak the same; a real GNOME Keyring, KWallet or Keychain is not verified.
    """

    vault: str
    platform: str = sys.platform

    def find(self, key_id: str) -> bytes:
        """
        Raises:
            Denied: the store does not have it, or does not open.
            Unavailable: the program that asks it is not installed.
        """
        if self.platform == "darwin":
            said = self._ask(["security", "find-generic-password", "-s", "madlab", "-a", self._name(key_id), "-w"])
        else:
            said = self._ask(["secret-tool", "lookup", *self._attributes(key_id)])
        try:
            return base64.b64decode(said.strip(), validate=True)
        except ValueError:
            raise Denied("What the system's credential store gave is no key of a vault.") from None

    def keep(self, key_id: str, key: bytes) -> None:
        """Keeps a key; raises what `find` raises."""
        text = base64.b64encode(key)
        if self.platform == "darwin":
            command = f"add-generic-password -U -s madlab -a {self._name(key_id)} -w ".encode() + text + b"\n"
            self._ask(["security", "-i"], command)
        else:
            label = f"--label=madlab vault {self.vault[:8]}"
            self._ask(["secret-tool", "store", label, *self._attributes(key_id)], text)

    def drop(self, key_id: str) -> None:
        """Forgets a key; raises what `find` raises."""
        if self.platform == "darwin":
            self._ask(["security", "delete-generic-password", "-s", "madlab", "-a", self._name(key_id)])
        else:
            self._ask(["secret-tool", "clear", *self._attributes(key_id)])

    def _name(self, key_id: str) -> str:
        return f"{self.vault}.{key_id}"

    def _attributes(self, key_id: str) -> list[str]:
        return ["service", "madlab", "vault", self.vault, "key", key_id]

    def _ask(self, command: Sequence[str], text: bytes = b"") -> bytes:
        program = shutil.which(command[0])
        if program is None:
            raise Unavailable(
                f"The program {command[0]} is not installed, so the system's credential store cannot be asked.",
                next="Install it (Debian: libsecret-tools), or set [vault] unlock to another way.",
            )
        try:
            done = subprocess.run([program, *command[1:]], input=text, capture_output=True, timeout=STORE_S)
        except subprocess.TimeoutExpired:
            raise Denied("The system's credential store did not answer.", next="Unlock it, then try again.") from None
        if done.returncode != 0 or (not text and command[1] in ("lookup", "find-generic-password") and not done.stdout):
            raise Denied(
                "The system's credential store does not give the vault's key.", next="Unlock it, then try again."
            )
        return done.stdout
