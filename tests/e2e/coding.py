"""What the tests of `madlab code` stand on: a lab with Hopper, a model server that plays agents, and repositories."""

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from anyio.from_thread import start_blocking_portal

from core.grace.cli.client import Client
from core.home import Home
from tests.agents import Agent
from tests.agents.troupe import PROTOCOLS, Troupe, alias, settings
from tests.commands import Madlab, Result, a_lab
from tests.labs import ROOT
from tests.model_server import ModelServer, Play, model_server
from tests.repositories import Made, Seeded, fingerprint, git, seeded, small, without_git

IMAGES = ("base", "hopper")
LIMIT_S = 240
PROFILE = "[profile.hopper]\nmemory_mb = 512\nworkspace_mb = 256\n[runs]\nmax_running = 6\n"


@dataclass(frozen=True)
class Coded:
    """What a run of `madlab code --json` came to, and the repository it was for."""

    seeded: Seeded
    made: Made
    agent: Agent
    result: Result
    before: Mapping[str, object]
    untouched: bool  # the repository: work tree, index, configuration, hooks and refs, to the nanosecond

    @property
    def said(self) -> Any:
        """The JSON."""
        assert self.result.out, self.result.err
        return self.result.json

    @property
    def outcome(self) -> str:
        """What it came to."""
        return str(self.said["outcome"])

    @property
    def run(self) -> str:
        """The run's id."""
        return str(self.said["run"])


@dataclass
class Stage:
    """A running lab and everybody who plays in it."""

    madlab: Madlab
    server: ModelServer
    troupe: Troupe
    place: Path
    key: str
    coded: dict[str, Coded] = field(default_factory=dict)

    @property
    def home(self) -> Home:
        """The lab's."""
        return self.madlab.home

    @property
    def client(self) -> Client:
        """A program that talks to the lab."""
        return Client(self.home)

    def repository(self, name: str) -> Made:
        """A fresh one of its kind."""
        place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.place))
        return (seeded() | small())[name].make(place)

    def words(self, agent: Agent, made: Made, protocol: str, more: Sequence[str] = ()) -> list[str]:
        """The arguments of `madlab`."""
        repository = (seeded() | small())[agent.repository]
        words = ["code", repository.goal, "--repo", str(made.root), "--model", alias(f"{agent.name}@{protocol}")]
        return [*words, *(("--test", repository.test) if repository.test else ()), *agent.terms, *more]

    def code(self, name: str, *more: str, protocol: str = "openai", made: Made | None = None) -> Coded:
        """Has an agent of the troupe work on a repository of its kind."""
        agent = self.troupe.agents[f"{name}@{protocol}"]
        made = made or self.repository(agent.repository)
        before = fingerprint(made.root)
        result = self.madlab(*self.words(agent, made, protocol, ["--json", *more]))
        untouched = fingerprint(made.root) == before
        return Coded((seeded() | small())[agent.repository], made, agent, result, before, untouched)

    def solved(self, name: str) -> Coded:
        """The same, once in the life of this stage, in one protocol or the other."""
        if name not in self.coded:
            self.coded[name] = self.code(name, protocol=PROTOCOLS[sum(map(ord, name)) % 2])
        return self.coded[name]

    def blob(self, digest: str) -> bytes:
        """What a blob holds."""
        into = BytesIO()
        self.client.download(digest, into)
        return into.getvalue()

    def artifacts(self, run: str) -> dict[str, bytes]:
        """What a run left, by name."""
        shown = self.madlab("show", run, "--json").json
        return {each["name"]: self.blob(each["digest"]) for each in shown["artifacts"]}

    def applied(self, coded: Coded) -> Path:
        """A plain copy of the work tree with the patch, by a careful person's `git apply`."""
        copy = without_git(coded.made.root, Path(tempfile.mkdtemp(dir=self.place)) / "applied")
        git(copy, "init", "-q")
        patch = copy.parent / "patch.diff"
        patch.write_bytes(self.blob(coded.said["patch"]["blob"]))
        git(copy, "apply", "--check", "--whitespace=nowarn", str(patch))
        git(copy, "apply", "--whitespace=nowarn", str(patch))
        return copy


@contextmanager
def stage(extra: str = "", *, plays: Callable[[Play], Play] = lambda play: play, **limits: object) -> Iterator[Stage]:
    """A lab whose models are the whole troupe, with a key that nobody may ever find. `plays` changes what they play."""
    key = f"sk-test-{secrets.token_hex(12)}"

    def prepare(home: Home) -> None:
        file = home.path / "key"
        file.touch(mode=0o600)
        file.write_text(key)

    troupe = Troupe()
    with (
        tempfile.TemporaryDirectory(prefix="stage") as place,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(model_server(lambda request: plays(troupe(request)))) as server,
    ):
        told = f'emads = ["{ROOT / "periphery/hopper"}"]\n{PROFILE}{extra}{settings(server, troupe.agents, **limits)}'
        with a_lab(told, images=IMAGES, limit_s=LIMIT_S, prepare=prepare) as madlab:
            yield Stage(madlab, server, troupe, Path(place), key)
