"""A batch: many jobs in one file, with what they wait for, what they may cost, and ids that are always the same.

    [batch]
    name = "nightly"          # required; a part of every job's id
    at_once = 4               # jobs at work side by side
    usd = 5.0                 # for models, of all jobs together

    [jobs.audit]
    scan = "./service"        # a directory, a git repository or an archive; beside the file
    after = []                # jobs that must be done before

    [jobs.mend]
    code = "./service"
    goal = "Make the tests pass"
    test = "pytest -q"
    after = ["audit"]
    usd = 1.0                 # of this one
    tokens = 200000
    seconds = 1800

    [jobs.look]
    call = "dewey.search"
    arguments = { query = "timeout" }

A job's id is made of the lab, the batch's name, the round and all that the job says: the same job again is the same
message, which is said once. A job that was changed is another one, and so are those of another round.
"""

import json
import tomllib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.coding.asked import AGENTS
from core.grace.cli.files import check_regular
from protos.errors import InvalidArgument
from protos.ids import id_from

MOST = 1000  # jobs of one batch
WAYS = ("call", "code", "scan")
# Ids begin with a moment; those of batches all have this one, so that they depend on what the job says alone.
MOMENT = "01940000-0000-7000-8000-000000000000"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Settings(_Table):
    """`[batch]`: what holds for all jobs."""

    name: Name
    at_once: Annotated[int, Field(ge=1, le=64)] = 4
    usd: Annotated[float | None, Field(ge=0, le=1_000_000)] = None


class Job(_Table):
    """`[jobs.NAME]`: one thing to be done, in one of three ways."""

    call: Annotated[str | None, Field(pattern=r"^[a-z0-9-]+\.[A-Za-z0-9_]+$")] = None  # MAD.TOOL
    arguments: dict[str, Any] = {}
    scan: Path | None = None
    history: bool = True  # of a scan: look into the git history, too
    code: Path | None = None
    goal: Annotated[str, Field(max_length=8000)] = ""
    test: str = ""
    model: str = ""
    agent: str = ""
    after: tuple[str, ...] = ()
    usd: Annotated[float | None, Field(ge=0, le=1_000_000)] = None
    tokens: Annotated[int | None, Field(ge=0, le=2**53)] = None
    seconds: Annotated[float | None, Field(gt=0, le=30 * 86_400)] = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        given = [each for each in WAYS if getattr(self, each) is not None]
        if len(given) != 1:
            raise ValueError(f"a job is one of {', '.join(WAYS)}; this one is {' and '.join(given) or 'none'}")
        if (self.code is None) != (not self.goal.strip()):
            raise ValueError("goal goes with code, and code with a goal")
        for name in ("test", "model", "agent"):
            if getattr(self, name) and self.code is None:
                raise ValueError(f"{name} goes with code")
        if self.agent and self.agent not in AGENTS:
            raise ValueError(f"there is no agent {self.agent[:60]!r} (there are: {', '.join(AGENTS)})")
        if self.arguments and self.call is None:
            raise ValueError("arguments go with call")
        return self

    @property
    def way(self) -> str:
        """Which of the three it is."""
        return next(each for each in WAYS if getattr(self, each) is not None)

    @property
    def tool(self) -> str:
        """What does it, as MAD.TOOL."""
        return self.call or ("mcnamara.scan" if self.scan else "foreman.code")

    @property
    def mad(self) -> str:
        """Who does it."""
        return self.tool.partition(".")[0]


class Batch(_Table):
    """The whole file."""

    batch: Settings
    jobs: Annotated[dict[Name, Job], Field(min_length=1, max_length=MOST)]

    @model_validator(mode="after")
    def _ends(self) -> Self:
        for name, job in self.jobs.items():
            for each in job.after:
                if each not in self.jobs:
                    raise ValueError(f"jobs.{name}.after: there is no job {each!r}")
        order(self.jobs)
        return self

    def id(self, lab: str, round: str, name: str) -> str:
        """The id of the message that asks for a job; its conversation's is made of it."""
        said = self.jobs[name].model_dump(mode="json", exclude_defaults=True, exclude={"after"})
        told = json.dumps([lab, self.batch.name, round, name, said], sort_keys=True)
        return id_from(MOMENT, sha256(told.encode()).hexdigest())


def order(jobs: Mapping[str, Job]) -> list[str]:
    """The jobs so that each comes behind those that it waits for.

    Raises:
        ValueError: some wait for each other.
    """
    done: dict[str, None] = {}
    left = dict(jobs)
    while left:
        ready = [name for name, job in left.items() if all(each in done for each in job.after)]
        if not ready:
            raise ValueError(f"these jobs wait for each other: {', '.join(sorted(left))}")
        for name in ready:
            del left[name]
            done[name] = None
    return list(done)


def read_batch(path: Path) -> Batch:
    """The batch of a file.

    Raises:
        InvalidArgument: it cannot be read, or says something no batch says; every mistake is named with its place.
    """
    try:
        check_regular(path, streams=True)
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidArgument(f"{path} does not exist", next="name a file; see: madlab dispatch --help") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f"{path}: {error}", next="mend the file and try again") from None
    try:
        return Batch.model_validate(table)
    except ValidationError as error:
        said = [f"{'.'.join(map(str, each['loc'])) or 'the file'}: {_words(each)}" for each in error.errors()]
        raise InvalidArgument(f"{path}: {'; '.join(said)}", next="mend it; see: madlab dispatch --help") from None


def _words(error: Mapping[str, Any]) -> str:
    match error["type"]:
        case "extra_forbidden":
            model = Job if error["loc"][0] == "jobs" else Settings if error["loc"][0] == "batch" else Batch
            return f"is not known (allowed: {', '.join(sorted(model.model_fields))})"
        case "missing":
            return "is missing"
        case "value_error":
            return str(error["ctx"]["error"])
    return str(error["msg"][:1].lower() + error["msg"][1:])
