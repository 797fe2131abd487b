"""What the evidence of a run that wrote code says, in few words: for whoever decides about its patch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def plain(text: object) -> str:
    """`text` on one line, with each character that would drive a terminal or hide text written as its escape."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode() for each in str(text)
    )


def tests(result: Any) -> str:
    """What a test run came to."""
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
    took = f" in {seconds:.{0 if seconds >= 10 else 1}f} s" if isinstance(seconds, (int, float)) else ""
    return plain(f"{verdict}{counted}{took}: {result.get('command') or '?'}")


def clean_room(evidence: Mapping[str, Any]) -> str:
    """What the patch came to where no agent has been."""
    proved = evidence.get("clean_room")
    if proved is None:
        return "not tested there"
    if _control(evidence).get("state") == "unnoticed":
        return "passed there without being able to fail"
    return ("passed" if proved else "failed") + " on the original tree plus only the patch"


def warnings(evidence: Mapping[str, Any]) -> Iterator[str]:
    """What a person should know before they take a patch, a sentence each."""
    for each in mappings(evidence.get("refused")):
        yield f"refused: {each.get('path')}: {each.get('reason') or each.get('why')}"
    for each in mappings(evidence.get("flags")):
        line = f":{each['line']}" if each.get("line") else ""
        yield f"look at: {each.get('path')}{line} {each.get('what')}"
    weakened = _words(evidence.get("tests_weakened"))
    if weakened:
        yield f"the tests pass only because these were changed: {', '.join(weakened[:10])}"
    changed = [each for each in _words(evidence.get("tests_changed")) if each not in weakened]
    if changed:
        yield f"tests, or what runs them, were changed: {', '.join(changed[:10])}"
    control = _control(evidence)
    if control.get("state") == "not possible":
        yield f"whether its tests can fail could not be tried: {control.get('why')}"


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """The mappings of a list; of anything else none."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, Sequence) else []


def _control(evidence: Mapping[str, Any]) -> Mapping[str, Any]:
    found = evidence.get("control")
    return found if isinstance(found, Mapping) else {}


def _words(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, Sequence) else []
