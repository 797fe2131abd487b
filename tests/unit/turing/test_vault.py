"""What the vault keeps: sealed for its place, changed whole or not at all, opened by one key."""

import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from core.turing.envelope import new_key
from core.turing.locks import new_lock
from core.turing.secret import Secret
from core.turing.vault import Carried, Vault
from protos.errors import Conflict, Denied, NotFound, Unavailable

VALUE, NEXT_VALUE = b"tok-5e8d1c0b7a-first", b"tok-9b21f04c3d-second"
KEY = new_key()
NOW = 1_800_000_000.0


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    made = Vault.create(tmp_path / "vault.db", "00000000-0000-0000-0000-000000000001", new_lock("key_file"), KEY)
    yield made
    made.close()


def keep(vault: Vault, name: str = "token", value: bytes = VALUE) -> None:
    vault.add(name, Secret(value), after=0, keep_until=0, now=NOW)


def test_what_was_kept_is_read_again_after_opening_it_anew(vault: Vault) -> None:
    keep(vault)
    vault.close()
    with closing(Vault.open(vault.path)) as again:
        assert again.names == ["token"]
        with pytest.raises(Unavailable, match="locked"):
            again.read("token")
        again.unlock(KEY)
        assert again.read("token").reveal() == VALUE
        assert (again.read("token").name, again.read("token").version) == ("token", 1)


def test_the_file_is_its_owners_and_holds_no_value(vault: Vault) -> None:
    keep(vault)
    assert stat.S_IMODE(vault.path.stat().st_mode) == 0o600
    assert [each.name for each in vault.path.parent.iterdir()] == ["vault.db"]
    content = vault.path.read_bytes()
    assert b"token" in content
    assert VALUE not in content
    assert KEY not in content


def test_a_file_that_others_could_read_is_closed_to_them(vault: Vault) -> None:
    vault.path.chmod(0o644)
    Vault.open(vault.path).close()
    assert stat.S_IMODE(vault.path.stat().st_mode) == 0o600


def test_another_key_opens_nothing_and_changes_nothing(vault: Vault) -> None:
    keep(vault)
    vault.close()
    before = vault.path.read_bytes()
    with closing(Vault.open(vault.path)) as again:
        with pytest.raises(Denied, match="does not open this vault; nothing was changed"):
            again.unlock(new_key())
        assert again.is_locked
    assert vault.path.read_bytes() == before


def test_each_version_is_read_until_it_retires(vault: Vault) -> None:
    keep(vault)
    vault.add("token", Secret(NEXT_VALUE), after=1, keep_until=NOW + 60, now=NOW)
    assert vault.read("token").reveal() == NEXT_VALUE
    assert vault.read("token", 1, now=NOW + 59).reveal() == VALUE
    assert [each.state(NOW + 59) for each in vault.versions("token")] == ["leased", "current"]
    with pytest.raises(Denied, match="Version 1 of token has retired"):
        vault.read("token", 1, now=NOW + 60)
    assert vault.destroy_retired(NOW + 59) == []
    assert [each.version for each in vault.destroy_retired(NOW + 61)] == [1]
    assert vault.destroy_retired(NOW + 61) == []
    assert [each.state(NOW) for each in vault.versions("token")] == ["retired", "current"]  # no way back


def test_a_destroyed_value_is_nowhere_in_the_file(vault: Vault) -> None:
    keep(vault)
    (first,) = vault.versions("token")
    vault.add("token", Secret(NEXT_VALUE), after=1, keep_until=NOW, now=NOW)
    assert first.key is not None
    assert first.value is not None
    assert first.key in vault.path.read_bytes()
    vault.destroy_retired(NOW)
    content = vault.path.read_bytes()
    assert first.key not in content
    assert first.value not in content


def test_a_change_that_comes_too_late_is_refused(vault: Vault) -> None:
    keep(vault)
    with pytest.raises(Conflict, match="changed meanwhile"):
        keep(vault)
    assert vault.read("token").reveal() == VALUE


