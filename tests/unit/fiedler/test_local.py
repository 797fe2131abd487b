"""The alias `local`: there when weights are, the default when nothing else is or when it was chosen."""

from pathlib import Path

import pytest

from core.config import Config, load
from core.fiedler.store import catalogue, choose
from core.home import Home

OTHER = '[providers.x]\nkind = "openai"\n[models.big]\nprovider = "x"\nmodel = "m"\n'


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def read(home: Home, settings: str, *installed: str) -> Config:
    """The settings of a lab on a machine that has these weights."""
    models = home.path.parent / "models"
    for name in installed:
        weights = catalogue()[name]
        folder = models / weights.sha256
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "model.gguf").open("wb") as file:
            file.truncate(weights.bytes)
    home.settings.write_text(settings)
    return load(home, {"MADLAB_MODELS": str(models)})


def test_without_weights_there_is_no_model(home: Home) -> None:
    assert read(home, "").models == {}
    assert load(home, {}).models == {}


def test_with_weights_a_lab_without_settings_has_one_small_model(home: Home) -> None:
    config = read(home, "", "qwen2.5-coder-0.5b")
    assert list(config.models) == ["local"]
    local = config.models["local"]
    assert (local.model, local.small) == ("qwen2.5-coder-0.5b", True)
    assert local.note.startswith("A very small local model")
    assert config.providers[local.provider].kind == "local"


def test_the_operators_models_come_first_until_the_local_one_is_chosen(home: Home) -> None:
    config = read(home, OTHER, "qwen2.5-coder-0.5b")
    assert (list(config.models), config.llm.default) == (["big", "local"], "")
    choose(home.path, "qwen2.5-coder-0.5b")
    assert read(home, OTHER).llm.default == "local"
    assert read(home, '[llm]\ndefault = "big"\n' + OTHER).llm.default == "big", "the operator's file counts"


def test_names_that_the_operator_uses_are_left_alone(home: Home) -> None:
    own = OTHER.replace("[models.big]", "[models.local]")
    assert read(home, own, "qwen2.5-coder-0.5b").models["local"].model == "m"
    taken = OTHER.replace("providers.x", "providers.llama").replace('"x"', '"llama"')
    assert list(read(home, taken).models) == ["big"]


def test_a_local_model_of_the_operators_knows_what_the_catalogue_says(home: Home) -> None:
    own = '[providers.mine]\nkind = "local"\nidle_s = 30\n[models.tiny]\nprovider = "mine"\nmax_tokens = 50\n'
    config = read(home, own + 'model = "qwen2.5-coder-0.5b"\n')
    tiny = config.models["tiny"]
    assert (tiny.max_tokens, tiny.small, tiny.context_tokens) == (50, True, 8192)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ('base_url = "https://x.example"\n', "it has neither base_url nor key"),
        ('key = "x"\n', "it has neither base_url nor key"),
    ],
)
def test_a_local_provider_has_no_address_and_no_key(home: Home, lines: str, sentence: str) -> None:
    with pytest.raises(Exception, match=sentence):
        read(home, f'[providers.mine]\nkind = "local"\n{lines}')
