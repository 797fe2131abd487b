"""`madlab provider`: who serves models, as madlab.toml says it: list, add, remove. None of them needs a running lab."""

import os
import shlex
import stat
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.grace.cli import screen
from core.grace.cli.files import check_regular
from core.grace.cli.life import Json
from core.grace.cli.supply import settings_in, tell_restart
from core.home import Home
from protos.errors import Conflict, InvalidArgument, NotFound

if TYPE_CHECKING:
    from core.fiedler.settings import Provider

KEY_BYTES = 4096

provider = typer.Typer(help="Providers of models.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(provider, name="provider")


@provider.command("list")
def list_providers(context: typer.Context, json: Json = False) -> None:
    """List the providers there are, with the names of their models. A key is told by its place, never by its value."""
    from core.config import load

    home = Home.find(context.obj)
    config = load(home)
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "kind": each.kind,
            "address": "" if each.kind == "local" else each.address,
            "key": _place_of_key(each, home),
            "models": [alias for alias, model in config.models.items() if model.provider == name],
        }
        for name, each in config.providers.items()
    ]
    if json:
        screen.data({"providers": found})
        return
    if not found:
        screen.note("There is no provider. Set one up with: madlab provider add --help")
        return
    screen.table(
        ("NAME", "KIND", "ADDRESS", "KEY", "MODELS"),
        [
            (each["name"], each["kind"], each["address"] or "-", each["key"] or "-", ", ".join(each["models"]) or "-")
            for each in found
        ],
    )


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
    from core.fiedler.tables import Value, read, with_tables, write

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
    made = with_tables(read(home.settings), tables, replace=replace)
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
    tell_restart(context)


@provider.command("remove")
def remove(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that `madlab provider list` shows.")],
    with_models: Annotated[bool, typer.Option("--with-models", help="Its models, too.")] = False,
) -> None:
    """Take a provider out of madlab.toml, which keeps its comments; and the file in keys/ that held its key alone."""
    from core.config import check_table
    from core.fiedler.tables import read, without_tables, write

    home = Home.find(context.obj)
    config = check_table(home, settings_in(home))
    if name not in config.providers:
        known = ", ".join(config.providers) or "none"
        raise NotFound(f"{home.settings} has no provider {name[:64]!r}.", next=f"It has: {known}")
    aliases = [alias for alias, model in config.models.items() if model.provider == name]
    if aliases and not with_models:
        raise Conflict(
            f"{name} is still needed: {', '.join(aliases)} {'is' if len(aliases) == 1 else 'are'} served by it.",
            next="Remove these models with it: --with-models; or name another provider for them in madlab.toml.",
        )
    made = without_tables(read(home.settings), [("providers", name), *(("models", alias) for alias in aliases)])
    left = check_table(home, tomllib.loads(made))
    write(home.settings, made)
    file = config.providers[name].key_path(home.path)
    ours = file is not None and config.providers[name].key is not None  # what key_file names was not made by us
    if file is not None and ours and file not in [each.key_path(home.path) for each in left.providers.values()]:
        file.unlink(missing_ok=True)
    gone = f", and {', '.join(aliases)}" if aliases else ""
    screen.note(f"{name} is out of {home.settings}{gone}.")
    tell_restart(context)


def _place_of_key(provider: "Provider", home: Home) -> str | None:
    if provider.key_secret is not None:
        return f"secret://{provider.key_secret}"
    path = provider.key_path(home.path)
    return None if path is None else str(path)


def _read_key(source: str) -> bytes:
    if source != "-":
        check_regular(Path(source), streams=True)
        with open(source, "rb") as file:
            _tell_if_open(source, os.fstat(file.fileno()).st_mode)
            return file.read(KEY_BYTES + 1)
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass("Key (it is not shown): ").encode()
    return sys.stdin.buffer.read(KEY_BYTES + 1)


def _tell_if_open(source: str, mode: int) -> None:
    """A key stays in the file that it was read from."""
    if stat.S_ISREG(mode) and mode & 0o077:
        screen.note(
            f"Note: others can open {source} (mode {stat.S_IMODE(mode):04o}), and the key stays in it."
            f" Do: chmod 600 {shlex.quote(source)}"
        )


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
