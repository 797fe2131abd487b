"""Keys come from files that only their owner reads, and are shown by nothing."""

import copy
import os
from pathlib import Path

import pytest

from core.fiedler.keys import KeyFiles, VaultKeys
from core.turing.secret import Secret
from protos.errors import Denied, NotFound, Unavailable

VALUE = "sk-live-0123456789abcdef"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(VALUE + "\n")
    path.chmod(0o600)
    return path


def test_a_key_is_read_and_read_again_when_it_changes(file: Path) -> None:
    keys = KeyFiles({"p": file})
    first = keys.find("p")
    assert first is not None
    assert first.reveal() == VALUE
    assert keys.find("p") is first
    other = file.with_name("other")
    other.write_text("sk-next")
    other.chmod(0o400)
    other.rename(file)
    rotated = keys.find("p")
    assert rotated is not None
    assert rotated.reveal() == "sk-next"


def test_a_provider_without_a_key_has_none(file: Path) -> None:
    assert KeyFiles({"p": file}).find("q") is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o644, 0o601])
def test_a_file_that_others_can_open_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(Denied) as caught:
        KeyFiles({"p": file}).find("p")
    assert f"{mode:04o}" in caught.value.message
    assert "chmod 600" in caught.value.next


@pytest.mark.parametrize("content", [b"", b"  \n", b"two words", b"a\nb", b"k\x00", b"\xc3\xa4", b"x" * 5000])
def test_what_is_no_key_is_refused_without_being_shown(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(Denied) as caught:
        KeyFiles({"p": file}).find("p")
    assert content.decode("latin-1").strip() not in caught.value.message or not content.strip()


def test_links_directories_and_pipes_are_refused(file: Path, tmp_path: Path) -> None:
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(file)
    os.mkfifo(pipe, 0o600)
    for path in (link, tmp_path, pipe, tmp_path / "missing"):
        with pytest.raises(Denied):
            KeyFiles({"p": path}).find("p")


def test_a_key_shows_itself_to_nobody(file: Path) -> None:
    keys = KeyFiles({"p": file})
    key = keys.find("p")
    assert key is not None
    shown = f"{key} {key!r} {keys!r} {[key]} {key:}"
    assert VALUE not in shown
    with pytest.raises(TypeError):
        copy.copy(key)  # by the way that pickles go


def test_a_key_may_be_a_secret_of_the_vault_and_is_opened_anew_each_time(file: Path) -> None:
    values = {"one": b"sk-of-the-vault\n"}
    keys = VaultKeys({"v": "one"}, lambda name: Secret(values[name], name=name), KeyFiles({"p": file}))
    found = keys.find("v")
    assert found is not None
    assert found.reveal() == "sk-of-the-vault"
    values["one"] = b"sk-rotated"
    rotated, of_a_file = keys.find("v"), keys.find("p")
    assert rotated is not None
    assert rotated.reveal() == "sk-rotated"
    assert of_a_file is not None
    assert of_a_file.reveal() == VALUE
    assert keys.find("q") is None


@pytest.mark.parametrize(
    "error", [NotFound("There is no secret 'one'."), Unavailable("The vault is locked.", next="Unlock it.")]
)
def test_a_key_that_the_vault_does_not_give_is_told_with_what_to_do(error: NotFound | Unavailable) -> None:
    def refuse(name: str) -> Secret:
        raise error

    with pytest.raises(Denied, match="The key of v, secret://one, cannot be had") as caught:
        VaultKeys({"v": "one"}, refuse, KeyFiles({})).find("v")
    assert error.message in caught.value.message
    assert caught.value.next == error.next


@pytest.mark.parametrize("value", [b"", b"two words", b"a\nb", b"k\x00"])
def test_a_secret_that_is_no_key_is_refused_without_being_shown(value: bytes) -> None:
    with pytest.raises(Denied, match="is no key of v") as caught:
        VaultKeys({"v": "one"}, lambda name: Secret(value), KeyFiles({})).find("v")
    assert not value or value.decode() not in caught.value.message
