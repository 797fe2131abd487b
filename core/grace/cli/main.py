"""The command `madlab`: an ordinary client of the HTTP door.

Rules of the file and of the commands beside it
  1. stdout holds data only. Progress, notes and errors go to stderr.
  2. An error is one sentence and the next step; with `--json` it is `{"error": {code, message, next}}`.
  3. Exit codes: 0 ok, 1 the work says no, 2 usage, 3 the lab cannot be reached, 4 the run failed. An error's code picks
     one, whoever found the mistake: that there is no such model is 2 also where a MAD says so, and not this program.
     A lab that answers was reached: what it cannot do now is 4. A file that cannot be used is 2 where a person named
     it, 3 where it is the lab's own, and 4 else.
  4. What a command needs is imported when it runs: `madlab status` should feel instant.
"""

import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from core import VERSION
from core.grace.cli import (
    approving,
    auditing,
    branch,
    browsing,
    charting,
    clients,
    coding,
    completion,
    dewey,
    dispatching,
    incidents,
    life,
    manual,
    mcp,
    models,
    opening,
    policies,
    providers,
    runs,
    scanning,
    secrets,
    supply,
    support,
    talk,
    upkeep,
    watch,
)
from core.grace.cli.client import Fault, Unable
from core.grace.cli.files import named
from core.grace.cli.screen import heed_environment, note, say
from core.home import Home
from protos.errors import Conflict, Denied, Error, Exhausted, InvalidArgument, NotFound, Unauthenticated, Unavailable

NO, USAGE, UNREACHABLE, FAILED = 1, 2, 3, 4

EXIT_CODES = {
    InvalidArgument.code: USAGE,
    NotFound.code: USAGE,
    Conflict.code: USAGE,
    Denied.code: USAGE,
    Unauthenticated.code: UNREACHABLE,
    Unavailable.code: UNREACHABLE,
    Exhausted.code: FAILED,
}
REPORT = "please report it, with what this command was and what `madlab support-bundle` makes"
AGAIN = "mend it and try again"
MISNAMED = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


class Group(TyperGroup):
    """A group that, named alone, tells its commands where errors go, and no data."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            with redirect_stdout(sys.stderr):
                ctx.get_help()  # prints it
            ctx.exit(USAGE)
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="madlab",
    cls=Group,
    help="A laboratory of AI agents that is safe to let loose.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    *(life, opening, clients, scanning, coding, branch, browsing, charting, models, supply, providers, secrets),
    *(
        runs,
        talk,
        dewey,
        policies,
        approving,
        auditing,
        incidents,
        upkeep,
        mcp,
        support,
        watch,
        dispatching,
        completion,
    ),
):
    module.add_to(app)
manual.add_to(app)
for each in app.registered_groups:
    each.cls = Group


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        say(f"madlab {VERSION}")
        raise typer.Exit(0)


@app.callback()
def options(
    context: typer.Context,
    home: Annotated[str | None, typer.Option(metavar="DIR", help="The lab's data directory [$MADLAB_HOME].")] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    context.obj = home if home is None else str(named(home))


def main() -> None:
    """Runs one command and ends the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code."""
    from typer.exceptions import Abort, Exit, TyperException

    heed_environment()
    as_json = "--json" in arguments or re.search(r"--format[= ](json|sarif)", " ".join(arguments)) is not None
    try:
        if completion.is_asked():
            completion.answer(app, os.environ.get("MADLAB_HOME"))
        result = app(arguments, prog_name="madlab", standalone_mode=False)
    except Fault as fault:
        return _fail(fault.said, fault.message, fault.next, USAGE if fault.is_mistake else FAILED, as_json)
    except Error as error:
        code = FAILED if isinstance(error, Unable) else EXIT_CODES.get(error.code, FAILED)
        return _fail(error.code, error.message, error.next, code, as_json)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "madlab"
        return _fail("USAGE", error.format_message(), f"see: {command} --help", USAGE, as_json)
    except Exit as ended:
        return ended.exit_code
    except (KeyboardInterrupt, Abort):
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's own flush says nothing
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _fail(*unusable(error, arguments), as_json)
    except Exception as error:  # the last resort: our own mistakes are told in a sentence, too
        if "--foreground" in arguments:  # the core: its log holds the whole of it
            raise
        return _fail("INTERNAL", _unexpected(error), REPORT, FAILED, as_json)
    return result if isinstance(result, int) else 0


def unusable(error: OSError, arguments: Sequence[str]) -> tuple[str, str, str, int]:
    """What to say of a file that the system refuses, and the exit code: it depends on whose file it is."""
    if not isinstance(error.filename, str | bytes):
        return "OS", str(error), AGAIN, FAILED
    file = Path(os.fsdecode(error.filename)).absolute()
    message = f"{file}: {error.strerror}"
    home, words = _home_among(arguments)
    is_named = any(file.is_relative_to(Path(each.partition("=")[2] or each).absolute()) for each in words)
    if not is_named and any(file.is_relative_to(each) for each in _places_of(home)):
        next = "see whose it is, and whether its disk has room"
        return Unavailable.code, f"the lab's own file {message}", next, UNREACHABLE
    is_bad_input = (is_named or file.is_relative_to(Path.cwd())) and isinstance(error, MISNAMED)
    return "OS", message, AGAIN, USAGE if is_bad_input else FAILED


def _home_among(arguments: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """What `--home` says, and the other arguments."""
    for at, each in enumerate(arguments):
        option, is_one_word, home = each.partition("=")
        if option == "--home":
            taken = 1 if is_one_word else 2
            return home or "".join(arguments[at + 1 : at + 2]), [*arguments[:at], *arguments[at + taken :]]
    return None, arguments


def _places_of(home: str | None) -> list[Path]:
    """A lab's data directory and the one of its sockets, as far as they can be found."""
    places: list[Path] = []
    with suppress(Error, OSError):
        places.append(Home.locate(home))
        places.append(Home.find(home).runtime)
    return places


def _unexpected(error: Exception) -> str:
    """A mistake of this program: what it is, and where in our own files."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [each for each in frames if f"{os.sep}core{os.sep}" in each.filename] or list(frames)
    place = f" in {os.path.basename(ours[-1].filename)}, line {ours[-1].lineno}" if ours else ""
    said = " ".join(str(error).split())
    return f"a mistake of madlab itself: {type(error).__name__}{place}" + (f": {said[:500]}" if said else "")


def _fail(code: str, message: str, next: str, status: int, as_json: bool) -> int:
    if as_json:
        note(json.dumps({"error": {"code": code, "message": message, "next": next}}))
    else:
        note(f"madlab: {message}" + (f"\n  {next}" if next else ""))
    return status


if __name__ == "__main__":
    main()
