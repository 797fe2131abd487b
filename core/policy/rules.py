"""Policy files: rules with types, read from TOML and checked, each mistake told with its file, rule and field.

    [[rules]]
    name = "hopper-packages"
    kinds = ["web.fetch"]
    principals = ["mad:hopper"]
    hosts = ["pip.example.org", "files.example.org"]
    methods = ["GET", "HEAD"]
    verdict = "allow"
    limits = { packages = true, bytes_down = 500_000_000 }

The order: rules are read from the top, the operator's files before the built-in one, and **the first that matches
decides**; where none does, the answer is no. That is the order of firewalls and of `ssh_config`: to know what happens
one reads downwards and stops, an exception is a rule above the one it is an exception to, and no rule has a weight that
must be computed. What a rule does not mention, it does not ask about.

Only *taint* comes after: see `policy`.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from core.policy.acts import Kind, Limits, Verdict
from core.policy.targets import host_pattern
from protos.errors import InvalidArgument

BUILT_IN = Path(__file__).with_name("default.toml")
BUILT_IN_NAME = "the built-in policy"
OURS = frozenset({"default", "taint", "address", "port", "terms"})  # names that no rule of a file may have
UNSAID = Limits()
WEB_FIELDS = ("hosts", "paths", "schemes", "limits")
Label = Literal["worker", "file", "web", "private"]  # where it was; "private": it may hold what a secret opened


def _host(text: str) -> str:
    host_pattern(text)
    return text


def _network(text: str) -> str:
    ip_network(text)
    return text


Principal = Annotated[str, Field(pattern=r"^(\*|operator|(run|mad|client):(\*|[A-Za-z0-9][A-Za-z0-9._-]{0,127}))$")]
Method = Annotated[str, Field(pattern=r"^[A-Z]{3,16}$")]
Target = Annotated[str, Field(min_length=1, max_length=255)]
Segments = Annotated[str, Field(pattern=r"^/[!-\"$->@-\[\]-~]*$", max_length=1024)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitsTable(_Table):
    """`limits` of a rule; `core.policy.acts.Limits` says what each means and what holds where it is absent."""

    bytes_up: Annotated[int, Field(ge=0)] = UNSAID.bytes_up
    bytes_down: Annotated[int, Field(ge=0)] = UNSAID.bytes_down
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = UNSAID.requests_per_minute
    seconds: Annotated[float, Field(gt=0, le=86_400)] = UNSAID.seconds
    addresses: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    packages: bool = False


class Rule(_Table):
    """One rule."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)]
    principals: Annotated[tuple[Principal, ...], Field(min_length=1)]
    verdict: Verdict
    reason: Annotated[str, Field(max_length=500)] = ""  # a sentence that whoever is refused or asked reads
    targets: tuple[Target, ...] = ()  # MAD.TOOL or MAD.*, an alias, a secret; empty: any
    hosts: tuple[Annotated[str, AfterValidator(_host)], ...] = ()
    paths: tuple[Segments, ...] = ()  # what the path begins with, in whole segments; empty: any
    schemes: tuple[Literal["http", "https"], ...] = ()
    methods: tuple[Method, ...] = ()
    effects: tuple[Literal["read", "write", "outward"], ...] = ()  # of the tool that is called
    taint: tuple[Label, ...] = ()  # only acts into which something of these flows
    carries: tuple[Label, ...] = ()  # labels that what leaves the lab by this rule may have; see [taint]
    limits: LimitsTable = LimitsTable()

    @field_validator("paths")
    @classmethod
    def _without_slash(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(each.rstrip("/") for each in paths)

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        """A field that could not matter is a mistake: whoever wrote it believes that it does."""
        given, kinds = self.model_fields_set, set(self.kinds)
        for field, of in (
            *((each, {"web.fetch"}) for each in WEB_FIELDS),
            ("methods", {"web.fetch", "secret.use"}),
            ("effects", {"bus.call"}),
            ("carries", {"web.fetch", "secret.use", "bus.call"}),
        ):
            if field in given and not kinds <= of:
                wrong = ", ".join(sorted(kinds - of))
                raise ValueError(f"{field}: it means nothing for {wrong}; give that a rule of its own")
        if "web.fetch" in kinds:
            if "targets" in given:
                raise ValueError("targets: for web.fetch say hosts, paths, schemes and methods")
            if not self.hosts:
                raise ValueError('hosts: for web.fetch say which; ["*"] is any host on 80 and 443, ["*:*"] on any port')
        for field in ("limits", "carries"):
            if field in given and self.verdict == "deny":
                raise ValueError(f"{field}: it means nothing where the verdict is deny")
        return self


class TaintTable(_Table):
    """What an act that leaves the lab needs besides its rule, by where what it takes along has been."""

    worker: Verdict | None = None
    file: Verdict | None = None
    web: Verdict | None = None
    private: Verdict | None = None


class PolicyTable(_Table):
    """The whole file."""

    rules: tuple[Rule, ...] = ()
    taint: TaintTable = TaintTable()


@dataclass(frozen=True)
class PolicyFile:
    """A policy file as it was read."""

    name: str  # for people: "policy.toml"
    text: str
    table: PolicyTable


def read_policy(path: Path) -> PolicyFile:
    """
    Raises:
        InvalidArgument: it cannot be read, or says something no policy says; each sentence names file, rule and field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise InvalidArgument(f"{path}: {reason}", next="mend `policy` in madlab.toml, or the file") from None
    return parse_policy(text, str(path) if path != BUILT_IN else BUILT_IN_NAME)


def parse_policy(text: str, name: str) -> PolicyFile:
    """
    Raises:
        InvalidArgument: it says something no policy says; each sentence names file, rule and field.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"{name}: {error}", next="mend the file and try again") from None
    try:
        return PolicyFile(name, text, PolicyTable.model_validate(table))
    except ValidationError as error:
        sentences = "; ".join(_sentence(name, table, each) for each in error.errors())
        raise InvalidArgument(sentences, next="mend the file and try again") from None


def _sentence(name: str, table: Mapping[str, Any], error: Any) -> str:
    """One mistake: where it is, what is wrong with it, what is allowed."""
    place = tuple(str(each) for each in error["loc"])
    where, allowed = name, set(PolicyTable.model_fields)
    match place:
        case ("rules", number, *rest) if number.isdigit():
            rule = table["rules"][int(number)]
            called = rule.get("name") if isinstance(rule, dict) else None
            where = f"{name}: rule {called if isinstance(called, str) else f'number {int(number) + 1}'}"
            place, allowed = tuple(rest), set(Rule.model_fields)
            if rest[:1] == ["limits"]:
                allowed = set(LimitsTable.model_fields)
        case ("taint", *_):
            allowed = set(TaintTable.model_fields)
    field = ".".join(place)
    if error["type"] == "extra_forbidden":
        return f"{where}: {field} is no field here (allowed: {', '.join(sorted(allowed))})"
    if error["type"] == "missing":
        return f"{where}: {field} is missing"
    if error["type"] == "value_error":
        said = str(error["ctx"]["error"])
        return f"{where}: {field}: {said}" if field else f"{where}: {said}"
    what = error["msg"][:1].lower() + error["msg"][1:]
    return f"{where}: {field}: {what}, not {str(error['input'])[:100]!r}"
