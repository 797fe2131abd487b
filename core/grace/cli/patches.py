"""A patch and what speaks for it, as a person reads them."""

from collections.abc import Iterator, Mapping
from typing import Any

from core.coding.telling import mappings
from core.grace.cli import screen

FILES, COMMANDS = 30, 10  # so many are listed
SHOWN_LINES = 2_000  # of a diff; the rest is in the file
STYLES = (("+++", "bold"), ("---", "bold"), ("@@", "cyan"), ("+", "green"), ("-", "red"), ("diff ", "bold"))


def show_diff(diff: bytes) -> None:
    """Prints a diff so that it drives no terminal; on one in colour, and with what looks like a secret covered."""
    from rich.text import Text

    from core.coding.secrets import covered

    console = screen.console()
    if not console.is_terminal:
        print(screen.plain(diff.decode("utf-8", "backslashreplace"), lines=True), end="")
        return
    lines = diff.split(b"\n", SHOWN_LINES)
    rest = lines.pop()
    for line in covered(b"\n".join(lines)).decode("utf-8", "backslashreplace").split("\n"):
        style = next((style for start, style in STYLES if line.startswith(start)), "")
        console.print(Text(screen.plain(line), style=style), soft_wrap=True)
    if rest:
        screen.note(f"… and {counted(len(rest.splitlines()), 'line')} more, which --out FILE has")


def files(report: Any) -> Iterator[str]:
    """The files of a patch, a line each."""
    found = mappings(report.get("files")) if isinstance(report, Mapping) else []
    for each in found[:FILES]:
        lines = "binary" if each.get("binary") else f"+{each.get('added')} -{each.get('removed')}"
        yield f"{each.get('kind')} {each.get('path')} {lines}"
    more = (report.get("count") or 0) - FILES if found else 0
    if more > 0:
        yield f"and {more:,} more"


def commands(evidence: Mapping[str, Any]) -> Iterator[str]:
    """The last commands that an agent ran, a line each."""
    found = mappings(evidence.get("commands"))
    if len(found) > COMMANDS:
        yield f"{len(found) - COMMANDS:,} earlier ones, then"
    for each in found[-COMMANDS:]:
        code = each.get("exit_code")
        yield " ".join(str(each.get("command")).split())[:160] + ("" if code == 0 else f"  (exit code {code})")


def counted(number: int, what: str) -> str:
    """A number with its noun: 1 file, 2 files."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
