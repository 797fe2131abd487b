"""A patch and what speaks for it, as a person reads them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.grace.cli import screen

FILES, COMMANDS = 30, 10  # so many are listed
SHOWN_LINES = 2_000  # of a diff; the rest is in the file
STYLES = (("+++", "bold"), ("---", "bold"), ("@@", "cyan"), ("+", "green"), ("-", "red"), ("diff ", "bold"))


def show_diff(diff: bytes) -> None:
    """Prints a diff so that it drives no terminal; on one in colour, and with what looks like a secret covered."""
    from rich.text import Text

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


def covered(diff: bytes) -> bytes:
    """A diff with the secrets in it cut to their first characters."""
    from core.coding.secrets import secrets_in

    for value, _ in list(secrets_in(diff)):
        if not value.startswith(b"-----"):
            diff = diff.replace(value, value[:4] + "…".encode())
    return diff


def files(report: Any) -> Iterator[str]:
    """The files of a patch, a line each."""
    found = _mappings(report.get("files")) if isinstance(report, Mapping) else []
    for each in found[:FILES]:
        lines = "binary" if each.get("binary") else f"+{each.get('added')} -{each.get('removed')}"
        yield f"{each.get('kind')} {each.get('path')} {lines}"
    more = (report.get("count") or 0) - FILES if found else 0
    if more > 0:
        yield f"and {more:,} more"


def commands(evidence: Mapping[str, Any]) -> Iterator[str]:
    """The last commands that an agent ran, a line each."""
    found = _mappings(evidence.get("commands"))
    if len(found) > COMMANDS:
        yield f"{len(found) - COMMANDS:,} earlier ones, then"
    for each in found[-COMMANDS:]:
        code = each.get("exit_code")
        yield " ".join(str(each.get("command")).split())[:160] + ("" if code == 0 else f"  (exit code {code})")


def tests(result: Any) -> str:
    """What a test run came to, in a few words."""
    if not isinstance(result, Mapping):
        return "not run"
    if not result.get("found", True):
        return "no test command was found"
    verdict = "passed" if result.get("passed") else f"failed with exit code {result.get('exit_code')}"
    if result.get("timed_out"):
        verdict = "did not end in time"
    counts = result.get("counts")
    counted = ""
    if isinstance(counts, Mapping):
        named = [f"{counts[each]} {each}" for each in ("passed", "failed", "errors", "skipped") if counts.get(each)]
        counted = f" ({', '.join(named)})" if named else ""
    seconds = result.get("seconds")
    took = f" in {screen.span(seconds)}" if isinstance(seconds, (int, float)) else ""
    return screen.plain(f"{verdict}{counted}{took}: {result.get('command') or '?'}")


def clean_room(evidence: Mapping[str, Any]) -> str:
    """What the patch came to where no agent has been."""
    proved = evidence.get("clean_room")
    if proved is None:
        return "not tested there"
    if _canary(evidence).get("state") == "unnoticed":
        return "passed there without being able to fail"
    return ("passed" if proved else "failed") + " on the original tree plus only the patch"


def counted(number: int, what: str) -> str:
    """A number with its noun: 1 file, 2 files."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def warnings(evidence: Mapping[str, Any]) -> Iterator[str]:
    """What a person should know before they take a patch, a sentence each."""
    for each in _mappings(evidence.get("refused")):
        yield f"refused: {each.get('path')}: {each.get('reason') or each.get('why')}"
    for each in _mappings(evidence.get("flags")):
        line = f":{each['line']}" if each.get("line") else ""
        yield f"look at: {each.get('path')}{line} {each.get('what')}"
    weakened = _words(evidence.get("tests_weakened"))
    if weakened:
        yield f"the tests pass only because these were changed: {', '.join(weakened[:10])}"
    changed = [each for each in _words(evidence.get("tests_changed")) if each not in weakened]
    if changed:
        yield f"tests, or what runs them, were changed: {', '.join(changed[:10])}"
    canary = _canary(evidence)
    if canary.get("state") == "not possible":
        yield f"whether its tests can fail could not be tried: {canary.get('why')}"


def _canary(evidence: Mapping[str, Any]) -> Mapping[str, Any]:
    found = evidence.get("canary")
    return found if isinstance(found, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, Sequence) else []


def _words(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, Sequence) else []
