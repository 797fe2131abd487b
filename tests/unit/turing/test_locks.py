"""The three ways to come by a vault's key, and what each refuses."""

import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from core.rogers import tables
from core.turing import locks
from core.turing import vault as vault_module
from core.turing.envelope import new_key
from core.turing.keeper import Keeper
from core.turing.locks import KeyFile, Lock, SystemStore, default_key_file, derive, new_lock, read_passphrase
from core.turing.secret import Secret
from core.turing.settings import Vault as Settings
from core.turing.settings import Way
from core.turing.vault import Carried, Vault
from protos.errors import Conflict, Denied, Error, InvalidArgument, Unavailable

PASSPHRASE = "correct horse battery"
CHEAP = Lock("passphrase", "0" * 16, "ab" * 16, memory_kib=64, iterations=1, lanes=1)


def keeper_of(home: Path, way: Way = "key_file", **more: object) -> Keeper:
    settings = Settings.model_validate({"unlock": way, "key_file": "vault.key"} | more)
    return Keeper(home, "1a2b3c4d", settings, {})


# --- key files


def test_a_key_file_keeps_keys_by_their_id_and_is_its_owners_alone(tmp_path: Path) -> None:
    file, first, second = KeyFile(tmp_path / "deep" / "er" / "vault.key"), new_key(), new_key()
    file.keep("a", first)
    file.keep("b", second)
    assert (file.find("a"), file.find("b")) == (first, second)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    file.drop("a")
    file.drop("a")
    with pytest.raises(Denied, match="does not hold the key a of this vault"):
        file.find("a")
    assert file.find("b") == second
    assert [each.name for each in file.path.parent.iterdir()] == ["vault.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601])
def test_a_key_file_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    file = KeyFile(tmp_path / "vault.key")
    file.keep("a", new_key())
    file.path.chmod(mode)
    with pytest.raises(Denied, match=f"{mode:04o}") as caught:
        file.find("a")
    assert "chmod 600" in caught.value.next
    with pytest.raises(Denied):
        file.keep("b", new_key())


def test_links_pipes_and_directories_are_no_key_files(tmp_path: Path) -> None:
    KeyFile(tmp_path / "real").keep("a", new_key())
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "directory").mkdir(mode=0o700)
    for each in ("link", "pipe", "directory", "nothing"):
        with pytest.raises(Denied):
            KeyFile(tmp_path / each).find("a")
    with pytest.raises(Denied):
        KeyFile(tmp_path / "link").keep("b", new_key())


@pytest.mark.parametrize("content", ["a zz", "a", "a 00 00", "\xff", "a 0g"])
def test_a_damaged_key_file_is_said_to_be_damaged(tmp_path: Path, content: str) -> None:
    path = tmp_path / "vault.key"
    path.write_text(content, encoding="latin-1")
    path.chmod(0o600)
    with pytest.raises(Denied, match="is damaged"):
        KeyFile(path).find("a")


def test_the_usual_key_file_is_outside_the_home() -> None:
    assert default_key_file("1a2b3c4d", {"HOME": "/home/ada"}) == Path("/home/ada/.config/madlab/vault-1a2b3c4d.key")
    assert default_key_file("1a2b3c4d", {"HOME": "/home/ada", "XDG_CONFIG_HOME": "/c"}) == Path(
        "/c/madlab/vault-1a2b3c4d.key"
    )
    for each in ({}, {"HOME": ""}, {"XDG_CONFIG_HOME": "relative"}):
        with pytest.raises(Unavailable):
            default_key_file("1a2b3c4d", each)


# --- passphrases


def test_a_passphrase_makes_one_key_for_one_salt() -> None:
    key = derive(CHEAP, PASSPHRASE)
    assert len(key) == 32
    assert derive(CHEAP, PASSPHRASE) == key
    assert derive(CHEAP, PASSPHRASE + " ") != key
    assert derive(Lock(**{**CHEAP.as_dict(), "salt": "ac" * 16}), PASSPHRASE) != key
    assert derive(CHEAP, "e\u0301tude en noir") == derive(CHEAP, "étude en noir")  # however a keyboard composes it


def test_it_is_argon2id_with_the_parameters_that_rfc_9106_recommends() -> None:
    lock = new_lock("passphrase")
    assert (lock.memory_kib, lock.iterations, lock.lanes, len(lock.salt)) == (65536, 3, 4, 32)
    reference = Lock("passphrase", "", b"somesalt".hex(), memory_kib=256, iterations=2, lanes=1)  # of its authors
    assert derive(reference, "password").hex() == "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"


@pytest.mark.parametrize(("name", "value"), [("memory_kib", 2**31), ("iterations", 0), ("lanes", 1000)])
def test_parameters_that_nobody_set_are_refused(name: str, value: int) -> None:
    with pytest.raises(Conflict):
        derive(Lock(**{**CHEAP.as_dict(), name: value}), PASSPHRASE)


