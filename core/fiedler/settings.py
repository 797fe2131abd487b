"""What the operator says of models: `[llm]`, `[providers.NAME]` and `[models.ALIAS]` of madlab.toml."""

from collections.abc import Mapping
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.fiedler.money import Price, price_of
from core.turing.headers import NAME

Usd = Annotated[Decimal, Field(ge=0, le=100_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
SECRET = "secret://"
OFFICIAL = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}


class Section(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Orchestra(Section):
    """`[llm]`: what holds for all models."""

    default: str = ""  # the alias that a request without one means; empty: the first in the file
    usd_per_day: Usd | None = None  # of all calls together, by UTC; None: no cap
    tokens_per_day: Annotated[int | None, Field(ge=0)] = None
    failures: Annotated[int, Field(ge=1, le=100)] = 5  # in a row, after which a model rests
    rest_s: Seconds = 30


class Provider(Section):
    """`[providers.NAME]`: a place that serves models."""

    kind: Literal["openai", "anthropic", "recorded", "local"]
    base_url: str = ""  # empty: the official one
    key_file: Path | None = None  # read by its owner alone (0600); relative to the lab's home
    key: Annotated[str, Field(pattern=rf"^({SECRET}{NAME}|[a-z0-9][a-z0-9._-]{{0,63}})$")] | None = (
        None  # instead: secret://NAME in the vault, or a name below keys/
    )
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None  # None: what the address suggests
    stream_usage: bool = True  # ask for usage in streams; a few servers refuse the question
    structured: Literal["native", "tool"] = "native"  # how a schema is asked for where the kind is anthropic
    wire: Literal["openai", "anthropic"] = "openai"  # the protocol of recorded exchanges
    directory: Path | None = None  # of recorded exchanges
    idle_s: Seconds = 600  # kind local: how long a worker stays when nobody asks it

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.key_file is not None and self.key is not None:
            raise ValueError("has both key_file and key: leave one")
        if (self.kind == "recorded") != (self.directory is not None):
            raise ValueError("kind recorded, and no other, needs a directory")
        if self.kind == "local" and (self.base_url or self.has_key):
            raise ValueError("kind local is a worker of this lab: it has neither base_url nor key")
        if self.directory is not None and not self.directory.is_absolute():
            raise ValueError("directory must begin with /")
        address = urlsplit(self.address)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("base_url must begin with http:// or https://")
        if address.username or address.password or address.query or address.fragment:
            raise ValueError("base_url holds more than an address; a key belongs into a key file")
        if address.scheme == "http" and self.has_key and not is_loopback(address.hostname):
            raise ValueError("a key travels over https, or on this machine: base_url must begin with https://")
        return self

    @property
    def address(self) -> str:
        """Where it is."""
        return self.base_url or OFFICIAL["anthropic" if "anthropic" in (self.kind, self.wire) else "openai"]

    @property
    def has_key(self) -> bool:
        """Whether it wants one."""
        return self.key_file is not None or self.key is not None

    @property
    def key_secret(self) -> str | None:
        """The secret of the vault that is its key."""
        return self.key.removeprefix(SECRET) if self.key is not None and self.key.startswith(SECRET) else None

    def key_path(self, home: Path) -> Path | None:
        """Where its key lies, if it lies in a file."""
        if self.key is not None:
            return home / "keys" / self.key if self.key_secret is None else None
        return home / self.key_file if self.key_file is not None else None

    @property
    def tokens_field(self) -> str:
        """What the protocol calls the most tokens of an answer here: OpenAI's own models want the newer name."""
        official = urlsplit(self.address).hostname == "api.openai.com"
        return self.max_tokens_field or ("max_completion_tokens" if official else "max_tokens")


class Model(Section):
    """`[models.ALIAS]`: a model under the name that callers use."""

    provider: str
    model: str  # the provider's name for it
    input_usd: Usd = Decimal(0)  # per million tokens
    output_usd: Usd = Decimal(0)
    cached_usd: Usd | None = None  # input read from a cache; None: as input
    cache_write_usd: Usd | None = None
    context_tokens: Annotated[int, Field(ge=0)] = 0  # 0: unknown
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 4096  # of one answer, reasoning included
    bytes_per_token: Annotated[float, Field(ge=1, le=8)] = 1.0  # 1 is safe for any text, 3 fits prose and code
    image_tokens: Annotated[int, Field(ge=0)] = 5000  # the most that one picture counts
    chat: bool = True
    tools: bool = True
    images: bool = False
    embeddings: bool = False
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None  # used where a request names none
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    reasoning_effort: Literal["", "none", "minimal", "low", "medium", "high"] = ""
    extra: dict[str, Any] = {}  # further fields of the request's body, for this model
    fallbacks: tuple[str, ...] = ()  # aliases, in order, when this one does not answer
    attempts: Annotated[int, Field(ge=1, le=20)] = 3  # at one request, all models together
    first_output_s: Seconds = 120
    idle_s: Seconds = 60  # between two pieces of an answer
    deadline_s: Seconds = 600  # for all of it
    hedge_after_s: Seconds | None = None  # ask a second model when the first is silent for so long; both are paid
    note: Annotated[str, Field(max_length=300)] = ""  # what to expect of it, for people
    small: bool = False  # answers short questions and writes small functions; not to be trusted with a plan

    @property
    def price(self) -> Price:
        """In picodollars a token."""
        input = price_of(self.input_usd)
        return Price(
            input=input,
            output=price_of(self.output_usd),
            cached=input if self.cached_usd is None else price_of(self.cached_usd),
            cache_write=input if self.cache_write_usd is None else price_of(self.cache_write_usd),
        )


def check(orchestra: Orchestra, providers: Mapping[str, Provider], models: Mapping[str, Model]) -> None:
    """
    Raises:
        ValueError: a name that is used and not there; the sentence says which.
    """
    for alias, model in models.items():
        if model.provider not in providers:
            known = ", ".join(sorted(providers)) or "none"
            raise ValueError(f"models.{alias}.provider: there is no provider {model.provider!r} (there are: {known})")
        if model.extra and providers[model.provider].kind == "local":
            raise ValueError(f"models.{alias}.extra: a local model has no body of a request to put it into")
        for each in model.fallbacks:
            if each not in models or each == alias:
                raise ValueError(f"models.{alias}.fallbacks: {each!r} is no other alias")
    if orchestra.default and orchestra.default not in models:
        raise ValueError(f"llm.default: there is no model {orchestra.default!r}")


def is_loopback(host: str) -> bool:
    """Whether that is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
