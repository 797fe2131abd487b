"""`madlab model`: weights on this machine, which local models are made of."""

import sys
import time
import tomllib
from typing import Annotated, Any

import typer

from core.fiedler.store import Store, Weights, catalogue, choose, chosen, weights_called
from core.grace.cli import screen
from core.grace.cli.life import Json
from core.home import Home
from protos.errors import Conflict, Error, InvalidArgument, NotFound

RESTART = "Restart the core to use it: madlab down --keep-runs; madlab up"

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name that `madlab model list` shows.")]

model = typer.Typer(help="Local models: weights on this machine.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(model, name="model")


@model.command("list")
def list_models(context: typer.Context, json: Json = False) -> None:
    """List the local models that can be had, and which are here."""
    store = _store()
    in_use, is_chosen = chosen(Home.locate(context.obj), store)
    if json:
        models = [
            {
                "name": each.name,
                "title": each.title,
                "licence": each.licence,
                "bytes": each.bytes,
                "memory_mb": each.memory_mb,
                "installed": store.has(each),
                "in_use": each == in_use,
                "expect": each.expect,
            }
            for each in catalogue().values()
        ]
        screen.data({"path": str(store.path), "chosen": is_chosen, "models": models})
        return
    screen.table(
        ("NAME", "STATE", "SIZE", "MEMORY", "LICENCE", "WHAT TO EXPECT"),
        [
            (
                each.name,
                "in use" if each == in_use else "installed" if store.has(each) else "not installed",
                screen.size(each.bytes),
                screen.size(each.memory_mb << 20),
                each.licence,
                each.expect,
            )
            for each in catalogue().values()
        ],
    )
    screen.note(f"They are kept in {store.path}. What is in use answers as the alias `local`.")


@model.command("install")
def install(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Which; else the best of the list.")] = "",
    json: Json = False,
) -> None:
    """Fetch a local model, checked by hash; goes on where an earlier try ended. Needs no running lab."""
    weights = weights_called(name) if name else next(iter(catalogue().values()))
    store, began = _store(), time.monotonic()
    progress = _Progress(weights)
    try:
        is_new = store.install(weights, progress)
    finally:
        progress.end()
    if json:
        screen.data({"name": weights.name, "new": is_new, "path": str(store.folder(weights)), "bytes": weights.bytes})
        return
    took = f" It took {screen.span(time.monotonic() - began)}." if is_new else ""
    screen.note(f"{weights.name} is {'installed' if is_new else 'here already'} ({screen.size(weights.bytes)}).{took}")
    screen.note(weights.expect)
    if is_new:
        tell_restart(context)


@model.command("remove")
def remove(context: typer.Context, name: Name) -> None:
    """Remove a local model from this machine."""
    weights, store = weights_called(name), _store()
    is_gone = store.remove(weights)
    screen.note(f"{name} is removed." if is_gone else f"{name} is not installed.")
    if is_gone:
        tell_restart(context)


@model.command("use")
def use(context: typer.Context, name: Name) -> None:
    """Make an installed model the lab's default. It is written to the file `model` in the lab's home."""
    weights = weights_called(name)
    if not _store().has(weights):
        raise NotFound(f"{name} is not installed.", next=f"Get it first: madlab model install {name}")
    home = Home.open(context.obj)
    told = settings_in(home)
    if default := told.get("llm", {}).get("default"):
        raise Conflict(
            f"{home.settings} says llm.default = {default!r}, and that counts.",
            next="Take it out of there, then again.",
        )
    if "local" in told.get("models", {}) or "llama" in told.get("providers", {}):
        raise Conflict(
            f"{home.settings} gives the name `local` or `llama` to another model or provider.",
            next="Rename that, or set llm.default there.",
        )
    choose(home.path, name)
    screen.note(f"{name} is the lab's default, as `local`. {weights.expect}")
    tell_restart(context)


class _Progress:
    """How an installation goes: one line that changes on a terminal, a few lines elsewhere."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._is_shown = sys.stderr.isatty()
        self._last = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        share = 100 * done // max(total, 1)
        if self._is_shown:
            amount = f"part {done + 1} of {total}" if what == "fetching" else screen.size(done)
            sys.stderr.write(f"\r\x1b[K{self._weights.name}: {what} {amount} ({share} %)")
            sys.stderr.flush()
            return
        line = f"{self._weights.name}: {what} ({share // 25 * 25} %)"
        if line != self._last:
            self._last = line
            screen.note(line)

    def end(self) -> None:
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _store() -> Store:
    """
    Raises:
        NotFound: nothing says where they are.
    """
    store = Store.locate()
    if store is None:
        raise NotFound("Nothing says where local models are kept.", next="Set HOME, or MADLAB_MODELS=DIR")
    return store


def settings_in(home: Home) -> dict[str, Any]:
    """What madlab.toml says, as it is written there.

    Raises:
        InvalidArgument: it is no TOML.
    """
    try:
        return tomllib.loads(home.settings.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{home.settings}: {error}", next="Mend the file and try again.") from None


def tell_restart(context: typer.Context) -> None:
    """A core reads its settings when it starts."""
    try:
        runs = Home.find(context.obj).holder() is not None
    except Error:
        return
    if runs:
        screen.note(RESTART)
