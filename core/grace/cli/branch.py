"""`madlab apply`: puts what a run changed on a new branch of a person's repository, and touches nothing else there."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

import typer

from core.grace.cli import screen
from core.grace.cli.client import Client
from core.grace.cli.files import named
from core.grace.cli.life import Json
from core.grace.cli.runs import RunId, place, tell_waiting
from protos.errors import Error, InvalidArgument, NotFound

if TYPE_CHECKING:
    from core.coding.landing import Coded, Landed
    from core.coding.merge import Conflict as Clash

NO = 1
SHOWN = 40  # lines of a conflict


def add_to(app: typer.Typer) -> None:
    app.command()(apply)


def apply(
    context: typer.Context,
    run: RunId,
    branch: Annotated[str, typer.Option(metavar="NAME", help="The new branch; else madlab/RUN.")] = "",
    repo: Annotated[Path, typer.Option(parser=named, metavar="PATH", help="The git repository.")] = Path("."),
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
    from core.coding.landing import Coded, check_flags, directory, land, open_coded
    from core.coding.repository import Repository, check_branch

    client = Client.to(context.obj, waiting=tell_waiting)
    coded = [Coded.of(client.get(place(each))) for each in ([run, other] if other else [run])]
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
    with (
        ExitStack() as stack,
        open_coded(coded, lambda digest: _fetched(client, digest, stack)) as (changes, clashes),
    ):
        if clashes:
            _tell_conflicts(coded, clashes, "each other", branch, json)
            raise typer.Exit(NO)
        if not accept_flags:
            check_flags(coded, changes, "--accept-flags")
        landed = land(coded, changes, repository, branch, directory(below))
    if landed.planned.conflicts:
        _tell_conflicts(coded, landed.planned.conflicts, f"HEAD ({landed.planned.head[:12]})", branch, json)
        raise typer.Exit(NO)
    for each in coded:
        with suppress(Error):  # it is on the branch, whatever was decided about it before
            applied = {"branch": branch, "repository": str(repository.place), "commit": landed.commit}
            client.post(f"{place(each.id)}/patch/applied", applied)
    _tell(coded, landed, branch, json)


def write_diff(client: Client, run: Mapping[str, Any], out: Path) -> None:
    """Writes a run's diff to a file.

    Raises:
        Conflict: the run left none.
        InvalidArgument: the file cannot be written.
    """
    from core.coding.landing import artifact

    found = artifact(run, "patch.diff")
    try:
        with out.open("w+b") as file:
            client.download(found["digest"], file)
    except OSError as error:
        raise InvalidArgument(f"{out} cannot be written: {error.strerror}", next="name another file") from None


def _fetched(client: Client, digest: str, stack: ExitStack) -> BinaryIO:
    file = cast(BinaryIO, stack.enter_context(TemporaryFile()))  # noqa: SIM115  the stack closes it
    client.download(digest, file)
    file.seek(0)
    return file


def _tell_conflicts(coded: Sequence["Coded"], clashes: Sequence["Clash"], what: str, branch: str, json: bool) -> None:
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


def _tell(coded: Sequence["Coded"], landed: "Landed", branch: str, json: bool) -> None:
    if json:
        screen.data(
            {
                "run": coded[0].id,
                "branch": branch,
                "commit": landed.commit,
                "created": landed.created,
                "conflicts": [],
                "merged": landed.planned.merged,
            }
        )
        return
    for run in coded:
        if run.run["outcome"] != "succeeded":
            screen.note(f"The run {run.id} ended {run.run['outcome']}: this is what it had by then.")
    for each in landed.planned.merged:
        screen.note(f"{screen.plain(each)} had changed at HEAD as well, and was merged")
    screen.say(f"{branch} {landed.commit}" + ("" if landed.created else " (was there already)"))
    screen.note(f"Look at it with: git show {branch}   Take it with: git merge {branch}")