def test_a_passphrase_file_holds_one_line_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    path.write_text(PASSPHRASE + "\n")
    path.chmod(0o640)
    with pytest.raises(Denied):
        read_passphrase(path)
    assert read_passphrase(path, is_credential=True) == PASSPHRASE  # systemd lends them to a group
    path.chmod(0o600)
    assert read_passphrase(path) == PASSPHRASE
    for content in ("", "\n", "two\nlines\n"):
        path.write_text(content)
        with pytest.raises(Denied):
            read_passphrase(path)


# --- the system's store

SECRET_TOOL = """\
#!{python}
import json, pathlib, sys
store = pathlib.Path({store!r})
known = json.loads(store.read_text()) if store.exists() else {{}}
action, *rest = sys.argv[1:]
rest = [each for each in rest if not each.startswith("--")]
if action == "store":
    known[" ".join(rest)] = sys.stdin.read()
    store.write_text(json.dumps(known))
elif action == "lookup":
    sys.stdout.write(known.get(" ".join(rest), ""))
elif action == "clear":
    known.pop(" ".join(rest), None)
    store.write_text(json.dumps(known))
"""


@pytest.fixture
def secret_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that takes what `secret-tool` takes, in the place of it; returns the file that it keeps."""
    store, program = tmp_path / "store.json", tmp_path / "bin" / "secret-tool"
    program.parent.mkdir()
    program.write_text(SECRET_TOOL.format(python=sys.executable, store=str(store)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return store


def test_the_systems_store_keeps_keys_by_vault_and_id(secret_tool: Path) -> None:
    store, key = SystemStore("vault-1", "linux"), new_key()
    store.keep("a", key)
    assert store.find("a") == key
    with pytest.raises(Denied):
        store.find("b")
    with pytest.raises(Denied):
        SystemStore("vault-2", "linux").find("a")
    store.drop("a")
    with pytest.raises(Denied):
        store.find("a")


def test_without_its_program_the_store_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unavailable, match="secret-tool is not installed") as caught:
        SystemStore("vault-1", "linux").find("a")
    assert "libsecret-tools" in caught.value.next


# --- the keeper


@pytest.fixture
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "MEMORY_KIB", 256)


def test_a_vault_with_a_key_file_opens_without_a_person(tmp_path: Path) -> None:
    keeper = keeper_of(tmp_path)
    keeper.open()
    assert keeper.state.state == "none"
    keeper.create(None)
    keeper.vault.add("token", Secret(b"tok-5e8d1c0b7a"), after=0, keep_until=0, now=0)
    keeper.close()
    again = keeper_of(tmp_path)
    again.open()
    assert (again.state.state, again.state.secrets, again.state.place) == ("open", 1, str(tmp_path / "vault.key"))
    assert again.vault.read("token").reveal() == b"tok-5e8d1c0b7a"
    again.close()


@pytest.mark.usefixtures("_cheap")
def test_a_passphrase_is_asked_for_and_a_wrong_one_changes_nothing(tmp_path: Path) -> None:
    keeper = keeper_of(tmp_path, "passphrase")
    with pytest.raises(Denied, match="wants its passphrase"):
        keeper.create(None)
    with pytest.raises(InvalidArgument, match="at least 12"):
        keeper.create("too short")
    assert list(tmp_path.iterdir()) == []
    keeper.create(PASSPHRASE)
    keeper.close()
    again = keeper_of(tmp_path, "passphrase")
    again.open()
    assert (again.state.state, again.state.reason) == ("locked", "The vault wants its passphrase.")
    with pytest.raises(Denied, match="The passphrase does not open this vault; nothing was changed"):
        again.unlock(PASSPHRASE + "!")
    assert again.vault.is_locked
    again.unlock(PASSPHRASE)
    assert not again.vault.is_locked
    again.close()
    (tmp_path / "kept").write_text(PASSPHRASE)
    (tmp_path / "kept").chmod(0o600)
    by_file = keeper_of(tmp_path, "passphrase", passphrase_file="kept")
    by_file.open()
    assert by_file.state.state == "open"
    by_file.close()
    settings = Settings(unlock="passphrase", credential="kept")
    by_systemd = Keeper(tmp_path, "1a2b3c4d", settings, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    by_systemd.open()
    assert by_systemd.state.state == "open"
    by_systemd.close()


@pytest.mark.usefixtures("_cheap")
def test_a_new_key_goes_from_one_way_to_another_and_leaves_nothing_of_the_old(
    tmp_path: Path, secret_tool: Path
) -> None:
    keeper_of(tmp_path).create(None)
    first = (tmp_path / "vault.key").read_text().splitlines()[-1]
    steps: list[tuple[Way, str | None]] = [("key_file", None), ("system", None), ("passphrase", PASSPHRASE)]
    before: Way = "key_file"
    for way, passphrase in steps:
        keeper = keeper_of(tmp_path, way)
        keeper.open()
        assert (keeper.state.state, keeper.state.way, keeper.state.wanted) == ("open", before, way)
        keeper.rekey(passphrase)
        assert (keeper.state.way, keeper.vault.spare) == (way, None)
        keeper.close()
        before = way
    assert first not in (tmp_path / "vault.key").read_text()
    assert secret_tool.read_text() == "{}"
    last = keeper_of(tmp_path, "passphrase")
    last.open()
    last.unlock(PASSPHRASE)
    assert last.state.state == "open"
    last.close()


def test_a_key_that_was_replaced_and_is_still_there_goes_with_the_next_unlocking(tmp_path: Path) -> None:
    """As after a power cut between the vault's new lock and the end of the old key."""
    keeper = keeper_of(tmp_path)
    keeper.create(None)
    file, lock, key = KeyFile(tmp_path / "vault.key"), new_lock("key_file"), new_key()
    old = keeper.vault.lock.key_id
    keeper.vault.note_spare(lock)
    file.keep(lock.key_id, key)
    keeper.vault.rekey(lock, key)
    keeper.close()
    assert old in file.path.read_text()
    again = keeper_of(tmp_path)
    again.open()
    assert (again.state.state, again.vault.spare) == ("open", None)
    assert old not in file.path.read_text()
    again.close()


