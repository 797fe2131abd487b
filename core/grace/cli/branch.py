"""`madlab apply`: puts what a run changed on a new branch of a person's repository, and touches nothing else there."""

import json as json_module
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Annotated, Any, BinaryIO, cast

import typer

from core.grace.cli import screen
from core.grace.cli.client import Client
from core.grace.cli.life import Json
from core.grace.cli.runs import RunId, place, tell_waiting
from protos.errors import Conflict, InvalidArgument, NotFound

if TYPE_CHECKING:
    from core.coding.branch import Planned
    from core.coding.changes import Changes
    from core.coding.merge import Conflict as Clash
    from core.coding.merge import Handed

NO = 1
CHUNK = 256 * 1024
SUBJECT, SHOWN = 72, 40  # characters of a commit's first line; lines of a conflict


def add_to(app: typer.Typer) -> None:
    app.command()(apply)


def apply(
    context: typer.Context,
    run: RunId,
    branch: Annotated[str, typer.Option(metavar="NAME", help="The new branch; else madlab/RUN.")] = "",
    repo: Annotated[Path, typer.Option(metavar="PATH", help="The git repository.")] = Path("."),
    below: Annotated[
        str, typer.Option(metavar="DIR", help="Where in the repository, if the run was given that directory only.")
    ] = "",
    other: Annotated[
        str, typer.Option("--with", metavar="RUN", help="Merge it with another run's, which began with the same tree.")
    ] = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the diff there, and make no branch.")] = None,
    accept_flags: Annotated[
        bool, typer.Option("--accept-flags", help="Apply it although parts were refused or secrets would be added.")
    ] = False,
    json: Json = False,
) -> None:
    """Put the change of a run on a new branch, as one commit on top of HEAD. Nothing else in the repository changes."""
    from core.coding.repository import Repository, check_branch

    client = Client.to(context.obj, waiting=tell_waiting)
    coded = [Coded.of(client.get(place(each))) for each in (run, other) if each]
    first = coded[0]
    if out is not None:
        if other:
            raise InvalidArgument("--out and --with exclude each other", next="write one run's diff at a time")
        write_diff(client, first.run, out)
        screen.note(f"The diff is in {out}. Apply it there with: git apply {out}, or: patch -p1 < {out}")
        return
    branch = branch or f"madlab/{'+'.join(each.id for each in coded)}"
    check_branch(branch)
    try:
        repository = Repository.find(repo)
    except NotFound as error:
        raise InvalidArgument(
            error.message, next=f"name one with --repo, or write the diff with: madlab apply {first.id} --out FILE"
        ) from None
    with ExitStack() as stack:
        changes, clashes = _changes(client, coded, stack)
        if clashes:
            _tell_conflicts(coded, clashes, "each other", branch, json)
            raise typer.Exit(NO)
        if not accept_flags:
            _check_flags(coded, changes)
        from core.coding.branch import plan, same_as_head, write

        with repository.reading() as objects:
            planned = plan(changes, repository.head(), objects, _directory(below))
            if planned.conflicts:
                _tell_conflicts(coded, planned.conflicts, f"HEAD ({planned.head[:12]})", branch, json)
                raise typer.Exit(NO)
            if same_as_head(planned, objects):
                raise Conflict(f"HEAD has all of {first.id} already", next="there is nothing to apply")
            at = max(each.ended for each in coded)
            commit = write(planned, repository, objects, first.who, at, _message(coded))
    created = repository.create(branch, commit)
    _tell(coded, planned, branch, commit, created, json)


def write_diff(client: Client, run: Mapping[str, Any], out: Path) -> None:
    """Writes a run's diff to a file.

    Raises:
        Conflict: the run left none.
        InvalidArgument: the file cannot be written.
    """
    found = artifact(run, "patch.diff")
    try:
        with out.open("w+b") as file:
            client.download(found["digest"], file)
    except OSError as error:
        raise InvalidArgument(f"{out} cannot be written: {error.strerror}", next="name another file") from None


