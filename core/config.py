"""What the operator decided: `madlab.toml` in the home, then `MADLAB_*` variables, checked once at the start.

A variable is named after its section and key: `MADLAB_RUNS_MAX_RUNNING=8`. Tables of many names (`[profile.NAME]`,
`[residents.NAME]`, `[providers.NAME]`, `[models.ALIAS]`) are set in the file only. An unknown key is an error: a
setting that does nothing is worse than none.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from core.egress.settings import Egress
from core.fiedler.local import with_local
from core.fiedler.settings import SECRET, Model, Orchestra, Provider, is_loopback
from core.fiedler.settings import check as check_orchestra
from core.fiedler.store import Store, chosen
from core.home import Home
from core.turing.headers import NAME
from core.turing.settings import Vault
from protos.errors import InvalidArgument
from sandbox.profile import Calls, Grade

NOT_SETTINGS = {
    "MADLAB_FULL",
    "MADLAB_HOME",
    "MADLAB_LAB",
    "MADLAB_MODELS",
    "MADLAB_PYTHON",
}  # variables that mean something else

Runtime = Literal["runc", "runsc", "bwrap"]
ProviderName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Alias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}$")]
Signal = Literal["traces", "metrics", "logs"]
POLICY = "policy.toml"  # in the home: read where it is there, behind those that `policy` names


def _words(value: object) -> object:
    """A variable holds several words between blanks."""
    return value.split() if isinstance(value, str) else value


class Section(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Runs(Section):
    """How much work at once, and how long it outlives a lost connection."""

    max_running: Annotated[int, Field(ge=1, le=1000)] = 4  # for all clients together one less, where there are more
    queue_max: Annotated[int, Field(ge=0, le=1_000_000)] = 1000  # runs that wait, a quarter for a client; no more
    children_max: Annotated[int, Field(ge=1, le=1_000_000)] = 64  # runs that one run may have open; one more is refused
    decoys: bool = True  # lay keys that are worth nothing into each sandbox, and end the run that carries one out
    lease_s: Annotated[float, Field(ge=1, le=3600)] = 60  # a worker and a core that lose each other give up after this


class Sandbox(Section):
    """What isolates, and how much of the machine all sandboxes together may have."""

    runtime: Runtime | None = None  # overrides every manifest's
    least: Grade | None = None  # the least that a runtime must stop; overrides every manifest's
    memory_mb: Annotated[int | None, Field(ge=64)] = None  # None: three quarters of the machine's


class Tree(Section):
    """Caps on a directory that goes in or comes out."""

    files: Annotated[int, Field(ge=1)] = 50_000
    bytes: Annotated[int, Field(ge=1)] = 2 * 1024**3
    name_bytes: Annotated[int, Field(ge=1, le=255)] = 255
    depth: Annotated[int, Field(ge=1, le=256)] = 64  # each level is an open directory while a tree is walked


class Files(Section):
    """What Horace may keep."""

    quota_gb: Annotated[float, Field(gt=0)] = 20  # a quarter for a client, the last for the operator
    keep_days: Annotated[float, Field(ge=0)] = 30  # after a blob was last linked; 0 is for ever


class Journal(Section):
    """How long bodies stay; 0 is for ever. Headers and their hashes stay for ever, old ones in sealed segments."""

    events_days: Annotated[float, Field(ge=0)] = 7  # bodies of progress, log and metric events
    messages_days: Annotated[float, Field(ge=0)] = 90  # bodies of what was said
    answers_days: Annotated[float, Field(ge=0)] = 90  # bodies of models' answers, kept to be given again
    acts_days: Annotated[float, Field(ge=0)] = 0  # bodies of acts that no view is made of: calls, requests, reads
    seal_days: Annotated[float, Field(ge=0)] = 180  # then headers without bodies are packed
    max_gb: Annotated[float, Field(ge=0)] = 4  # beyond, the oldest bodies go whatever their age


class Archive(Section):
    """When conversations leave the journal for archives, and how long these stay; 0 is never."""

    idle_days: Annotated[float, Field(ge=0)] = 0  # without a word; then it is archived by itself
    keep_days: Annotated[float, Field(ge=0)] = 0  # then an archive goes for good


class Approvals(Section):
    """How long an act that needs a person waits for one."""

    expire_s: Annotated[float, Field(ge=1, le=86_400)] = 600  # and how long what was approved may be begun


def _loopback(text: str) -> str:
    if not ip_address(text).is_loopback:
        raise ValueError(
            f"{text} can be reached from outside; the page listens on loopback only (127.0.0.1, ::1). From another"
            " machine: ssh -L"
        )
    return text


class Web(Section):
    """Where the page and the API listen, beside the lab's own socket."""

    enabled: bool = True
    host: Annotated[str, AfterValidator(_loopback)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 0  # 0: one at random, another one whenever it was given up


class Audit(Section):
    """Where signed checkpoints of the journal go: best where this machine can add and not rewrite."""

    checkpoint: Path | None = None  # a file that lines are appended to
    command: tuple[str, ...] = ()  # a program that is given each line on standard input
    minutes: Annotated[float, Field(gt=0, le=1440)] = 10  # between two; at the start and the end there is one, too


class Telemetry(Section):
    """Where traces, metrics and logs are told by OTLP; nowhere, unless an address is given. Never what was said."""

    otlp: str | None = None  # "http://127.0.0.1:4318"; /v1/traces, /v1/metrics and /v1/logs come behind it
    signals: Annotated[tuple[Signal, ...], BeforeValidator(_words)] = ("traces", "metrics")
    key: Annotated[str, Field(pattern=rf"^({SECRET}{NAME}|[a-z0-9][a-z0-9._-]{{0,63}})$")] | None = (
        None  # secret://NAME in the vault, or a name below keys/
    )
    header: Annotated[str, Field(pattern="^[a-z0-9-]{1,64}$")] = "authorization"  # that has the key
    service: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")] = "madlab"
    every_s: Annotated[float, Field(gt=0, le=3600)] = 5  # for so long traces and lines are gathered
    metrics_s: Annotated[float, Field(gt=0, le=3600)] = 60
    ca_file: Path | None = None  # of the authority that vouches for the collector, PEM, beside the system's

    @model_validator(mode="after")
    def _is_an_address(self) -> Self:
        address = urlsplit(self.otlp or "http://localhost")
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("otlp must begin with http:// or https://")
        if address.username or address.password or address.query or address.fragment:
            raise ValueError("otlp holds more than an address; a key belongs into `key`")
        if self.key is not None and address.scheme == "http" and not is_loopback(address.hostname):
            raise ValueError("a key travels over https, or on this machine: otlp must begin with https://")
        return self


class Advisories(Section):
    """Where `madlab advisories update` looks."""

    url: Annotated[str, Field(pattern="^https://")] = "https://osv-vulnerabilities.storage.googleapis.com/all.zip"


class Resident(Section):
    """A MAD of the core, and where it lives."""

    class_: Annotated[str, Field(alias="class", pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]  # "module:Class"
    home: Literal["core", "process", "sandbox"] = "core"
    image: str | None = None  # for home = "sandbox"
    command: tuple[str, ...] | None = None  # for home = "process": what serves the class's tools instead of Python


class Override(Section):
    """What the operator changes in an eMAD's profile. Whatever is absent stays as the manifest says."""

    runtime: Runtime | None = None
    least: Grade | None = None
    memory_mb: Annotated[int | None, Field(ge=32)] = None
    workspace_mb: Annotated[int | None, Field(ge=1)] = None
    cpus: Annotated[float | None, Field(gt=0)] = None
    pids: Annotated[int | None, Field(ge=8)] = None
    calls: Calls | None = None  # "browser": those that Chromium needs, too; a foreign manifest gets them only here
    deadline_s: Annotated[float | None, Field(gt=0)] = None
    warm: Annotated[int | None, Field(ge=0, le=64)] = None


def _paths(value: object) -> object:
    """A variable holds a list as a PATH does: separated by colons."""
    return value.split(os.pathsep) if isinstance(value, str) else value


class Config(Section):
    """The whole file."""

    runs: Runs = Runs()
    sandbox: Sandbox = Sandbox()
    files: Files = Files()
    tree: Tree = Tree()
    journal: Journal = Journal()
    archive: Archive = Archive()
    approvals: Approvals = Approvals()
    audit: Audit = Audit()
    web: Web = Web()
    policy: Annotated[tuple[Path, ...], BeforeValidator(_paths)] = ()  # files of rules, first to last; then policy.toml
    vault: Vault = Vault()
    telemetry: Telemetry = Telemetry()
    advisories: Advisories = Advisories()
    egress: Egress = Egress()
    emads: Annotated[tuple[Path, ...], BeforeValidator(_paths)] = (
        *(
            Path(__file__).resolve().parents[1] / "periphery" / name
            for name in ("mcnamara", "hopper", "marco", "playfair")
        ),
    )
    residents: dict[str, Resident] = {}
    profile: dict[str, Override] = {}
    llm: Orchestra = Orchestra()
    providers: dict[ProviderName, Provider] = {}
    models: dict[Alias, Model] = {}

    def overrides(self, emad: str) -> dict[str, Any]:
        """What the operator changed in an eMAD's profile."""
        own = self.profile[emad].model_dump(exclude_none=True) if emad in self.profile else {}
        return self.sandbox.model_dump(include={"runtime", "least"}, exclude_none=True) | own

    @model_validator(mode="after")
    def _models_are_there(self) -> Self:
        check_orchestra(self.llm, self.providers, self.models)
        return self


def load(home: Home, environment: Mapping[str, str] = os.environ) -> Config:
    """The settings of one lab.

    Raises:
        InvalidArgument: the file is no TOML, or a setting is wrong; the message names file, key and what is allowed.
    """
    try:
        table = tomllib.loads(home.settings.read_text(encoding="utf-8"))
    except FileNotFoundError:
        table = {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f"{home.settings}: {error}", next="mend the file and try again") from None
    sources: dict[tuple[str, ...], str] = {}
    for variable, key, value in _variables(environment):
        inner = table
        for part in key[:-1]:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise InvalidArgument(f"{home.settings}: {part} must be a table", next="mend the file and try again")
        inner[key[-1]] = value
        sources[key] = variable
    config = check_table(home, table, sources)
    places = tuple(each if each.is_absolute() else home.path / each for each in config.emads)
    weights, is_chosen = chosen(home.path, Store.locate(environment))
    llm, providers, models = with_local(config.llm, config.providers, config.models, weights, is_default=is_chosen)
    policy = [each if each.is_absolute() else home.path / each for each in config.policy]
    if (usual := home.path / POLICY).exists() and usual not in policy:
        policy.append(usual)
    return config.model_copy(
        update={"emads": places, "policy": tuple(policy), "llm": llm, "providers": providers, "models": models}
    )


def check_table(home: Home, table: dict[str, Any], sources: Mapping[tuple[str, ...], str] | None = None) -> Config:
    """What a whole file says. `sources` names the variables that some settings come from.

    Raises:
        InvalidArgument: a setting is wrong; the message names file, key and what is allowed.
    """
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        raise InvalidArgument(_sentence(home, error, sources or {}), next="mend it and try again") from None


def _variables(environment: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Each `MADLAB_*` variable with the key it sets.

    Raises:
        InvalidArgument: there is no such setting.
    """
    known = {"MADLAB_" + "_".join(key).upper(): key for key in _keys(Config)}
    for variable, value in environment.items():
        if not variable.startswith("MADLAB_") or variable in NOT_SETTINGS:
            continue
        if variable not in known:
            raise InvalidArgument(
                f"the variable {variable} is no setting (allowed: {', '.join(sorted(known))})", next="unset or mend it"
            )
        yield variable, known[variable], value


def _keys(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(kind, (*prefix, name))
        elif name not in ("residents", "profile", "providers", "models", "names"):
            yield (*prefix, name)


def _sentence(home: Home, error: ValidationError, sources: Mapping[tuple[str, ...], str]) -> str:
    """Every mistake: where it is, what is wrong with it, what is allowed."""
    said = []
    for each in error.errors():
        key = tuple(str(part) for part in each["loc"])
        place = sources.get(key) or f"{home.settings}: {'.'.join(key)}"
        if each["type"] == "extra_forbidden":
            said.append(f"{place} is no setting (allowed: {', '.join(_siblings(key))})")
        elif each["type"] == "value_error":
            said.append(f"{place}: {each['ctx']['error']}".replace(": : ", ": "))
        else:
            what = each["msg"][:1].lower() + each["msg"][1:]
            # What stands in a provider's table may be a key that somebody put into the wrong place.
            shown = "" if key[:1] == ("providers",) else f", not {str(each['input'])[:100]!r}"
            said.append(f"{place}: {what}{shown}")
    return "; ".join(said)


def _siblings(key: tuple[str, ...]) -> list[str]:
    """The names that are allowed where `key` stands."""
    many: dict[str, type[BaseModel]] = {
        "residents": Resident,
        "profile": Override,
        "providers": Provider,
        "models": Model,
    }
    model: Any = many.get(key[0], Config)
    if model is Config:
        for part in key[:-1]:
            model = model.model_fields[part].annotation
    return sorted(field.alias or name for name, field in model.model_fields.items())