def test_what_is_not_there_is_not_found(vault: Vault) -> None:
    with pytest.raises(NotFound):
        vault.read("token")
    keep(vault)
    with pytest.raises(NotFound):
        vault.read("token", 7)


def test_a_removed_secret_leaves_no_row(vault: Vault) -> None:
    keep(vault)
    keep(vault, "other", NEXT_VALUE)
    vault.remove("token")
    assert vault.names == ["other"]
    assert b"token" not in vault.path.read_bytes()


SQL: dict[str, str] = {
    "the value of another name": "UPDATE secret SET key = (SELECT key FROM secret WHERE name = 'other'),"
    " value = (SELECT value FROM secret WHERE name = 'other') WHERE name = 'token'",
    "a row under another name": "UPDATE secret SET name = 'third' WHERE name = 'token'",
    "a row under another version": "UPDATE secret SET version = 2 WHERE name = 'token'",
    "the value alone": "UPDATE secret SET value = (SELECT value FROM secret WHERE name = 'other')",
    "the data key alone": "UPDATE secret SET key = (SELECT key FROM secret WHERE name = 'other')",
    "a byte behind the value": "UPDATE secret SET value = CAST(value || x'00' AS BLOB)",
    "an empty value": "UPDATE secret SET value = x''",
    "an empty key": "UPDATE secret SET key = x'00'",
}


@pytest.mark.parametrize("sql", SQL.values(), ids=SQL.keys())
def test_what_was_moved_or_changed_does_not_open(vault: Vault, sql: str) -> None:
    keep(vault)
    keep(vault, "other", NEXT_VALUE)
    vault.close()
    with closing(sqlite3.connect(vault.path, isolation_level=None)) as db:
        db.execute(sql)
    with closing(Vault.open(vault.path)) as again:
        again.unlock(KEY)
        name = "third" if "third" in sql else "token"
        with pytest.raises(Conflict, match="does not open: the vault was changed or is damaged"):
            again.read(name)


def test_a_value_of_another_vault_does_not_open(vault: Vault, tmp_path: Path) -> None:
    keep(vault)
    (tmp_path / "other").mkdir()
    other = Vault.create(tmp_path / "other" / "vault.db", "00000000-0000-0000-0000-000000000002", vault.lock, KEY)
    other.close()
    vault.close()
    with closing(sqlite3.connect(other.path, isolation_level=None)) as db:
        db.execute("ATTACH ? AS theirs", (str(vault.path),))
        db.execute("INSERT INTO secret SELECT * FROM theirs.secret")
    with closing(Vault.open(other.path)) as again:
        again.unlock(KEY)
        with pytest.raises(Conflict):
            again.read("token")


def test_parameters_of_the_lock_cannot_be_changed(vault: Vault) -> None:
    vault.close()
    with closing(sqlite3.connect(vault.path, isolation_level=None)) as db:
        db.execute("UPDATE vault SET lock = json_set(lock, '$.iterations', 1)")
    with closing(Vault.open(vault.path)) as again, pytest.raises(Denied):
        again.unlock(KEY)


def test_a_new_key_opens_everything_and_the_old_one_nothing(vault: Vault) -> None:
    keep(vault)
    keep(vault, "other", NEXT_VALUE)
    vault.add("token", Secret(NEXT_VALUE), after=1, keep_until=time.time() + 600, now=time.time())
    before = {each.key for name in vault.names for each in vault.versions(name)}
    lock, key = new_lock("key_file"), new_key()
    old = vault.lock
    vault.rekey(lock, key)
    assert vault.read("token").reveal() == NEXT_VALUE
    assert vault.spare == old
    vault.note_spare(None)
    vault.close()
    content = vault.path.read_bytes()
    assert not any(each in content for each in before if each is not None)
    with closing(Vault.open(vault.path)) as again:
        with pytest.raises(Denied):
            again.unlock(KEY)
        again.unlock(key)
        assert again.read("token").reveal() == NEXT_VALUE
        assert again.read("token", 1).reveal() == VALUE
        assert again.read("other").reveal() == NEXT_VALUE
        assert again.spare is None


