"""A run's change on its way to a branch: what is checked, what the commit says, and that nothing else is touched.

Whoever lets it land has the run as the door tells of it and the blobs it names; the command line fetches them through
the door, the door has them at hand. `branch.py` fits the change to HEAD, `repository.py` writes.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Any

from core.coding.branch import Planned, plan, same_as_head, write
from core.coding.changes import Changes, open_changes
from core.coding.merge import Conflict as Clash
from core.coding.merge import Handed, open_merge
from core.coding.patch import render
from core.coding.repository import Repository
from core.coding.review import unfit
from core.coding.telling import clean_room, plain, tests, warnings
from core.run import forgotten
from protos.errors import Conflict, InvalidArgument, NotFound

CHUNK = 256 * 1024
SUBJECT = 72  # characters of a commit's first line
SHOWN = 20  # of what wants a look

Fetch = Callable[[str], IO[bytes]]  # a blob by its digest, as a file that is closed by whoever gave it


@dataclass(frozen=True)
class Coded:
    """A run that has changed a tree, as the door tells of it."""

    run: Mapping[str, Any]
    goal: str
    source: str  # the digest of the tree

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> "Coded":
        """
        Raises:
            Conflict: it has not ended, was forgotten, or is no run that changes a tree.
        """
        if run["outcome"] is None:
            raise Conflict(f"the run {run['id']} is {run['state']}", next=f"wait for it: madlab logs -f {run['id']}")
        if run["forgotten"]:
            raise Conflict(forgotten(run["id"], run["forgotten"]), next="let it be coded again: madlab code")
        asked = next((each for each in run["messages"] if each["kind"] == "call" and each["tool"] == "code"), None)
        given = asked["data"] if asked and isinstance(asked["data"], Mapping) else {}
        if not given.get("source"):
            raise Conflict(f"{run['id']} is a run of {run['mad']}, which changes no tree", next="see: madlab runs")
        return cls(run, str(given.get("goal", "")), str(given["source"]))

    @property
    def id(self) -> str:
        return str(self.run["id"])

    @property
    def evidence(self) -> Mapping[str, Any]:
        return self.run["evidence"] or {}

    @property
    def who(self) -> str:
        """The author of its commit: always the same, so that the commit is."""
        return f"madlab <{self.id}>"

    @property
    def ended(self) -> int:
        """Seconds since the epoch."""
        return int(self.run["ended"])

    def artifact(self, name: str) -> Mapping[str, Any]:
        """What it left under a name.

        Raises:
            Conflict: there is no such thing.
        """
        return artifact(self.run, name)

    @property
    def trailers(self) -> list[str]:
        """What its commit says of it."""
        told = {
            "Run": self.id,
            "Outcome": str(self.run["outcome"]),
            "Model": self.evidence.get("model") or "unknown",
            "Tests-Before": tests(self.evidence.get("tests_before")),
            "Tests-After": tests(self.evidence.get("clean_room_tests") or self.evidence.get("tests_after")),
            "Clean-Room": clean_room(self.evidence),
        }
        return [f"Madlab-{name}: {plain(value)[:300]}" for name, value in told.items()]


def artifact(run: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What a run left under a name.

    Raises:
        Conflict: there is no such thing.
    """
    found: Mapping[str, Any] | None = next((each for each in run["artifacts"] if each["name"] == name), None)
    if found is None:
        raise Conflict(f"the run {run['id']} left no {name}", next=f"see what it left: madlab show {run['id']}")
    return found


