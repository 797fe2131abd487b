"""Faults of Dockerfiles that matter to security; shellcheck reads what stands behind RUN.

Why not hadolint: 56 MB of image for rules that are mostly about style, under a licence of its own; what of it concerns
security is these dozen rules.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from periphery.mcnamara.findings import SECRET, Hit, Level
from periphery.mcnamara.inventory import File
from periphery.mcnamara.scanner import Canary

CANARY = Canary("Dockerfile", "FROM alpine\nRUN chmod +s /bin/su\nUSER root\n", "docker.root")
SECRET_NAME = re.compile(
    r"\b(\w*(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY)\w*)\s*[= ]\s*(['\"]?)([^\s'\"$]{4,})\2",
    re.I,
)
NO_SECRET = re.compile(r"(?:file|path|url|name|id)$|^_", re.IGNORECASE)


Make = Callable[[str, Level, int, str, str, str], Hit]


class Instruction(NamedTuple):
    """One instruction with its continuation lines joined."""

    line: int
    word: str
    rest: str


def instructions(text: str) -> Iterator[Instruction]:
    """The instructions of a Dockerfile; heredocs belong to the instruction that opens them."""
    lines = text.splitlines()
    escape = "`" if re.match(r"#\s*escape\s*=\s*`", lines[0] if lines else "", re.IGNORECASE) else "\\"
    number = 0
    while number < len(lines):
        start = number
        parts: list[str] = []
        while number < len(lines):
            line = lines[number]
            number += 1
            if line.lstrip().startswith("#"):
                start = number if not parts else start
                continue
            stripped = line.rstrip()
            if stripped.endswith(escape):
                parts.append(stripped[:-1])
                continue
            parts.append(stripped)
            break
        whole = " ".join(each.strip() for each in parts).strip()
        word, _, rest = whole.partition(" ")
        for mark in re.findall(r"<<-?[\"']?(\w+)", rest) if word.upper() in ("RUN", "COPY", "ADD") else ():
            body: list[str] = []
            while number < len(lines) and lines[number].strip() != mark:
                body.append(lines[number])
                number += 1
            number += 1
            rest = rest + "\n" + "\n".join(body)
        if word:
            yield Instruction(start + 1, word.upper(), rest.strip())


def wants(file: File) -> bool:
    return file.kind == "dockerfile"


def inspect(file: File, text: str) -> Iterator[Hit]:
    """The faults of one Dockerfile, instruction by instruction, and what it ends as."""

    def hit(rule: str, severity: Level, line: int, cwe: str, message: str, fix: str) -> Hit:
        return Hit(f"docker.{rule}", severity, file.path, line, message, fix, cwe)

    stages: set[str] = set()
    user, last = "", 0
    for line, word, rest in instructions(text):
        last = line
        if word == "FROM":
            image = next((each for each in rest.split() if not each.startswith("--")), "")
            named = re.search(r"\bas\s+(\S+)\s*$", rest, re.IGNORECASE)
            user = ""
            if image.lower() not in stages and image != "scratch" and "$" not in image and "@sha256:" not in image:
                tag = image.rpartition("/")[2].partition(":")[2]
                if tag in ("", "latest"):
                    yield hit(
                        "moving-base",
                        "low",
                        line,
                        "CWE-829",
                        "The base image has no version: it is another one tomorrow.",
                        "Name a version, at best a digest.",
                    )
            if named:
                stages.add(named.group(1).lower())
        elif word == "USER":
            user = rest
        elif word == "ADD" and re.search(r"(?:^|\s)http://", rest):
            yield hit(
                "add-plain",
                "high",
                line,
                "CWE-494",
                "Takes in a file over a connection that anyone on the way can change.",
                "Use https and `ADD --checksum=`.",
            )
        elif word == "ADD" and re.search(r"(?:^|\s)(?:https?|git)://|git@", rest) and "--checksum" not in rest:
            yield hit(
                "add-unchecked",
                "medium",
                line,
                "CWE-494",
                "Takes in a file from elsewhere without checking it.",
                "Use `ADD --checksum=`.",
            )
        elif word in ("ENV", "ARG"):
            for match in SECRET_NAME.finditer(rest):
                if not NO_SECRET.search(match.group(1)):
                    found = hit(
                        "secret",
                        "high",
                        line,
                        SECRET,
                        f"`{word}` keeps a secret in the image's history for whoever has the image.",
                        "Use `RUN --mount=type=secret`.",
                    )
                    yield replace(found, secrets=(match.group(3),))
        elif word == "COPY" and re.search(
            r"(?:^|[\s/])(?:\.env|\.ssh|\.aws|\.npmrc|\.netrc|id_rsa|\.git)(?:[\s/]|$)", rest
        ):
            yield hit(
                "copies-secrets",
                "high",
                line,
                "CWE-538",
                "Copies a file that holds credentials or history into the image.",
                "Leave it out by .dockerignore; use build secrets.",
            )
        elif word == "EXPOSE" and re.search(r"(?:^|\s)(?:22|23|2375|2376)(?:/tcp)?(?:\s|$)", rest):
            yield hit(
                "exposes-admin", "medium", line, "CWE-284", "Opens a port for administration.", "Leave it closed."
            )
        elif word == "RUN":
            yield from _run(rest, line, hit)
    if last and user.split(":")[0] in ("", "root", "0"):
        yield hit(
            "root",
            "medium",
            last,
            "CWE-250",
            "The container's program runs as root.",
            "End with `USER` and a number other than 0.",
        )


def _run(rest: str, line: int, hit: Make) -> Iterator[Hit]:
    if re.search(r"--privileged|--security=insecure|--network=host", rest):
        yield hit(
            "privileged-build",
            "high",
            line,
            "CWE-250",
            "A build step with the rights of the host.",
            "Remove the option.",
        )
    if re.search(r"--allow-unauthenticated|--force-yes|--nogpgcheck|--no-gpg-check|--allow-untrusted", rest):
        yield hit(
            "unsigned-packages",
            "high",
            line,
            "CWE-347",
            "Installs packages without checking their signature.",
            "Remove the option; add the repository's key.",
        )
    if re.search(r"--trusted-host\b", rest):
        yield hit(
            "trusted-host", "medium", line, "CWE-295", "The index's certificate is not checked.", "Remove the option."
        )
    if re.search(r"\bchmod\s+(?:-R\s+)?(?:[0-7]?[4-7][0-7]{3}|[ug]?\+s)\b", rest):
        yield hit(
            "setuid",
            "medium",
            line,
            "CWE-250",
            "Makes a program run with its owner's rights.",
            "Grant a capability to the one program that needs it.",
        )
    if re.search(r"\bsudo\b", rest) and not re.search(r"install[^&|;]*\bsudo\b", rest):
        yield hit(
            "sudo", "low", line, "CWE-250", "`sudo` in a build hides which user does what.", "Switch with `USER`."
        )
