"""Zizmor: faults of GitHub workflows and actions. Offline; neither configuration nor comments of the tree count."""

import json
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from periphery.mcnamara.findings import Confidence, Hit, Level
from periphery.mcnamara.inventory import File
from periphery.mcnamara.program import find_program, run
from periphery.mcnamara.scanner import Batch, Canary, Failed

MAX_BYTES = 2**20
LEVELS: dict[str, Level] = {"Informational": "low", "Low": "low", "Medium": "medium", "High": "high"}
CONFIDENCES: dict[str, Confidence] = {"Low": "low", "Medium": "medium", "High": "high"}
WEAKNESSES = {
    "artipacked": ("CWE-522", "Set `persist-credentials: false` on the checkout."),
    "bot-conditions": ("CWE-290", "Check `github.event.pull_request.user.login`, which the sender cannot choose."),
    "cache-poisoning": ("CWE-345", "Use no cache in jobs that publish."),
    "dangerous-triggers": ("CWE-829", "Use `pull_request`, or run nothing of the request's own code here."),
    "excessive-permissions": ("CWE-250", "Set `permissions: {}` above, and what is needed for each job."),
    "github-env": ("CWE-77", "Pass values by outputs; write nothing that others choose to GITHUB_ENV."),
    "hardcoded-container-credentials": ("CWE-798", "Take the password from `secrets`."),
    "impostor-commit": ("CWE-829", "Pin a commit of the action's own repository."),
    "insecure-commands": ("CWE-77", "Remove ACTIONS_ALLOW_UNSECURE_COMMANDS."),
    "known-vulnerable-actions": ("CWE-1395", "Update the action."),
    "overprovisioned-secrets": ("CWE-250", "Pass the one secret that is needed."),
    "secrets-inherit": ("CWE-250", "Pass the secrets that are needed, by name."),
    "self-hosted-runner": ("CWE-250", "Let strangers' requests run on hosted runners only."),
    "template-injection": ("CWE-94", "Pass it by `env` and use the variable in the script."),
    "unpinned-images": ("CWE-829", "Pin the image by digest."),
    "unpinned-uses": ("CWE-829", "Pin the action to a full commit."),
    "unredacted-secrets": ("CWE-532", "Make each value a secret of its own."),
    "unsound-contains": ("CWE-187", "Compare with `==`, or with a JSON list."),
}


class Zizmor:
    """The scanner for workflows."""

    name = "zizmor"
    canary = Canary(
        ".github/workflows/canary.yml",
        "on: issues\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n"
        '      - run: echo "${{ github.event.issue.title }}"\n',
        "zizmor.template-injection",
    )
    seconds = 120.0

    def __init__(self) -> None:
        try:
            self.version = version("zizmor")
        except PackageNotFoundError:
            self.version = "absent"

    def applies(self, file: File) -> bool:
        return file.kind == "workflow" and 0 < file.size <= MAX_BYTES

    async def look(self, files: Sequence[File], seconds: float) -> Batch:
        program = find_program("zizmor")
        if program is None:
            raise Failed("the program is not installed")
        options = ["--offline", "--format=json-v1", "--no-config", "--no-ignores", "--no-progress", "--no-exit-codes"]
        places = [str(each.place) for each in files]
        ended = await run([program, *options, "--collect=all", "--", *places], seconds=seconds)
        if ended.reason == "timed_out":
            raise Failed(f"took more than {seconds:.0f} s")
        try:
            found = json.loads(ended.output)
        except ValueError as error:
            raise Failed(f"ended with {ended.code}: {ended.errors[-200:].strip()}") from error
        done = set(re.findall(r"completed (\S.*)", ended.errors))
        batch = Batch()
        for file in files:
            if str(file.place) not in done:
                batch.missed[file.path] = "zizmor: not a workflow it understands"
        by_place = {str(each.place): each for each in files}
        for each in found:
            batch.hits += _hits(each, by_place)
        return batch


def _hits(found: dict[str, object], by_place: dict[str, File]) -> list[Hit]:
    rule, determined, locations = str(found["ident"]), found["determinations"], found["locations"]
    if not isinstance(determined, dict) or not isinstance(locations, list):
        return []
    for location in locations:
        symbolic = location["symbolic"]
        file = by_place.get(symbolic["key"].get("Local", {}).get("verbatim_path", ""))
        if symbolic.get("kind") == "Primary" and file is not None:
            cwe, fix = WEAKNESSES.get(rule, ("", "Zizmor's page on this audit shows how."))
            return [
                Hit(
                    rule=f"zizmor.{rule}",
                    severity=LEVELS.get(str(determined["severity"]), "low"),
                    path=file.path,
                    line=int(location["concrete"]["location"]["start_point"]["row"]) + 1,
                    message=f"{str(found['desc']).capitalize()}: {symbolic['annotation']}.",
                    fix=fix,
                    cwe=cwe,
                    confidence=CONFIDENCES.get(str(determined["confidence"]), "medium"),
                )
            ]
    return []