@contextmanager
def open_coded(coded: Sequence[Coded], fetch: Fetch) -> Iterator[tuple[Changes, Sequence[Clash]]]:
    """What one run changed, or two together with where they do not fit; looked through once more on this side.

    Raises:
        Conflict: nothing was changed, or what it began with is not kept any more, or is not the same for both.
        TreeRefused: what a run left is no packed tree.
    """
    first = coded[0]
    if len({each.source for each in coded}) > 1:
        raise Conflict("the two runs began with different trees", next="apply one, and let the other begin from there")
    try:
        source = fetch(first.source)
    except NotFound:
        raise Conflict(
            f"what {first.id} began with is not kept any more",
            next=f"write the diff with madlab apply {first.id} --out FILE, and apply it with git apply",
        ) from None
    handed = [_handed(each, fetch) for each in coded]
    clashes: Sequence[Clash] = ()
    with ExitStack() as stack:
        if len(handed) == 1:
            changes = stack.enter_context(open_changes(_chunks(source), handed[0].changes, handed[0].deleted))
        else:
            merged = stack.enter_context(open_merge(lambda: _chunks(source), handed[0], handed[1]))
            changes, clashes = merged.changes, merged.conflicts
        if not changes.pairs and not clashes:
            raise Conflict(f"the run {first.id} changed nothing", next=f"see: madlab show {first.id}")
        yield changes, clashes


@dataclass(frozen=True)
class Landed:
    """What came of it. Where files do not fit HEAD nothing was written, and `commit` is empty."""

    planned: Planned
    commit: str = ""
    created: bool = False  # else the branch was there already, at this very commit


def land(coded: Sequence[Coded], changes: Changes, repository: Repository, branch: str, below: str = "") -> Landed:
    """Puts a change on a new branch as one commit on top of HEAD. `below` is the directory that the run was given.

    Raises:
        InvalidArgument: no branch can have this name.
        Conflict: HEAD has all of it, the branch is there at another commit, or the repository is not understood.
        Unavailable: there is no git on this machine.
    """
    with repository.reading() as objects:
        planned = plan(changes, repository.head(), objects, below)
        if planned.conflicts:
            return Landed(planned)
        if same_as_head(planned, objects):
            raise Conflict(f"HEAD has all of {coded[0].id} already", next="there is nothing to apply")
        at = max(each.ended for each in coded)
        commit = write(planned, repository, objects, coded[0].who, at, message(coded))
    return Landed(planned, commit, repository.create(branch, commit))


def to_look_at(coded: Sequence[Coded], changes: Changes) -> list[str]:
    """Why a person should look before the change is applied, a line each: parts were refused, or it adds secrets."""
    found = [each for run in coded for each in warnings({"refused": run.evidence.get("refused")})]
    found += [f"refused: {each.path}: {each.why}" for each in changes.refused]
    return found + [f"{each.path}:{each.line} {each.what}" for each in render(changes).secrets]


def check_flags(coded: Sequence[Coded], changes: Changes, accept: str) -> None:
    """
    Raises:
        Conflict: parts of the patch were refused, or it would add secrets; `accept` says how to take it all the same.
    """
    found = to_look_at(coded, changes)
    if found:
        shown = "\n".join(f"  {plain(each)}" for each in found[:SHOWN])
        raise Conflict(
            f"the patch of {coded[0].id} wants a look before it is applied:\n{shown}",
            next=f"if that is as it should be, apply it with {accept}",
        )


def message(coded: Sequence[Coded]) -> str:
    """Of the commit: the goal, and what is known of each run."""
    lines = [plain(each) for run in coded for each in run.goal.strip().splitlines()]
    first = lines[0] if len(lines[0]) <= SUBJECT else lines[0][: SUBJECT - 1].rstrip() + "…"
    rest = lines[1:] if first == lines[0] else lines
    trailers = [each for run in coded for each in run.trailers]
    return "\n".join([first, "", *rest, *([""] if rest else []), *trailers])


def directory(below: str) -> str:
    """A directory of a repository, relative to its top, in one form.

    Raises:
        InvalidArgument: it leaves the repository, or a patch may not reach it.
    """
    below = below.strip("/").removeprefix("./")
    if below in ("", "."):
        return ""
    if why := unfit(below):
        raise InvalidArgument(f"below: {why}", next="name a directory of the repository, relative to its top")
    return below


def _handed(coded: Coded, fetch: Fetch) -> Handed:
    """The files that it changed."""
    names = fetch(coded.artifact("deleted.json")["digest"])
    changed = fetch(coded.artifact("changes.tar")["digest"])
    return Handed(_chunks(changed), json.load(names))


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(CHUNK):
        yield chunk
