"""What the lab's models come from: weights on this machine (`madlab model`), and providers (`madlab provider add`)."""

import os
import sys
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from core.fiedler.store import Store, Weights, catalogue, choose, chosen, weights_called
from core.grace.cli import screen
from core.grace.cli.life import Json
from core.home import Home
from protos.errors import Conflict, Error, InvalidArgument, NotFound

RESTART = "Restart the core to use it: madlab down --keep-runs; madlab up"
KEY_BYTES = 4096

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name that `madlab model list` shows.")]

model = typer.Typer(help="Local models: weights on this machine.", no_args_is_help=True)
provider = typer.Typer(help="Providers of models.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(model, name="model")
    app.add_typer(provider, name="provider")


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
        _tell_restart(context)


@model.command("remove")
def remove(context: typer.Context, name: Name) -> None:
    """Remove a local model from this machine."""
    weights, store = weights_called(name), _store()
    is_gone = store.remove(weights)
    screen.note(f"{name} is removed." if is_gone else f"{name} is not installed.")
    if is_gone:
        _tell_restart(context)


@model.command("use")
def use(context: typer.Context, name: Name) -> None:
    """Make an installed model the lab's default. It is written to the file `model` in the lab's home."""
    weights = weights_called(name)
    if not _store().has(weights):
        raise NotFound(f"{name} is not installed.", next=f"Get it first: madlab model install {name}")
    home = Home.open(context.obj)
    told = _settings(home)
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
    _tell_restart(context)


@provider.command("add")
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the provider.")],
    kind: Annotated[str, typer.Option(metavar="KIND", help="Its protocol: openai or anthropic.")],
    models: Annotated[
        list[str], typer.Option("--model", metavar="ALIAS=MODEL", help="A model, under the name that callers use.")
    ],
    base_url: Annotated[str, typer.Option(metavar="URL", help="Where it is, if not at its maker's.")] = "",
    key_from: Annotated[
        str, typer.Option(metavar="FILE", help="Where to read its key; - is stdin. It is never an argument.")
    ] = "",
    secret: Annotated[
        str, typer.Option(metavar="NAME", help="Instead: a secret of the vault that is its key (madlab secret set).")
    ] = "",
    input_usd: Annotated[float, typer.Option(min=0, metavar="USD", help="Price of a million tokens read.")] = 0,
    output_usd: Annotated[float, typer.Option(min=0, metavar="USD", help="Price of a million tokens written.")] = 0,
    small: Annotated[bool, typer.Option("--small", help="Its models are small: agents are told to take care.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace what is there under these names.")] = False,
) -> None:
    """Set up a provider and its models in madlab.toml, which keeps its comments."""
    from core.config import check_table
    from core.fiedler.keys import parse
    from core.fiedler.tables import Value, with_tables, write

    home = Home.open(context.obj)
    if kind not in ("openai", "anthropic"):
        raise InvalidArgument(f"There is no kind {kind[:32]!r}.", next="It is openai or anthropic.")
    if Path(name).name != name or name.startswith("."):
        raise InvalidArgument(f"{name[:64]!r} is no name for a provider.", next="Use a-z, 0-9, . _ and -.")
    fields: dict[str, Value] = {"kind": kind}
    if base_url:
        fields["base_url"] = base_url
    if key_from and secret:
        raise InvalidArgument("The key comes from a file or from the vault, not from both.", next="Leave one away.")
    if key_from:
        fields["key"] = name
    elif secret:
        fields["key"] = f"secret://{secret.removeprefix('secret://')}"
    tables: dict[tuple[str, str], dict[str, Value]] = {("providers", name): fields}
    for each in models:
        alias, sign, theirs = each.partition("=")
        if not (alias and sign and theirs):
            raise InvalidArgument(
                f"--model {each[:100]!r} is not ALIAS=MODEL.", next="For example: coder=gpt-5.1-codex"
            )
        prices: dict[str, Value] = {"input_usd": input_usd, "output_usd": output_usd}
        about: dict[str, Value] = {"provider": name, "model": theirs}
        about |= {key: value for key, value in prices.items() if value} | ({"small": True} if small else {})
        tables[("models", alias)] = about
    before = home.settings.read_text(encoding="utf-8") if home.settings.exists() else ""
    made = with_tables(before, tables, replace=replace)
    check_table(home, tomllib.loads(made))
    if key_from:
        file = home.path / "keys" / name
        if file.exists() and not replace:
            raise Conflict(f"There is a key in {file} already.", next="Replace it: --replace")
        content = _read_key(key_from)
        parse(name, file, content)
        _keep_key(file, content.strip() + b"\n")
    write(home.settings, made)
    aliases = ", ".join(alias for _, alias in list(tables)[1:])
    screen.note(f"{name} is set up in {home.settings}, with {aliases}.")
    _tell_restart(context)


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


def _settings(home: Home) -> dict[str, Any]:
    try:
        return tomllib.loads(home.settings.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{home.settings}: {error}", next="Mend the file and try again.") from None


def _tell_restart(context: typer.Context) -> None:
    """A core reads its settings when it starts."""
    try:
        runs = Home.find(context.obj).holder() is not None
    except Error:
        return
    if runs:
        screen.note(RESTART)


def _read_key(source: str) -> bytes:
    if source != "-":
        with open(source, "rb") as file:
            return file.read(KEY_BYTES + 1)
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass("Key (it is not shown): ").encode()
    return sys.stdin.buffer.read(KEY_BYTES + 1)


def _keep_key(file: Path, content: bytes) -> None:
    """Writes a key where only its owner can read it, whole or not at all."""
    file.parent.mkdir(mode=0o700, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