def test_a_key_that_was_kept_and_never_used_goes_with_the_next_unlocking(tmp_path: Path) -> None:
    """As after a power cut between keeping the new key and the vault's new lock."""
    keeper = keeper_of(tmp_path)
    keeper.create(None)
    file, lock = KeyFile(tmp_path / "vault.key"), new_lock("key_file")
    keeper.vault.note_spare(lock)
    file.keep(lock.key_id, new_key())
    keeper.close()
    again = keeper_of(tmp_path)
    again.open()
    assert (again.state.state, again.vault.spare) == ("open", None)
    assert lock.key_id not in file.path.read_text()
    again.close()


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_whatever_read_fails_on_the_way_to_a_new_key_the_vault_opens_afterwards(
    tmp_path: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = a_keeper_with_a_secret(tmp_path)
    read, reads = Vault._read, iter(range(1, 100))

    def refuses(vault: Vault, master: bytes | None) -> object:
        if next(reads) == failing:
            raise sqlite3.OperationalError("disk I/O error")
        return read(vault, master)

    with monkeypatch.context() as patch, suppress(Unavailable):
        patch.setattr(Vault, "_read", refuses)
        keeper.rekey(None)
    assert next(reads) > failing
    keeper.close()
    it_opens(tmp_path)


def test_after_a_commit_that_was_made_and_reported_an_error_the_vault_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = a_keeper_with_a_secret(tmp_path)
    commits = iter(range(1, 100))

    @contextmanager
    def transaction(db: sqlite3.Connection) -> Iterator[None]:
        with tables.transaction(db):
            yield
        if next(commits) == 2:  # the first notes the spare
            raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(vault_module, "transaction", transaction)
    with pytest.raises(Unavailable, match="cannot be written"):
        keeper.rekey(None)
    keeper.close()
    it_opens(tmp_path)


def test_values_whose_taking_in_failed_are_not_there_and_spoil_no_new_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = a_keeper_with_a_secret(tmp_path)

    def refuses(vault: Vault, master: bytes | None) -> object:
        raise sqlite3.OperationalError("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(Vault, "_read", refuses)
        with pytest.raises(Unavailable):
            keeper.vault.take_in([Carried("lost", 1, 0.0, b"value-of-lost")], 0.0)
    keeper.rekey(None)
    keeper.close()
    it_opens(tmp_path)


def a_keeper_with_a_secret(home: Path) -> Keeper:
    keeper = keeper_of(home)
    keeper.create(None)
    keeper.vault.add("kept", Secret(b"value-of-kept"), after=0, keep_until=0, now=0.0)
    return keeper


def it_opens(home: Path) -> None:
    keeper = keeper_of(home)
    keeper.open()
    assert (keeper.state.state, keeper.vault.names) == ("open", ["kept"])
    assert keeper.vault.read("kept").reveal() == b"value-of-kept"
    assert len([line for line in (home / "vault.key").read_text().splitlines() if not line.startswith("#")]) == 1
    keeper.close()


@pytest.mark.parametrize("state", ["locked", "damaged"])
def test_a_core_whose_vault_cannot_be_opened_says_why(tmp_path: Path, state: str) -> None:
    keeper_of(tmp_path).create(None)
    if state == "locked":
        (tmp_path / "vault.key").unlink()
    else:
        (tmp_path / "vault.db").write_bytes(b"x" * 9000)
    keeper = keeper_of(tmp_path)
    keeper.open()
    assert keeper.state.state == state
    assert str(tmp_path) in keeper.state.reason
    assert keeper.state.next
    with pytest.raises(Error):
        keeper.create(None)
    keeper.close()


def test_a_disk_that_takes_no_key_makes_no_vault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keeper = keeper_of(tmp_path, key_file="file/vault.key")
    with pytest.raises(Unavailable, match="cannot be kept"):
        keeper.create(None)
    assert keeper.state.state == "none"
