"""A scan's report on a terminal: shown as a table, turned into an exit code."""

from core.grace.cli import screen
from core.grace.reports import RISING, Report, Severity, worst_first

SKIPPED_SHOWN = 10
COLOURS = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan"}


def says_no(report: Report, fail_on: Severity | None) -> bool:
    """Whether anything is at least as bad as the operator accepts. Without a threshold nothing is."""
    return fail_on is not None and any(RISING.index(each.severity) >= RISING.index(fail_on) for each in report.findings)


def show(report: Report, reason: str) -> None:
    """Prints the report for a person: the worst first."""
    from rich.text import Text

    ordered = worst_first(report.findings)
    rows = [
        (
            Text(each.severity, style=COLOURS[each.severity]),
            Text(screen.plain(each.place)),
            each.rule,
            f"{each.message} Mend: {each.fix}" if each.fix else each.message,
        )
        for each in ordered
    ]
    if rows:
        screen.table(("SEVERITY", "PLACE", "RULE", "WHY, AND HOW TO MEND IT"), rows)
        screen.say()
    counts = ", ".join(
        f"{count} {level}" for level in reversed(RISING) if (count := sum(each.severity == level for each in ordered))
    )
    coverage = report.coverage
    screen.say(f"{report.outcome}: {counts or 'nothing found'}. {reason}".strip())
    screen.say(
        f"Scanned {coverage.scanned:,} of {coverage.files:,} files" + (", skipped:" if coverage.skipped else ".")
    )
    for each in coverage.skipped[:SKIPPED_SHOWN]:
        screen.say(f"  {screen.plain(each.path)}: {screen.plain(each.reason)}")
    if len(coverage.skipped) > SKIPPED_SHOWN:
        screen.say(f"  and {len(coverage.skipped) - SKIPPED_SHOWN:,} more: see --format json")
    for scanner in coverage.scanners:
        screen.say(f"  {screen.plain(f'{scanner.name} {scanner.version}'.strip())}: {screen.plain(scanner.state)}")
