"""What a scan hands out: the report as JSON, and the same as SARIF 2.1.0."""

from collections import Counter
from collections.abc import Sequence
from urllib.parse import quote

from typing_extensions import TypedDict

from periphery.mcnamara.baseline import Accepted
from periphery.mcnamara.findings import LEVELS, Finding, Level

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
SARIF_LEVELS: dict[Level, str] = {"low": "note", "medium": "warning", "high": "error", "critical": "error"}
SCORES: dict[Level, str] = {
    "low": "3.0",
    "medium": "5.5",
    "high": "8.0",
    "critical": "9.5",
}  # GitHub's security-severity


class Skipped(TypedDict):
    """A file that was not scanned, and why."""

    path: str
    reason: str


class ScannerState(TypedDict):
    """What one scanner did: `ok`, `no files for it`, or a sentence on what it missed."""

    name: str
    version: str
    state: str


class CoverageReport(TypedDict):
    """What was looked at."""

    files: int
    scanned: int
    skipped: list[Skipped]
    scanners: list[ScannerState]


class Report(TypedDict):
    """The result of a scan, as `report.json` carries it."""

    run: str
    outcome: str
    coverage: CoverageReport
    findings: list[Finding]


def severities(findings: Sequence[Finding]) -> dict[Level, int]:
    """How many findings of each severity."""
    counted = Counter(each["severity"] for each in findings)
    return {level: counted[level] for level in LEVELS}


def sarif(
    report: Report, suppressed: Sequence[tuple[Finding, Accepted]], version: str, source: str
) -> dict[str, object]:
    """The report in the form that code hosts and editors take."""
    everything = [*report["findings"], *(each for each, _ in suppressed)]
    rules = {each["rule"]: each for each in reversed(everything)}
    order = {rule: number for number, rule in enumerate(sorted(rules))}
    results = [_result(each, order[each["rule"]]) for each in report["findings"]]
    for finding, accepted in suppressed:
        note = f"{accepted.reason} ({accepted.who}, until {accepted.until.isoformat()})"
        waived = {"kind": "external", "status": "accepted", "justification": note}
        results.append(_result(finding, order[finding["rule"]]) | {"suppressions": [waived]})
    coverage = report["coverage"]
    notices = [
        {
            "level": "warning",
            "message": {"text": f"{each['path']}: {each['reason']}"},
            "descriptor": {"id": "not-scanned"},
        }
        for each in coverage["skipped"][:1000]
    ]
    notices += [
        {
            "level": "note" if each["state"].startswith(("ok", "no ")) else "warning",
            "message": {"text": f"{each['name']} {each['version']}: {each['state']}"},
            "descriptor": {"id": "scanner"},
        }
        for each in coverage["scanners"]
    ]
    run = {
        "tool": {
            "driver": {
                "name": "McNamara",
                "semanticVersion": version,
                "rules": [_rule(rules[rule]) for rule in sorted(rules)],
                "notifications": [
                    {"id": "not-scanned", "shortDescription": {"text": "A file was not scanned."}},
                    {"id": "scanner", "shortDescription": {"text": "What one scanner did."}},
                ],
            }
        },
        "automationDetails": {"id": f"mcnamara/{quote(source)}/"},
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {"executionSuccessful": report["outcome"] == "succeeded", "toolExecutionNotifications": notices}
        ],
        "properties": {"files": coverage["files"], "scanned": coverage["scanned"], "outcome": report["outcome"]},
        "results": results,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(finding: Finding) -> dict[str, object]:
    rule: dict[str, object] = {
        "id": finding["rule"],
        "shortDescription": {"text": finding["message"] or finding["rule"]},
        "defaultConfiguration": {"level": SARIF_LEVELS[finding["severity"]]},
        "properties": {
            "security-severity": SCORES[finding["severity"]],
            "tags": ["security", *([f"external/cwe/{finding['cwe'].lower()}"] if finding["cwe"] else [])],
        },
    }
    if finding["fix"]:
        rule["help"] = {"text": finding["fix"]}
    return rule


def _result(finding: Finding, rule: int) -> dict[str, object]:
    place: dict[str, object] = {
        "artifactLocation": {"uri": quote(finding["path"], safe="/!~@+$,=()"), "uriBaseId": "%SRCROOT%"}
    }
    if finding["line"]:
        region: dict[str, object] = {"startLine": finding["line"]}
        if finding["snippet"]:
            region["snippet"] = {"text": finding["snippet"]}
        place["region"] = region
    message = finding["message"] + (f" Mend: {finding['fix']}" if finding["fix"] else "")
    return {
        "ruleId": finding["rule"],
        "ruleIndex": rule,
        "level": SARIF_LEVELS[finding["severity"]],
        "message": {"text": message or finding["rule"]},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"madlabFinding/v1": finding["id"]},
        "properties": {
            "severity": finding["severity"],
            "confidence": finding["confidence"],
            "cwe": finding["cwe"],
            "scanners": finding["scanners"],
        },
    }
