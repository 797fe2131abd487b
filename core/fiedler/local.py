"""The alias `local`: what installed weights add to the operator's settings, so that a lab without a key can think."""

from collections.abc import Mapping

from core.fiedler.settings import Model, Orchestra, Provider
from core.fiedler.store import Weights, catalogue

ALIAS, PROVIDER = "local", "llama"
MAX_TOKENS = 2048
TEMPERATURE = 0.2  # these models wander off above
BYTES_PER_TOKEN = 2.0  # of prose and code with some other writing in between; free of charge, so a guess will do
# Prompts are read at some 60 tokens a second on two cores, and requests wait for each other.
FIRST_OUTPUT_S, IDLE_S, DEADLINE_S = 900.0, 120.0, 1800.0


def with_local(
    orchestra: Orchestra,
    providers: Mapping[str, Provider],
    models: Mapping[str, Model],
    weights: Weights | None,
    *,
    is_default: bool,
) -> tuple[Orchestra, dict[str, Provider], dict[str, Model]]:
    """The settings with the alias `local`, unless the operator has given one of its names to something else, and with
    what the catalogue knows of other local models.

    The alias is the lab's default where there is no other model, or where a person chose it (`madlab model use`) and
    `llm.default` does not say otherwise.
    """
    local = {name for name, each in providers.items() if each.kind == "local"}
    providers = dict(providers)
    models = {alias: _filled(each) if each.provider in local else each for alias, each in models.items()}
    if weights is None or ALIAS in models or PROVIDER in providers:
        return orchestra, providers, models
    providers[PROVIDER] = Provider(kind="local")
    models[ALIAS] = model_of(weights, PROVIDER)
    if is_default and not orchestra.default:
        orchestra = orchestra.model_copy(update={"default": ALIAS})
    return orchestra, providers, models


def model_of(weights: Weights, provider: str) -> Model:
    """What a model of the catalogue is set up as."""
    return Model(
        provider=provider,
        model=weights.name,
        context_tokens=weights.context_tokens,
        max_tokens=MAX_TOKENS,
        bytes_per_token=BYTES_PER_TOKEN,
        temperature=TEMPERATURE,
        first_output_s=FIRST_OUTPUT_S,
        idle_s=IDLE_S,
        deadline_s=DEADLINE_S,
        note=weights.expect,
        small=True,
    )


def _filled(model: Model) -> Model:
    """A local model as the operator set it up; what he left out is as the catalogue says."""
    weights = catalogue().get(model.model)
    if weights is None:
        return model
    said = {name: getattr(model, name) for name in model.model_fields_set}
    return model_of(weights, model.provider).model_copy(update=said)
