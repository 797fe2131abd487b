"""Everybody together: the script of one server. A model is called AGENT@PROTOCOL, so that a run has its own agent."""

from collections.abc import Iterable, Mapping

from tests.agents import Agent, good
from tests.agents.bad import bad
from tests.agents.patient import patient
from tests.model_server import ModelServer, Play, Request
from tests.repositories import seeded, small

AT = "@"
PROTOCOLS = ("openai", "anthropic")
OWN: Mapping[str, Mapping[str, object]] = {
    "crowd": {"max_tokens": 64_000},
    "mute": {"first_output_s": 4},  # whoever else is slow has a busy machine
    "tap": {"idle_s": 4},
}


def everybody() -> dict[str, Agent]:
    """All agents, by name, fresh."""
    agents = [good(each) for each in (*seeded().values(), *small().values())]
    return {each.name: each for each in (*agents, *bad(), *patient())}


class Troupe:
    """The script."""

    def __init__(self) -> None:
        self.agents = {f"{name}{AT}{protocol}": each for protocol in PROTOCOLS for name, each in everybody().items()}

    def __call__(self, request: Request) -> Play:
        """See `Agent`."""
        return self.agents[request.body["model"]](request)


def alias(model: str) -> str:
    """What an agent is called in `madlab.toml`: an alias has no @."""
    return model.replace(AT, ":")


def settings(server: ModelServer, models: Iterable[str], **limits: object) -> str:
    """The part of a `madlab.toml` that names agents as models, $3 and $15 for a million tokens, with a key file."""
    lines = [
        f'[providers.{protocol}]\nkind = "{protocol}"\nbase_url = "{getattr(server, protocol)}"\nkey_file = "key"\n'
        for protocol in PROTOCOLS
    ]
    usual = {"input_usd": 3, "output_usd": 15, "max_tokens": 6000, "first_output_s": 60, "idle_s": 60, "attempts": 2}
    for each in models:
        own = OWN.get(each.partition(AT)[0], {})
        told = "".join(f"{name} = {value}\n" for name, value in {**usual, **own, **limits}.items())
        lines.append(f'[models."{alias(each)}"]\nprovider = "{each.rpartition(AT)[2]}"\nmodel = "{each}"\n{told}')
    return "".join(lines)
