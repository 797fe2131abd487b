"""Completion in bash, zsh and fish: commands and options, and the lab's own names, asked of the lab while you type.

What a parameter takes is known by its word in the usage: RUN, MAD, MAD.TOOL, ALIAS, CONVERSATION, AGENT, the NAME of
a secret. The lab is given half a second; where it does not run there are no names, and nothing is said.
"""

import os
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.coding.asked import AGENTS
from core.grace.cli import screen
from protos.errors import Error, InvalidArgument

if TYPE_CHECKING:
    from core.grace.cli.client import Client

VARIABLE = "_MADLAB_COMPLETE"  # set by the shell's script when it asks
PROGRAM = "madlab"
PATIENCE_S = 0.5
MOST = 200


class Shell(StrEnum):
    """Shells with completion."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def add_to(app: typer.Typer) -> None:
    commands = typer.Typer(help="Completion of commands and names in your shell.", no_args_is_help=True)
    for shell in Shell:
        commands.command(shell.value, help=f"Print the script for {shell}.")(_printing(shell))
    commands.command()(install)
    app.add_typer(commands, name="completion")


def _printing(shell: Shell) -> Callable[[], None]:
    def show() -> None:
        from typer._completion_shared import get_completion_script

        screen.say(get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell))

    return show


def install(
    shell: Annotated[Shell | None, typer.Option(help="Whose; else the shell that $SHELL names.")] = None,
) -> None:
    """Write the script where your shell finds it; it holds from the next shell on."""
    from typer._completion_shared import install as write

    named = shell or os.path.basename(os.environ.get("SHELL", ""))
    if named not in list(Shell):
        raise InvalidArgument(
            f"{named or 'no shell'} is none that is known", next=f"name one: --shell {'|'.join(Shell)}"
        )
    _, place = write(shell=str(named), prog_name=PROGRAM, complete_var=VARIABLE)
    screen.say(f"{place}: open a new {named}, and press tab.")


def is_asked() -> bool:
    """Whether a shell wants to know how the line could go on."""
    return VARIABLE in os.environ


def answer(app: typer.Typer, home: str | None) -> None:
    """Says how the line could go on."""
    from typer._completion_classes import completion_init

    completion_init()
    command = typer.main.get_command(app)
    _name(command, Names(home))
    command.main(prog_name=PROGRAM, complete_var=VARIABLE, standalone_mode=False)


class Names:
    """The lab's own names, by what a usage calls them."""

    def __init__(self, home: str | None) -> None:
        self._home = home

    def of(self, word: str, command: str) -> Callable[[str], Iterable[str]] | None:
        """Who knows the names that stand for `word` in the usage of `command`."""
        known: dict[str, Callable[[Client], Iterable[str]]] = {
            "RUN": lambda lab: (each["id"] for each in lab.get("/api/v1/runs", limit=MOST)["runs"]),
            "MAD": lambda lab: (each["name"] for each in lab.get("/api/v1/mads")["mads"]),
            "MAD.TOOL": lambda lab: (each["name"] for each in lab.get("/api/v1/tools")["tools"]),
            "ALIAS": lambda lab: (each["alias"] for each in lab.get("/api/v1/models")["models"]),
            "CONVERSATION": lambda lab: (
                each["id"] for each in lab.get("/api/v1/conversations", limit=MOST)["conversations"]
            ),
            "APPROVAL": lambda lab: (each["id"] for each in lab.get("/api/v1/approvals")["approvals"]),
        }
        if command.startswith("secret "):
            known["NAME"] = lambda lab: (each["name"] for each in lab.get("/api/v1/secrets")["secrets"])
        word = word.strip("[]").removesuffix("...")
        if word == "AGENT":
            return lambda begun: [each for each in AGENTS if each.startswith(begun)]
        ask = known.get(word)
        return None if ask is None else lambda begun: self._ask(ask, begun)

    def _ask(self, ask: "Callable[[Client], Iterable[str]]", begun: str) -> list[str]:
        """What begins so; nothing where the lab does not answer at once."""
        from core.grace.cli.client import Client

        try:
            names = list(ask(Client.to(self._home, patience_s=PATIENCE_S)))
        except (Error, OSError, KeyError, ValueError):  # somebody is typing: this is no moment to complain
            return []
        return [each for each in names if each.startswith(begun) and each.isprintable() and " " not in each]


def _name(command: Any, names: Names, path: str = "") -> None:
    """Has every parameter of a command, and of those below it, ask for its names."""
    from typer._click.shell_completion import CompletionItem

    for each in command.params:
        ask = names.of(str(each.metavar or ""), path)
        if ask is not None:

            def complete(context: Any, parameter: Any, begun: str, ask: Callable[[str], Iterable[str]] = ask) -> Any:
                return [CompletionItem(name) for name in ask(begun)]

            each._custom_shell_complete = complete
    for name, below in getattr(command, "commands", {}).items():
        _name(below, names, f"{path}{name} ")
