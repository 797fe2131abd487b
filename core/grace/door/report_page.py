"""A scan's report as one HTML file that stands alone: to be kept, sent, printed. It has no script and loads nothing.

Every word of it goes through `html.escape`; what is left to hope for is a hole in that function. Even then the policy
in its head allows its own style and nothing else.
"""

import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from html import escape
from typing import Any

from core.coding.telling import plain
from core.grace.reports import RISING, Finding, Report, counts, worst_first

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --quiet: #59636e; --line: #d1d9e0; --ground: #fff; --code: #f3f5f7;
  --critical: #8a0f1d; --high: #b3261e; --medium: #8a5a00; --low: #1f5fa8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --quiet: #9aa6b2; --line: #3b434c; --ground: #11151a;
  --code: #1a2027; --critical: #ff8f8f; --high: #ff9d8a; --medium: #e8b647; --low: #8cbcff; } }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dt { color: var(--quiet); }
dd { margin: 0; }
article { border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; margin: .8rem 0;
  break-inside: avoid; }
article h3 { font-size: 1rem; margin: 0; } article p { margin: .4rem 0; }
pre { background: var(--code); padding: .5rem .7rem; border-radius: .3rem; white-space: pre-wrap; margin: .5rem 0; }
.critical { color: var(--critical); } .high { color: var(--high); } .medium { color: var(--medium); }
.low { color: var(--low); } .quiet { color: var(--quiet); }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; }
""".strip()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'; base-uri 'none'"
)
SKIPPED = 1000


def page(
    report: Report, name: str, run: Mapping[str, Any], accepted: Sequence[Mapping[str, str]] = ()
) -> Iterator[str]:
    """The whole file, piece by piece. `accepted` are the findings that a person had accepted before the scan."""
    title = f"Scan of {_text(name) or _text(report.run)}"
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="referrer" '
    yield f'content="no-referrer">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n'
    found = counts(report.findings)
    said = ", ".join(f"{found[level]} {level}" for level in reversed(RISING) if found[level]) or "nothing found"
    coverage, ended = report.coverage, run.get("ended")
    facts = [("Run", report.run), ("Outcome", report.outcome), ("Found", said)]
    facts += [("Scanned", f"{coverage.scanned:,} of {coverage.files:,} files")]
    facts += [("Ended", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(ended)))] if ended else []
    facts += [("Reason", str(run.get("reason")))] if run.get("reason") else []
    yield "<dl>" + "".join(f"<dt>{_text(what)}</dt><dd>{_text(value)}</dd>" for what, value in facts) + "</dl>\n"
    yield "<h2>Findings</h2>\n"
    if not report.findings:
        yield '<p class="quiet">Nothing was found.</p>\n'
    for each in worst_first(report.findings):
        yield _finding(each)
    if accepted:
        yield "<h2>Accepted by a person before the scan</h2>\n<table><tr><th>Finding<th>Why<th>Who<th>Until</tr>\n"
        yield from (_row(each.get(key, "") for key in ("id", "reason", "who", "until")) for each in accepted)
        yield "</table>\n"
    yield "<h2>Scanners</h2>\n<table><tr><th>Scanner<th>Version<th>State</tr>\n"
    yield from (_row((each.name, each.version, each.state)) for each in coverage.scanners)
    yield "</table>\n"
    if coverage.skipped:
        yield f"<h2>Not scanned: {len(coverage.skipped):,}</h2>\n<table><tr><th>File<th>Why</tr>\n"
        yield from (_row((each.path, each.reason)) for each in coverage.skipped[:SKIPPED])
        yield "</table>\n"
    yield "</body>\n</html>\n"


def _finding(finding: Finding) -> str:
    parts = [f'<article>\n<h3><span class="{finding.severity}">{finding.severity}</span> {_text(finding.place)}</h3>']
    about = [finding.rule, finding.cwe, f"confidence {finding.confidence}", ", ".join(finding.scanners), finding.id]
    parts.append(f'<p class="quiet">{" · ".join(_text(each) for each in about if each)}</p>')
    parts.append(f"<p>{_text(finding.message)}</p>")
    if finding.snippet:
        parts.append(f"<pre><code>{_text(finding.snippet)}</code></pre>")
    if finding.fix:
        parts.append(f"<p>Mend: {_text(finding.fix)}</p>")
    return "\n".join([*parts, "</article>\n"])


def _row(cells: Iterator[str] | tuple[str, ...]) -> str:
    return "<tr>" + "".join(f"<td>{_text(each)}" for each in cells) + "</tr>\n"


def _text(value: object) -> str:
    return escape(plain(value))
