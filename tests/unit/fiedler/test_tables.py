"""Adding tables to madlab.toml: what the operator wrote stays, and what cannot be cut out is not touched."""

import tomllib
from pathlib import Path

import pytest

from core.fiedler.tables import read, with_tables, without_tables, write
from protos.errors import Conflict, InvalidArgument

WRITTEN = """\
# My lab. Do not touch.
[runs]
max_running = 2   # two are enough

# Ours, by contract.
[providers.ours]
kind = "openai"
base_url = "https://models.example"  # [not a header]

[models."fast/one"]
provider = "ours"
model = "m"

[models."fast/one".extra]
thinking = true

# The budget.
[llm]
usd_per_day = 5
"""
NEW = {("providers", "theirs"): {"kind": "anthropic"}, ("models", "a.b"): {"provider": "theirs", "model": "é\\"}}

NEW_TEXT = ('[providers.theirs]\nkind = "anthropic"\n\n', '[models."a.b"]\nprovider = "theirs"\nmodel = "m"\n\n')


def test_tables_are_added_at_the_end_and_the_rest_stays_as_it_was() -> None:
    made = with_tables(WRITTEN, NEW, replace=False)
    assert made.startswith(WRITTEN.rstrip())
    assert tomllib.loads(made)["models"]["a.b"] == {"provider": "theirs", "model": "é\\"}
    assert made.endswith('\n\n[models."a.b"]\nprovider = "theirs"\nmodel = "é\\\\"\n')


def test_an_empty_file_becomes_a_file() -> None:
    assert with_tables("", {("providers", "x"): {"kind": "openai"}}, replace=False) == (
        '[providers.x]\nkind = "openai"\n'
    )


def test_what_is_there_is_replaced_only_when_told_to() -> None:
    ours = {("providers", "ours"): {"kind": "anthropic"}}
    with pytest.raises(Conflict) as caught:
        with_tables(WRITTEN, ours, replace=False)
    assert "[providers.ours] is in madlab.toml already" in caught.value.message
    made = with_tables(WRITTEN, ours, replace=True)
    assert tomllib.loads(made)["providers"] == {"ours": {"kind": "anthropic"}}
    assert "Ours, by contract" not in made, "the comments above a table go with it"
    for kept in ("# My lab. Do not touch.", "# two are enough", "# The budget."):
        assert kept in made


def test_a_table_goes_with_the_tables_below_it() -> None:
    made = with_tables(WRITTEN, {("models", "fast/one"): {"provider": "ours", "model": "n"}}, replace=True)
    assert tomllib.loads(made)["models"] == {"fast/one": {"provider": "ours", "model": "n"}}
    assert "# The budget.\n[llm]\nusd_per_day = 5\n" in made


@pytest.mark.parametrize(
    "text",
    [
        'providers = { ours = { kind = "openai" } }\n',
        '[providers]\nours = { kind = "openai" }\n',
        'providers.ours.kind = "openai"\n',
        '[models.a]\nnote = """\n[providers.ours]\n"""\n[providers.ours]\nkind = "openai"\n',
    ],
    ids=["inline", "in a table", "dotted", "in a string"],
)
def test_what_is_written_in_another_way_is_told_and_not_touched(text: str) -> None:
    with pytest.raises(InvalidArgument):
        with_tables(text, {("providers", "ours"): {"kind": "anthropic"}}, replace=True)


@pytest.mark.parametrize("end", ["", "\n# The end.\n", "\n\n\n"])
def test_what_was_added_is_taken_out_and_every_byte_is_as_before(end: str) -> None:
    text = WRITTEN + end
    assert without_tables(with_tables(WRITTEN, NEW, replace=False), NEW) == WRITTEN
    assert without_tables("".join([*NEW_TEXT, text]), NEW) == text
    left = without_tables(text, [("models", "fast/one")])
    assert left == text.replace(text[text.index('[models."fast/one"]') : text.index("# The budget.")], "")


def test_a_file_keeps_the_line_ends_that_it_has(tmp_path: Path) -> None:
    path, text = tmp_path / "madlab.toml", WRITTEN.replace("\n", "\r\n")
    path.write_bytes(text.encode())
    made = with_tables(read(path), NEW, replace=False)
    write(path, made)
    content = path.read_bytes()
    assert content.startswith(text.encode())
    assert content.count(b"\n") == content.count(b"\r\n") > text.count("\n")
    assert without_tables(read(path), NEW) == text
    assert with_tables(text, {("providers", "ours"): {"kind": "anthropic"}}, replace=True).count("\r\n\r\n[prov") == 1


def test_a_file_that_is_no_toml_is_told() -> None:
    with pytest.raises(InvalidArgument) as caught:
        with_tables("[runs\n", NEW, replace=False)
    assert caught.value.message.startswith("madlab.toml: ")


def test_a_file_stays_as_private_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "madlab.toml"
    write(path, "a = 1\n")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    write(path, "a = 2\n")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("a = 2\n", 0o640)
    assert [each.name for each in tmp_path.iterdir()] == ["madlab.toml"]
