"""Bandit: flaws in Python code, by its syntax tree."""

import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from periphery.mcnamara.findings import SECRET, Confidence, Hit, Level
from periphery.mcnamara.inventory import File
from periphery.mcnamara.program import python_module, run
from periphery.mcnamara.scanner import Batch, Canary, Failed

MAX_BYTES = 2 * 2**20
LEVELS: dict[str, Level] = {"LOW": "low", "MEDIUM": "medium", "HIGH": "high"}
CONFIDENCES: dict[str, Confidence] = {"LOW": "low", "MEDIUM": "medium", "HIGH": "high"}
# Left out, each for its reason: an import is no fault, its use is reported (B401 to B415); `assert` in a test is what
# a test is made of, and elsewhere a matter of style (B101); `except: pass` is no weakness by itself (B110, B112);
# starting a program with a list of arguments is how it should be done (B603, B607).
LEFT_OUT = {"B101", "B110", "B112", "B603", "B607", *(f"B4{number:02}" for number in range(1, 16))}
FIXES = {
    "B102": "Do not run text as code; use a table of functions or `ast.literal_eval` for data.",
    "B105": "Take it from the environment or a secret store, and change the one that was written here.",
    "B106": "Take it from the environment or a secret store, and change the one that was written here.",
    "B107": "Have no default; take it from the environment or a secret store.",
    "B108": "Use `tempfile.mkstemp` or `tempfile.TemporaryDirectory`.",
    "B201": "Never run with `debug=True` where others can connect.",
    "B202": "Check each member's name and kind before writing it; pass `filter='data'` at least.",
    "B301": "Load JSON or another data-only format; a pickle from elsewhere runs code.",
    "B303": "Use SHA-256, or BLAKE2.",
    "B304": "Use AES-GCM or ChaCha20-Poly1305.",
    "B305": "Use an authenticated mode such as GCM.",
    "B306": "Use `tempfile.mkstemp`.",
    "B307": "Use `ast.literal_eval`, or parse the data.",
    "B311": "Use `secrets` where the value must not be guessed.",
    "B323": "Keep certificate verification on.",
    "B324": "Use SHA-256; with `usedforsecurity=False` where it is a checksum only.",
    "B501": "Remove `verify=False`.",
    "B506": "Use `yaml.safe_load`.",
    "B507": "Use `RejectPolicy` and a known_hosts file.",
    "B602": "Pass a list of arguments and `shell=False`.",
    "B605": "Use `subprocess.run` with a list of arguments.",
    "B608": "Pass values as parameters of the query.",
    "B701": "Set `autoescape=True`.",
}


class Bandit:
    """Bandit, told to ignore what the tree says about itself: no `.bandit`, no `# nosec`."""

    name = "bandit"
    canary = Canary("canary.py", "import yaml\nyaml.load(open('x'), Loader=yaml.Loader)\n", "bandit.B506")
    seconds = 300.0

    def __init__(self) -> None:
        try:
            self.version = version("bandit")
        except PackageNotFoundError:
            self.version = "absent"

    def applies(self, file: File) -> bool:
        return file.kind == "python" and file.size <= MAX_BYTES

    async def look(self, files: Sequence[File], seconds: float) -> Batch:
        arguments = ["--format", "json", "--quiet", "--ignore-nosec", "--exit-zero", "--ini", "/dev/null"]
        ended = await run(python_module("bandit", *arguments, *(str(each.place) for each in files)), seconds=seconds)
        if ended.reason == "timed_out":
            raise Failed(f"took more than {seconds:.0f} s")
        try:
            report = json.loads(ended.output)
            results, errors, metrics = report["results"], report["errors"], report["metrics"]
        except (ValueError, KeyError, TypeError) as error:
            raise Failed(f"ended with {ended.code} and no report: {ended.errors[-200:].strip()}") from error
        by_place = {str(each.place): each for each in files}
        batch = Batch()
        for each in errors:
            if unread := by_place.get(each.get("filename", "")):
                batch.missed[unread.path] = f"bandit: {str(each.get('reason', 'not read'))[:120]}"
        for place, file in by_place.items():
            if place not in metrics and file.path not in batch.missed:
                batch.missed[file.path] = "bandit: not read"
        for result in results:
            hit = self._hit(result, by_place.get(result["filename"]))
            if hit is not None:
                batch.hits.append(hit)
        return batch

    def _hit(self, result: dict[str, object], file: File | None) -> Hit | None:
        test = str(result["test_id"])
        if file is None or test in LEFT_OUT:
            return None
        confidence = CONFIDENCES.get(str(result["issue_confidence"]), "medium")
        cwe = result.get("issue_cwe")
        number = cwe.get("id") if isinstance(cwe, dict) else None
        message, weakness, secrets = str(result["issue_text"]), f"CWE-{number}" if number else "", ""
        if test in ("B105", "B106", "B107"):  # the message quotes the password
            _, _, secrets = message.partition(": ")
            message, weakness = "Possible hardcoded password.", SECRET
        return Hit(
            rule=f"bandit.{test}",
            severity="low" if confidence == "low" else LEVELS.get(str(result["issue_severity"]), "medium"),
            confidence=confidence,
            path=file.path,
            line=int(str(result["line_number"])),
            message=message,
            fix=FIXES.get(test, ""),
            cwe=weakness,
            secrets=(secrets.strip("'\""),) if secrets else (),
        )