def test_values_from_elsewhere_come_in_together(vault: Vault) -> None:
    keep(vault)
    vault.take_in([Carried("token", 9, NOW, NEXT_VALUE), Carried("new", 4, NOW, VALUE)], NOW)
    assert [(each.version, each.state(NOW)) for each in vault.versions("token")] == [(1, "retired"), (2, "current")]
    assert vault.read("token").reveal() == NEXT_VALUE
    assert vault.read("new").version == 4
    vault.close()
    with pytest.raises(Unavailable):
        vault.take_in([Carried("third", 1, NOW, VALUE)], NOW)


def test_a_new_version_from_elsewhere_leaves_the_one_before_to_those_who_hold_it(vault: Vault) -> None:
    keep(vault)
    keep(vault, "other", VALUE)
    new = [Carried("token", 1, NOW, NEXT_VALUE), Carried("other", 1, NOW, NEXT_VALUE)]
    vault.take_in(new, NOW, {"token": NOW + 60})
    assert [each.state(NOW + 59) for each in vault.versions("token")] == ["leased", "current"]
    assert [each.state(NOW) for each in vault.versions("other")] == ["retired", "current"]


def test_values_are_learnt_before_anybody_can_read_one(vault: Vault) -> None:
    keep(vault)
    vault.close()
    with closing(Vault.open(vault.path)) as again:
        learnt: list[bytes] = []

        def learn(secrets: Iterable[Secret]) -> None:
            for each in secrets:
                assert again.is_locked
                learnt.append(each.reveal())

        again.unlock(KEY, learn)
        assert learnt == [VALUE]
        assert not again.is_locked


def test_one_value_that_does_not_open_keeps_no_other_from_being_learnt(vault: Vault) -> None:
    for name in ("a", "b", "c"):
        keep(vault, name)
    vault.close()
    with closing(sqlite3.connect(vault.path, isolation_level=None)) as db:
        db.execute("UPDATE secret SET value = x'00' WHERE name = 'b'")
    with closing(Vault.open(vault.path)) as again:
        learnt: list[str] = []
        again.unlock(KEY, lambda secrets: learnt.extend(each.name for each in secrets))
        assert learnt == ["a", "c"]


def test_a_new_key_seals_what_the_file_has_and_not_what_was_known_of_it(vault: Vault) -> None:
    keep(vault)
    with closing(Vault.open(vault.path)) as other:
        other.unlock(KEY)
        keep(other, "late", NEXT_VALUE)
    key = new_key()
    vault.rekey(new_lock("key_file"), key)
    vault.close()
    with closing(Vault.open(vault.path)) as again:
        again.unlock(key)
        assert [again.read(name).reveal() for name in ("late", "token")] == [NEXT_VALUE, VALUE]


def test_nothing_is_written_below_a_master_key_that_is_not_the_files(vault: Vault) -> None:
    keep(vault)
    key = new_key()
    with closing(Vault.open(vault.path)) as other:
        other.unlock(KEY)
        other.rekey(new_lock("key_file"), key)
    with pytest.raises(Unavailable, match="another master key"):
        keep(vault, "lost")
    vault.refresh()
    assert vault.is_locked
    vault.unlock(key)
    keep(vault, "late")
    assert vault.read("token").reveal() == vault.read("late").reveal() == VALUE


def _a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda path: path.write_bytes(b"not a database" * 100), Conflict),
        (lambda path: path.write_bytes(path.read_bytes()[:5000] + bytes(4000)), Conflict),
        (lambda path: path.write_bytes(b""), Conflict),
        (_a_link, Denied),
    ],
    ids=["no database", "cut off", "empty", "a link"],
)
def test_a_damaged_file_is_said_to_be_damaged(
    vault: Vault, change: Callable[[Path], object], error: type[Exception]
) -> None:
    keep(vault)
    vault.close()
    change(vault.path)
    with pytest.raises(error):
        Vault.open(vault.path)