def artifact(run: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What a run left under a name.

    Raises:
        Conflict: there is no such thing.
    """
    found: Mapping[str, Any] | None = next((each for each in run["artifacts"] if each["name"] == name), None)
    if found is None:
        raise Conflict(f"the run {run['id']} left no {name}", next=f"see what it left: madlab show {run['id']}")
    return found


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
            Conflict: it has not ended, or is no run that changes a tree.
        """
        if run["outcome"] is None:
            raise Conflict(f"the run {run['id']} is {run['state']}", next=f"wait for it: madlab logs -f {run['id']}")
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

    @property
    def trailers(self) -> list[str]:
        """What its commit says of it."""
        from core.grace.cli.patches import clean_room, tests

        told = {
            "Run": self.id,
            "Outcome": str(self.run["outcome"]),
            "Model": self.evidence.get("model") or "unknown",
            "Tests-Before": tests(self.evidence.get("tests_before")),
            "Tests-After": tests(self.evidence.get("clean_room_tests") or self.evidence.get("tests_after")),
            "Clean-Room": clean_room(self.evidence),
        }
        return [f"Madlab-{name}: {screen.plain(value)[:300]}" for name, value in told.items()]

    def handed(self, client: Client, stack: ExitStack) -> "Handed":
        """The files that it changed.

        Raises:
            Conflict: it left none.
        """
        from core.coding.merge import Handed

        names = _fetched(client, artifact(self.run, "deleted.json")["digest"], stack)
        changed = _fetched(client, artifact(self.run, "changes.tar")["digest"], stack)
        return Handed(_chunks(changed), json_module.load(names))


def _changes(client: Client, coded: Sequence[Coded], stack: ExitStack) -> tuple["Changes", Sequence["Clash"]]:
    """What one run changed, or two together with where they do not fit; looked through once more on this side.

    Raises:
        Conflict: nothing was changed, or what it began with is not kept any more, or is not the same for both.
    """
    from core.coding.changes import open_changes
    from core.coding.merge import open_merge

    first = coded[0]
    if len({each.source for each in coded}) > 1:
        raise Conflict("the two runs began with different trees", next="apply one, and let the other begin from there")
    try:
        source = _fetched(client, first.source, stack)
    except NotFound:
        raise Conflict(
            f"what {first.id} began with is not kept any more",
            next=f"write the diff with madlab apply {first.id} --out FILE, and apply it with git apply",
        ) from None
    handed = [each.handed(client, stack) for each in coded]
    clashes: Sequence[Clash] = ()
    if len(handed) == 1:
        changes = stack.enter_context(open_changes(_chunks(source), handed[0].changes, handed[0].deleted))
    else:
        merged = stack.enter_context(open_merge(lambda: _chunks(source), handed[0], handed[1]))
        changes, clashes = merged.changes, merged.conflicts
    if not changes.pairs and not clashes:
        raise Conflict(f"the run {first.id} changed nothing", next=f"see: madlab show {first.id}")
    return changes, clashes


def _message(coded: Sequence[Coded]) -> str:
    """Of the commit: the goal, and what is known of each run."""
    lines = [screen.plain(each) for run in coded for each in run.goal.strip().splitlines()]
    first = lines[0] if len(lines[0]) <= SUBJECT else lines[0][: SUBJECT - 1].rstrip() + "…"
    rest = lines[1:] if first == lines[0] else lines
    trailers = [each for run in coded for each in run.trailers]
    return "\n".join([first, "", *rest, *([""] if rest else []), *trailers])


def _fetched(client: Client, digest: str, stack: ExitStack) -> BinaryIO:
    file = cast(BinaryIO, stack.enter_context(TemporaryFile()))  # noqa: SIM115  the stack closes it
    client.download(digest, file)
    file.seek(0)
    return file


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(CHUNK):
        yield chunk


def _directory(below: str) -> str:
    from core.coding.review import unfit

    below = below.strip("/").removeprefix("./")
    if below in ("", "."):
        return ""
    if why := unfit(below):
        raise InvalidArgument(f"--below: {why}", next="name a directory of the repository, relative to its top")
    return below


def _check_flags(coded: Sequence[Coded], changes: "Changes") -> None:
    """
    Raises:
        Conflict: parts of the patch were refused, or it would add secrets.
    """
    from core.coding.patch import render
    from core.grace.cli.patches import warnings

    found = [each for run in coded for each in warnings({"refused": run.evidence.get("refused")})]
    found += [f"refused: {each.path}: {each.why}" for each in changes.refused]
    found += [f"{each.path}:{each.line} {each.what}" for each in render(changes).secrets]
    if found:
        shown = "\n".join(f"  {screen.plain(each)}" for each in found[:20])
        raise Conflict(
            f"the patch of {coded[0].id} wants a look before it is applied:\n{shown}",
            next="if that is as it should be, apply it with --accept-flags",
        )


def _tell_conflicts(coded: Sequence[Coded], clashes: Sequence["Clash"], what: str, branch: str, json: bool) -> None:
    if json:
        conflicts = [{"path": screen.plain(each.path), "why": each.why} for each in clashes]
        screen.data({"run": coded[0].id, "branch": branch, "commit": None, "created": False, "conflicts": conflicts})
        return
    files = "1 file does" if len(clashes) == 1 else f"{len(clashes)} files do"
    screen.note(f"{files} not fit {what}. Nothing was written.")
    for each in clashes:
        screen.note(f"  {screen.plain(each.path)} {each.why}")
        for line in list(_marked(each))[:SHOWN]:
            screen.note(f"    {screen.plain(line)}")
    screen.note(
        "Commit what the run began with, or go back to where it began, and apply it again. "
        f"The diff itself: madlab apply {coded[0].id} --out FILE"
    )


def _marked(conflict: "Clash") -> Iterator[str]:
    """The lines of a text that stand between conflict marks."""
    within = False
    for line in conflict.text.decode("utf-8", "backslashreplace").split("\n"):
        within = within or line.startswith("<<<<<<< ")
        if within:
            yield line
        within = within and not line.startswith(">>>>>>> ")


def _tell(coded: Sequence[Coded], planned: "Planned", branch: str, commit: str, created: bool, json: bool) -> None:
    if json:
        screen.data(
            {
                "run": coded[0].id,
                "branch": branch,
                "commit": commit,
                "created": created,
                "conflicts": [],
                "merged": planned.merged,
            }
        )
        return
    for run in coded:
        if run.run["outcome"] != "succeeded":
            screen.note(f"The run {run.id} ended {run.run['outcome']}: this is what it had by then.")
    for each in planned.merged:
        screen.note(f"{screen.plain(each)} had changed at HEAD as well, and was merged")
    screen.say(f"{branch} {commit}" if created else f"{branch} {commit} (was there already)")
    screen.note(f"Look at it with: git show {branch}   Take it with: git merge {branch}")
