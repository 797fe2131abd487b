"""Reads how many tests passed from what a test program says at its end."""

import re
from collections.abc import Callable

from typing_extensions import TypedDict


class Counts(TypedDict):
    """How many tests came to what."""

    passed: int
    failed: int
    errors: int
    skipped: int


Reader = Callable[[str], Counts | None]


def count(output: str) -> Counts | None:
    """The counts of the summaries in `output`, or nothing where none is known."""
    for reader in _READERS:
        if (found := reader(output)) is not None:
            return found
    return None


def _counts(passed: int = 0, failed: int = 0, errors: int = 0, skipped: int = 0) -> Counts:
    return Counts(passed=passed, failed=failed, errors=errors, skipped=skipped)


def _added(found: list[Counts]) -> Counts | None:
    if not found:
        return None
    return _counts(
        sum(each["passed"] for each in found),
        sum(each["failed"] for each in found),
        sum(each["errors"] for each in found),
        sum(each["skipped"] for each in found),
    )


_PYTEST_END = re.compile(r"^=*\s*((?:\d+ [a-z]+,? ?)+|no tests ran) in [\d.]+m?s\b.*$", re.MULTILINE)
_PYTEST_WORDS = {
    "passed": "passed",
    "failed": "failed",
    "error": "errors",
    "errors": "errors",
    "skipped": "skipped",
    "xfailed": "skipped",
    "xpassed": "passed",
}


def _pytest(output: str) -> Counts | None:
    ends = _PYTEST_END.findall(output)
    if not ends:
        return None
    made = {"passed": 0, "failed": 0, "errors": 0, "skipped": 0}
    for number, word in re.findall(r"(\d+) ([a-z]+)", ends[-1]):
        if word in _PYTEST_WORDS:
            made[_PYTEST_WORDS[word]] += int(number)
    return _counts(**made)


_UNITTEST_END = re.compile(r"^Ran (\d+) tests? in [\d.]+s\s+(OK|FAILED|NO TESTS RAN)(?: \(([^)]*)\))?", re.MULTILINE)


def _unittest(output: str) -> Counts | None:
    ends = []
    for number, _, details in _UNITTEST_END.findall(output):
        said = {key: int(value) for key, value in re.findall(r"([a-z ]+)=(\d+)", details)}
        said = {key.strip(): value for key, value in said.items()}
        failed = said.get("failures", 0) + said.get("unexpected successes", 0)
        errors, skipped = said.get("errors", 0), said.get("skipped", 0) + said.get("expected failures", 0)
        ends.append(_counts(max(int(number) - failed - errors - skipped, 0), failed, errors, skipped))
    return _added(ends)


_CARGO_END = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.MULTILINE)


def _cargo(output: str) -> Counts | None:
    return _added([_counts(int(ok), int(bad), 0, int(off)) for ok, bad, off in _CARGO_END.findall(output)])


_GO_LINE = re.compile(r"^--- (PASS|FAIL|SKIP): ", re.MULTILINE)
_GO_BROKEN = re.compile(r"^FAIL\s+\S+ \[(?:build|setup) failed\]$", re.MULTILINE)


def _go(output: str) -> Counts | None:
    lines = _GO_LINE.findall(output)
    broken = len(_GO_BROKEN.findall(output))
    if not lines and not broken:
        return None
    return _counts(lines.count("PASS"), lines.count("FAIL"), broken, lines.count("SKIP"))


_CTEST_END = re.compile(r"^\d+% tests passed, (\d+) tests? failed out of (\d+)", re.MULTILINE)


def _ctest(output: str) -> Counts | None:
    ends = [(int(bad), int(all_)) for bad, all_ in _CTEST_END.findall(output)]
    return _added([_counts(all_ - bad, bad) for bad, all_ in ends])


_NODE_LINE = re.compile(r"^[#\u2139] (pass|fail|cancelled|skipped|todo) (\d+)$", re.MULTILINE)


def _node(output: str) -> Counts | None:
    said: dict[str, int] = {}
    for word, number in _NODE_LINE.findall(output):
        said[word] = said.get(word, 0) + int(number)
    if "pass" not in said:
        return None
    skipped = said.get("skipped", 0) + said.get("todo", 0)
    return _counts(said["pass"], said.get("fail", 0), said.get("cancelled", 0), skipped)


_JEST_END = re.compile(r"^\s*Tests:?\s+(.*\d+ (?:passed|failed|skipped|todo).*)$", re.MULTILINE)


def _jest(output: str) -> Counts | None:
    """Jest's and vitest's."""
    ends = []
    for line in _JEST_END.findall(output):
        said = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", line)}
        skipped = said.get("skipped", 0) + said.get("todo", 0)
        ends.append(_counts(said.get("passed", 0), said.get("failed", 0), 0, skipped))
    return _added(ends)


_MOCHA_LINE = re.compile(r"^\s+(\d+) (passing|failing|pending)\b", re.MULTILINE)


def _mocha(output: str) -> Counts | None:
    said = {word: int(number) for number, word in _MOCHA_LINE.findall(output)}
    if "passing" not in said:
        return None
    return _counts(said["passing"], said.get("failing", 0), 0, said.get("pending", 0))


_AUTOMAKE_LINE = re.compile(r"^# (PASS|FAIL|ERROR|SKIP|XFAIL|XPASS):\s+(\d+)$", re.MULTILINE)


def _automake(output: str) -> Counts | None:
    said: dict[str, int] = {}
    for word, number in _AUTOMAKE_LINE.findall(output):
        said[word] = said.get(word, 0) + int(number)
    if "PASS" not in said:
        return None
    failed = said.get("FAIL", 0) + said.get("XPASS", 0)
    return _counts(said["PASS"], failed, said.get("ERROR", 0), said.get("SKIP", 0) + said.get("XFAIL", 0))


_TAP_LINE = re.compile(r"^(not ok|ok) \d+\b(.*)$", re.MULTILINE)


def _tap(output: str) -> Counts | None:
    lines = _TAP_LINE.findall(output)
    if not lines:
        return None
    made = _counts()
    for word, rest in lines:
        if re.search(r"# (?:skip|todo)", rest, re.IGNORECASE):
            made["skipped"] += 1
        elif word == "ok":
            made["passed"] += 1
        else:
            made["failed"] += 1
    return made


_READERS: tuple[Reader, ...] = (_pytest, _unittest, _cargo, _go, _ctest, _node, _jest, _mocha, _automake, _tap)
