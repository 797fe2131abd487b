"""`madlab model` and `madlab provider`, as a person uses them: mostly without a running lab."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from core.fiedler.store import Store, catalogue
from tests.commands import Madlab
from tests.labs import a_home
from tests.model_server import ModelServer, Play, model_server
from tests.orchestras import KEY

LARGE, SMALL = catalogue()


@pytest.fixture
def madlab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Madlab]:
    """The command, on a machine without weights and without a package index."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with a_home() as home:
        yield Madlab(home)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    server = model_server(Play(text="Yes."))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(server) as running:
        yield running


def pretend(madlab: Madlab, tmp_path: Path, name: str) -> None:
    """A file as long as the weights, without their bytes."""
    weights = catalogue()[name]
    folder = Store(tmp_path / "cache" / "madlab" / "models").folder(weights)
    folder.mkdir(parents=True)
    with (folder / "model.gguf").open("wb") as file:
        file.truncate(weights.bytes)


def test_models_are_listed_with_what_to_expect(madlab: Madlab) -> None:
    told = madlab("model", "list")
    assert told.code == 0, told.err
    assert [line.split()[0] for line in told.out.splitlines() if line.startswith("qwen")] == [LARGE, SMALL]
    assert "not installed" in told.out
    found = madlab("model", "list", "--json").json
    assert [(each["name"], each["installed"], each["in_use"]) for each in found["models"]] == [
        (LARGE, False, False),
        (SMALL, False, False),
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["model", "install", "gpt-7"], "There is no local model 'gpt-7'."),
        (["model", "install", SMALL], "cannot be fetched"),
        (["model", "use", SMALL], f"{SMALL} is not installed."),
        (["model", "use", "gpt-7"], "There is no local model 'gpt-7'."),
        (["provider", "add", "x", "--kind", "telepathy", "--model", "a=b"], "There is no kind 'telepathy'."),
        (["provider", "add", "../x", "--kind", "openai", "--model", "a=b"], "is no name for a provider"),
        (["provider", "add", "X y", "--kind", "openai", "--model", "a=b"], "string should match"),
        (["provider", "add", "x", "--kind", "openai", "--model", "b"], "is not ALIAS=MODEL"),
        (
            ["provider", "add", "x", "--kind", "openai", "--model", "a=b", "--base-url", "ftp://x"],
            "must begin with http",
        ),
        (["provider", "add", "x", "--kind", "openai", "--model", "a=b", "--key-from", "/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence_and_changes_nothing(
    madlab: Madlab, arguments: list[str], sentence: str
) -> None:
    before = madlab.home.settings.read_text()
    told = madlab(*arguments)
    code = 3 if "cannot be fetched" in sentence else 2
    assert (told.code, sentence in told.err, told.out) == (code, True, ""), told.err
    assert len(told.err.splitlines()) <= 3, told.err
    assert madlab.home.settings.read_text() == before
    assert not (madlab.home.path / "model").exists()


def test_an_installed_model_is_used_and_removed(madlab: Madlab, tmp_path: Path) -> None:
    pretend(madlab, tmp_path, LARGE)
    pretend(madlab, tmp_path, SMALL)
    assert madlab("model", "install", SMALL).err.startswith(f"{SMALL} is here already")
    told = madlab("model", "use", SMALL)
    assert told.code == 0, told.err
    assert catalogue()[SMALL].expect in told.err
    assert [each["in_use"] for each in madlab("model", "list", "--json").json["models"]] == [False, True]
    assert madlab("model", "remove", SMALL).err == f"{SMALL} is removed.\n"
    assert madlab("model", "remove", SMALL).err == f"{SMALL} is not installed.\n"
    assert [each["in_use"] for each in madlab("model", "list", "--json").json["models"]] == [True, False]


def test_the_operators_own_default_is_not_overruled(madlab: Madlab, tmp_path: Path) -> None:
    pretend(madlab, tmp_path, SMALL)
    madlab("provider", "add", "x", "--kind", "openai", "--model", "big=m")
    settings = madlab.home.settings
    settings.write_text('llm.default = "big"\n' + settings.read_text())
    told = madlab("model", "use", SMALL)
    assert told.code == 2
    assert "says llm.default = 'big', and that counts" in told.err


def test_a_lab_without_a_model_says_so_and_how_to_get_one(madlab: Madlab, server: ModelServer) -> None:
    madlab.up()
    try:
        told = madlab("models")
        assert told.err.startswith("There is no model. Get a local one with `madlab model install`")
        asked = madlab("ask", "Is it?")
        assert asked.code == 2
        assert "`madlab provider add`" in asked.err

        added = madlab("provider", "add", "here", "--kind", "openai", "--base-url", server.openai, "--model", "a=m")
        assert added.code == 0, added.err
        assert "madlab down --keep-runs; madlab up" in added.err
        assert madlab("down", "--keep-runs").code == 0
        madlab.up()
        assert madlab("ask", "Is it?").out == "Yes.\n"
    finally:
        madlab("down")


def test_a_key_comes_from_stdin_or_a_file_and_lies_where_only_its_owner_reads(
    madlab: Madlab, server: ModelServer, tmp_path: Path
) -> None:
    common = ("--kind", "anthropic", "--base-url", server.anthropic, "--key-from")
    told = madlab("provider", "add", "one", *common, "-", "--model", "a=m", stdin=KEY + "\n")
    assert told.code == 0, told.err
    file = madlab.home.path / "keys" / "one"
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == (KEY + "\n", 0o600)
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert KEY not in told.out + told.err + madlab.home.settings.read_text()

    again = madlab("provider", "add", "one", *common, "-", "--model", "a=m", stdin="another")
    assert again.code == 2
    assert file.read_text() == KEY + "\n"
    (tmp_path / "key").write_text("another-key")
    for mode in (0o644, 0o640, 0o600):
        (tmp_path / "key").chmod(mode)
        replaced = madlab("provider", "add", "one", *common, tmp_path / "key", "--model", "a=n", "--replace")
        assert replaced.code == 0, replaced.err
        assert (f"chmod 600 {tmp_path / 'key'}\n" in replaced.err) == (mode != 0o600), "its owner is told what to do"
    assert file.read_text() == "another-key\n"
    for content in ("", "two\nlines", "x" * 5000):
        wrong = madlab("provider", "add", "two", *common, "-", "--model", "b=m", stdin=content)
        assert "does not hold one line of visible characters" in wrong.err
    assert not (madlab.home.path / "keys" / "two").exists()


def test_a_key_does_not_travel_in_the_clear(madlab: Madlab) -> None:
    url = ("--base-url", "http://models.example/v1")
    told = madlab("provider", "add", "x", "--kind", "openai", *url, "--model", "a=m", "--key-from", "-", stdin=KEY)
    assert told.code == 2
    assert "a key travels over https" in told.err
    assert not (madlab.home.path / "keys").exists()
    assert KEY not in told.err


def test_a_provider_is_listed_without_its_key_and_removed_when_no_model_needs_it(
    madlab: Madlab, server: ModelServer
) -> None:
    settings = madlab.home.settings
    settings.write_text("# Ours.\n" + settings.read_text() + "# The end.\n")
    before = settings.read_text()
    common = ("--kind", "anthropic", "--base-url", server.anthropic, "--model", "a=m", "--model", "b=n")
    assert madlab("provider", "add", "one", *common, "--key-from", "-", stdin=KEY).code == 0
    file = madlab.home.path / "keys" / "one"
    listed = madlab("provider", "list", "--json")
    assert listed.json["providers"] == [
        {"name": "one", "kind": "anthropic", "address": server.anthropic, "key": str(file), "models": ["a", "b"]}
    ]
    shown = madlab("provider", "list")
    assert shown.out.splitlines()[1].split()[:2] == ["one", "anthropic"]
    assert KEY not in listed.out + shown.out

    whole = settings.read_text()
    refused = madlab("provider", "remove", "one")
    assert (refused.code, settings.read_text(), file.exists()) == (2, whole, True)
    assert "one is still needed: a, b are served by it" in refused.err
    settings.write_text('llm.default = "a"\n' + whole)
    assert "there is no model 'a'" in madlab("provider", "remove", "one", "--with-models").err
    settings.write_text(whole)
    removed = madlab("provider", "remove", "one", "--with-models")
    assert (removed.code, settings.read_text(), file.exists()) == (0, before, False), removed.err
    assert madlab("provider", "remove", "one").code == 2
    assert madlab("provider", "list", "--json").json == {"providers": []}
