"""What is generated is committed as it would be generated now, and the contract only ever grows."""

from pathlib import Path

import pytest

from protos.compile import FIELDS, compile_into, field_lines
from protos.schema import rewrite

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted([*(ROOT / "periphery").glob("*/manifest.toml"), *(ROOT / "tests/emads").glob("*/manifest.toml")])


def test_the_generated_code_is_what_the_protos_say(tmp_path: Path) -> None:
    compile_into(tmp_path)
    made = {each.name: each.read_text() for each in (tmp_path / "protos/v1").iterdir()}
    assert len(made) >= 16
    for name, text in made.items():
        assert (ROOT / "protos/v1" / name).read_text() == text, f"{name} is stale: run ./test.sh fix"


def test_nothing_that_the_contract_once_had_has_changed_or_gone() -> None:
    once, now = set(FIELDS.read_text().splitlines()), set(field_lines())
    assert once - now == set(), "a field may be added, never changed or removed"
    assert now - once == set(), "new fields are recorded by ./test.sh fix"


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda each: each.parent.name)
def test_the_schemas_in_a_manifest_are_what_the_types_say(manifest: Path) -> None:
    assert rewrite(manifest) == manifest.read_text(), f"{manifest} is stale: run ./test.sh fix"
