"""Known vulnerabilities of the packages that lock files name, against the OSV index that the lab keeps."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from anyio import to_thread

from periphery.mcnamara import advisories
from periphery.mcnamara.findings import Hit
from periphery.mcnamara.inventory import File
from periphery.mcnamara.lockfiles import dependencies, is_lock_file
from periphery.mcnamara.scanner import Batch, Canary, Failed

MAX_BYTES = 16 * 2**20
WEAKNESS = "CWE-1395"  # depends on a vulnerable component; the advisory's own weakness is in its text
# The canary is a package that no index holds: its advisory is added to what is looked up, by the same way of matching.
CANARY_NAME, CANARY_ID = "madlab-canary-package", "MADLAB-CANARY"
CANARY_RECORD = (
    b'{"id":"MADLAB-CANARY","summary":"canary","affected":[{"package":{"ecosystem":"PyPI","name":"madlab-canary-package"},'
    b'"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"2.0"}]}]}]}'
)


class Dependencies:
    """Looks up every package of every lock file."""

    name = "dependencies"
    canary = Canary("requirements.txt", f"{CANARY_NAME}==1.10\n", f"osv.{CANARY_ID}")
    seconds = 120.0

    def __init__(self, index: Path) -> None:
        """`index` as `advisories.build` wrote it.

        Raises:
            ValueError: it is of another version.
            sqlite3.Error: it is no index.
        """
        self._index = index
        opened = advisories.Index(index)
        self.version = opened.newest[:10] or "undated"
        opened.close()

    def applies(self, file: File) -> bool:
        return is_lock_file(file.path) and 0 < file.size <= MAX_BYTES

    async def look(self, files: Sequence[File], seconds: float) -> Batch:
        try:
            return await to_thread.run_sync(self._look, files)
        except (sqlite3.Error, OSError) as error:
            raise Failed(f"the index cannot be read: {error}") from error

    def _look(self, files: Sequence[File]) -> Batch:
        batch = Batch()
        with TemporaryDirectory(prefix="canary-") as folder:
            advisories.build([CANARY_RECORD], Path(folder) / "index", lambda count: None)
            indexes = [advisories.Index(self._index), advisories.Index(Path(folder) / "index")]
            for file in files:
                try:
                    named = dependencies(file.path, file.text())
                except (ValueError, TypeError, RecursionError) as error:
                    batch.missed[file.path] = f"dependencies: not understood ({type(error).__name__})"
                    continue
                for each in named:
                    for index in indexes:
                        for advisory in index.find(each.ecosystem, each.name, each.version):
                            batch.hits.append(_hit(file, each.name, each.version, each.line, advisory))
            for index in indexes:
                index.close()
        return batch


def _hit(file: File, name: str, version: str, line: int, advisory: advisories.Advisory) -> Hit:
    known = next((each for each in advisory.aliases if each.startswith("CVE-")), "")
    malicious = advisory.id.startswith("MAL-")
    return Hit(
        rule=f"osv.{advisory.id}",
        severity=advisory.severity,
        path=file.path,
        line=line,
        message=f"{name} {version}: {advisory.summary or 'a known vulnerability'}"
        + (f" ({known})" if known else "")
        + (f", {advisory.cwe}" if advisory.cwe else ""),
        fix="Remove it: the package is malicious."
        if malicious
        else f"Update to {advisory.fixed}."
        if advisory.fixed
        else "No fixed version is known; replace it.",
        cwe=WEAKNESS,
        confidence="high",
        distinct=True,
    )
