"""Rules that are regular expressions over a file's text: one shape for all of them, and the way to apply them."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from periphery.mcnamara.findings import Confidence, Hit, Level
from periphery.mcnamara.inventory import File, Kind

PER_RULE = 100  # lines: more hits of one rule in one file say nothing new


@dataclass(frozen=True)
class Pattern:
    """One rule. Expressions are bounded everywhere, so that no text makes them slow."""

    rule: str
    severity: Level
    cwe: str
    expression: str
    message: str
    fix: str
    kinds: frozenset[Kind] | None = None  # None: any text
    confidence: Confidence = "medium"
    flags: int = 0
    compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "compiled", re.compile(self.expression, self.flags))


class Lines:
    """Finds the line of an offset."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer(r"\n", text))]

    def at(self, offset: int) -> int:
        """The line of `offset`, counted from 1."""
        return bisect_right(self._starts, offset)


def apply(patterns: Iterable[Pattern], file: File, text: str) -> Iterator[Hit]:
    """A hit for each line of `file` on which a rule matches; a group named `secret` is masked in the report."""
    lines = Lines(text)
    for pattern in patterns:
        if pattern.kinds is not None and file.kind not in pattern.kinds:
            continue
        seen: set[int] = set()
        for match in pattern.compiled.finditer(text):
            line = lines.at(match.start())
            secret = match.groupdict().get("secret")
            if line in seen and not secret:  # each secret of a line must be known, or it would not be masked
                continue
            seen.add(line)
            yield Hit(
                rule=pattern.rule,
                severity=pattern.severity,
                path=file.path,
                line=line,
                message=pattern.message,
                fix=pattern.fix,
                cwe=pattern.cwe,
                confidence=pattern.confidence,
                secrets=(secret,) if secret else (),
                snippet=_around(text, match),
            )
            if len(seen) >= PER_RULE:
                break


def _around(text: str, match: re.Match[str]) -> str:
    """The line of a match where it is short, else what surrounds the match."""
    start = text.rfind("\n", 0, match.start()) + 1
    stop = text.find("\n", match.start())
    stop = len(text) if stop < 0 else stop
    if stop - start <= 300:
        return text[start:stop]
    return text[max(start, match.start() - 40) : min(stop, match.start() + 160)]
