"""What `madlab doctor` says of a vault: where its key lies."""

from pathlib import Path

import pytest

from core.config import load
from core.doctor import _vault as look_at
from tests.labs import a_home


@pytest.mark.parametrize(
    ("settings", "environment", "state", "detail"),
    [
        ('[vault]\nkey_file = "vault.key"\n', "/c", "weak", "a copy of the home is a copy of every secret"),
        ("", "relative", "weak", "Nothing says where the key of the vault can be kept"),
        ("", "/c", "ok", "locked by the key file /c/madlab/vault-"),
        ('[vault]\nunlock = "passphrase"\n', "relative", "ok", "locked by a passphrase"),
    ],
)
def test_a_key_beside_the_data_is_weak(
    settings: str, environment: str, state: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", environment)
    with a_home(settings) as home:
        found = look_at(home, load(home, {}))
    if detail.startswith("locked") and any("/zram" not in each for each in _swaps()):
        pytest.skip("this machine has a swap, and that is said first")
    assert (found.state, detail in found.detail) == (state, True), found


def _swaps() -> list[str]:
    return Path("/proc/swaps").read_text().splitlines()[1:]
