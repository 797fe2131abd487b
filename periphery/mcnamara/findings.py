"""One finding model for every scanner: what was found, where, why it matters, how to mend it.

Scanners speak of the same fault in their own words. `merge` makes one finding of what several of them say about one
line and one weakness (CWE), keeps the gravest severity, and names who agreed: two scanners that agree are worth more
than one that is sure. An id follows from the weakness, the path and the text of the line, never from the line's number
or from who found it, so a baseline survives edits above the line and a scanner that fails one day.

A secret's value never leaves this module unmasked: snippets and messages are masked with every value any scanner saw.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Literal

from typing_extensions import TypedDict

Level = Literal["low", "medium", "high", "critical"]
Confidence = Literal["low", "medium", "high"]

LEVELS: tuple[Level, ...] = ("low", "medium", "high", "critical")
CONFIDENCES: tuple[Confidence, ...] = ("low", "medium", "high")
SECRET = "CWE-798"  # the weakness every leaked credential is filed under
SNIPPET_CHARACTERS = 200
MESSAGE_CHARACTERS = 600


class Finding(TypedDict):
    """A finding as reports carry it."""

    id: str
    rule: str
    severity: Level
    confidence: Confidence
    cwe: str
    path: str
    line: int
    snippet: str
    message: str
    fix: str
    scanners: list[str]


@dataclass(frozen=True)
class Hit:
    """What one scanner says about one line."""

    rule: str
    severity: Level
    path: str
    line: int  # counted from 1; 0: the file as a whole
    message: str  # why it matters
    fix: str = ""
    cwe: str = ""
    confidence: Confidence = "medium"
    scanner: str = ""
    distinct: bool = False  # never made one with other rules on its line
    snippet: str = ""  # filled by who can read the file, unless the scanner knows better
    secrets: tuple[str, ...] = field(default=(), repr=False)  # values to mask, never reported


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` with each secret replaced by its first characters and stars."""
    whole = {each for each in secrets if len(each) > 3}
    pieces = {piece for each in whole for piece in re.split(r"\s+|\\[nr]", each) if len(piece) >= 16}  # lines of a key
    for secret in sorted(whole | pieces, key=len, reverse=True):
        shown = secret[:4] if len(secret) >= 16 else ""
        text = text.replace(secret, shown + "****")
    return text


def printable(text: str, limit: int) -> str:
    """`text` on one line without characters that drive a terminal or hide text, cut at `limit`."""
    text = text.strip()
    cut = text[:limit]
    shown = "".join(each if each.isprintable() else " " if each.isspace() else _escape(each) for each in cut)
    return shown[:limit] + ("…" if len(text) > limit or len(shown) > limit else "")


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def merge(hits: Iterable[Hit]) -> list[Finding]:
    """One finding per path, line and weakness, gravest first."""
    groups: dict[tuple[str, int, str], list[Hit]] = defaultdict(list)
    secrets: Mapping[str, set[str]] = defaultdict(set)
    for hit in hits:
        groups[hit.path, hit.line, hit.rule if hit.distinct else hit.cwe or hit.rule].append(hit)
        secrets[hit.path].update(hit.secrets)
    seen: Counter[tuple[str, str, str]] = Counter()
    findings = []
    for (path, line, weakness), group in sorted(groups.items()):
        finding = _one(group, secrets[path])
        place = (weakness, path, re.sub(r"\s+", " ", finding["snippet"]))
        finding["id"] = identity(*place, seen[place])
        seen[place] += 1
        finding["line"] = line
        findings.append(finding)
    findings.sort(key=lambda each: (-LEVELS.index(each["severity"]), each["path"], each["line"], each["rule"]))
    return findings


def identity(weakness: str, path: str, snippet: str, occurrence: int) -> str:
    """The id of a finding: the same wherever and whenever the same fault is found in the same text."""
    text = "\0".join((weakness, path, snippet, str(occurrence)))
    return "mcn-" + sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _one(group: list[Hit], secrets: set[str]) -> Finding:
    best = max(group, key=lambda hit: (LEVELS.index(hit.severity), CONFIDENCES.index(hit.confidence), hit.rule))
    scanners = sorted({hit.scanner for hit in group})
    snippet = best.snippet or next((hit.snippet for hit in group if hit.snippet), "")
    return Finding(
        id="",
        rule=best.rule,
        severity=best.severity,
        confidence="high" if len(scanners) > 1 else best.confidence,
        cwe=best.cwe,
        path=best.path,
        line=best.line,
        snippet=printable(mask(snippet, secrets), SNIPPET_CHARACTERS),
        message=printable(mask(best.message, secrets), MESSAGE_CHARACTERS),
        fix=printable(best.fix, MESSAGE_CHARACTERS),
        scanners=scanners,
    )


def quoted(hit: Hit, line: str) -> Hit:
    """`hit` with the text of its line as its snippet, unless its scanner brought a better one."""
    return hit if hit.snippet else replace(hit, snippet=line)
