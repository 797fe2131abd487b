"""The operator's settings: file, then variables; every mistake is named with its place and what is allowed."""

from pathlib import Path

import pytest

from core.config import load
from core.home import Home
from protos.errors import InvalidArgument


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, "00000000", tmp_path)


def test_a_lab_without_settings_has_sensible_ones(home: Home) -> None:
    config = load(home, {})
    assert (config.runs.max_running, config.runs.lease_s) == (4, 60)
    assert [each.name for each in config.emads] == ["mcnamara", "hopper", "marco", "playfair"]


def test_a_variable_beats_the_file(home: Home) -> None:
    home.settings.write_text("[runs]\nmax_running = 2\nlease_s = 5\n[tree]\nfiles = 10\n")
    config = load(home, {"MADLAB_RUNS_MAX_RUNNING": "8", "MADLAB_HOME": "x", "MADLAB_EMADS": "/a:b"})
    assert (config.runs.max_running, config.runs.lease_s, config.tree.files) == (8, 5, 10)
    assert config.emads == (Path("/a"), home.path / "b")


def test_where_a_resident_lives_is_one_line(home: Home) -> None:
    home.settings.write_text('[residents]\necho = { class = "tests.emads.echo:Echo", home = "process" }\n')
    echo = load(home, {}).residents["echo"]
    assert (echo.class_, echo.home) == ("tests.emads.echo:Echo", "process")


def test_a_profile_is_overridden_where_it_says_so_and_nowhere_else(home: Home) -> None:
    home.settings.write_text('[profile.mcnamara]\nwarm = 1\nruntime = "runsc"\n')
    assert load(home, {}).profile["mcnamara"].model_dump(exclude_none=True) == {"warm": 1, "runtime": "runsc"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[runs]\nmax_runing = 2\n",
            "runs.max_runing is no setting (allowed: ",
        ),
        ("[runs]\nmax_running = 0\n", "runs.max_running: input should be greater than or equal to 1, not '0'"),
        ('[sandbox]\nruntime = "kvm"\n', "sandbox.runtime: input should be 'runc', 'runsc' or 'bwrap', not 'kvm'"),
        (
            "[profile.mcnamara]\nwarmth = 1\n",
            "profile.mcnamara.warmth is no setting (allowed: calls, cpus, deadline_s, least, memory_mb",
        ),
        (
            "[run]\n",
            "run is no setting (allowed: advisories, ",
        ),
        ('[residents.a]\nclass = "os"\n', "residents.a.class: "),
        ("runs = 3\n", "runs: input should be a valid dictionary"),
        ("x = \n", "Invalid value"),
        ('[models.a]\nprovider = "b"\nmodel = "c"\n', "models.a.provider: there is no provider 'b' (there are: none)"),
        ('[llm]\ndefault = "a"\n', "llm.default: there is no model 'a'"),
        (
            '[providers.a]\nkind = "openai"\nbase_url = "http://example.com/v1"\nkey = "a"\n',
            "providers.a: a key travels over https",
        ),
        (
            '[providers.a]\nkind = "openai"\nbase_url = "https://me:secret@example.com"\n',
            "providers.a: base_url holds more than an address",
        ),
    ],
)
def test_a_mistake_names_file_key_and_what_is_allowed(home: Home, text: str, said: str) -> None:
    home.settings.write_text(text)
    with pytest.raises(InvalidArgument) as told:
        load(home, {})
    assert told.value.message.startswith(f"{home.settings}: ")
    assert said in told.value.message


def test_a_wrong_variable_is_named_as_the_variable(home: Home) -> None:
    with pytest.raises(InvalidArgument, match=r"^MADLAB_RUNS_MAX_RUNNING: input should be a valid integer"):
        load(home, {"MADLAB_RUNS_MAX_RUNNING": "many"})
    with pytest.raises(InvalidArgument, match="the variable MADLAB_RUNS_MAX is no setting"):
        load(home, {"MADLAB_RUNS_MAX": "8"})


def test_a_variable_into_a_key_that_is_no_table_is_a_sentence(home: Home) -> None:
    home.settings.write_text("runs = 3\n")
    with pytest.raises(InvalidArgument, match="runs must be a table"):
        load(home, {"MADLAB_RUNS_MAX_RUNNING": "8"})


def test_a_key_in_the_wrong_place_is_not_shown(home: Home) -> None:
    for line in ('key = "sk-SECRET"', 'api_key = "sk-SECRET"', 'base_url = "https://x?key=sk-SECRET"'):
        home.settings.write_text(f'[providers.a]\nkind = "openai"\n{line}\n')
        with pytest.raises(InvalidArgument) as told:
            load(home, {})
        assert "SECRET" not in told.value.message


def test_models_and_providers_are_set_in_the_file(home: Home) -> None:
    home.settings.write_text(
        '[llm]\nusd_per_day = 5\n[providers.here]\nkind = "openai"\nbase_url = "http://127.0.0.1:11434/v1"\n'
        '[models."qwen/coder"]\nprovider = "here"\nmodel = "qwen2.5-coder"\ninput_usd = 0.0375\n'
    )
    config = load(home, {"MADLAB_LLM_DEFAULT": "qwen/coder"})
    assert config.llm.default == "qwen/coder"
    assert config.models["qwen/coder"].price.input == 37_500
