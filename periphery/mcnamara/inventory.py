"""What the scanned tree holds: each file with its kind, and the reason where one is not scanned."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

Kind = Literal[
    "python", "javascript", "typescript", "tsx", "go", "java", "ruby", "php", "c", "cpp", "csharp", "rust", "kotlin",
    "shell", "dockerfile", "workflow", "text", "binary",
]  # fmt: skip

HEAD_BYTES = 8192
SUFFIXES: dict[str, Kind] = {
    ".py": "python", ".pyi": "python", ".pyw": "python", ".pth": "text",
    ".js": "javascript", ".mjs": "javascript", ".cjs": "javascript", ".jsx": "javascript",
    ".ts": "typescript", ".mts": "typescript", ".cts": "typescript", ".tsx": "tsx",
    ".go": "go", ".java": "java", ".rb": "ruby", ".rake": "ruby", ".gemspec": "ruby", ".php": "php", ".phtml": "php",
    ".c": "c", ".h": "c", ".cc": "cpp", ".cpp": "cpp", ".cxx": "cpp", ".hpp": "cpp", ".hh": "cpp",
    ".cs": "csharp", ".rs": "rust", ".kt": "kotlin", ".kts": "kotlin",
    ".sh": "shell", ".bash": "shell", ".ksh": "shell", ".dash": "shell",
    ".dockerfile": "dockerfile", ".containerfile": "dockerfile",
}  # fmt: skip
INTERPRETERS: tuple[tuple[str, Kind], ...] = (
    (r"python[\d.]*$", "python"), (r"(ba|da|k|a)?sh$", "shell"), (r"(node|deno|bun)$", "javascript"),
    (r"ruby[\d.]*$", "ruby"), (r"php[\d.]*$", "php"),
)  # fmt: skip


@dataclass(frozen=True)
class File:
    """One regular file: its name as people see it, and where its bytes lie now."""

    path: str  # relative, escaped; a member of an archive within: `inner.zip!/name`
    place: Path
    size: int  # bytes
    kind: Kind = "text"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    def text(self) -> str:
        """The content. Bytes that are no text become replacement characters: a scanner must not fail on them."""
        return decode(self.place.read_bytes())


def decode(content: bytes) -> str:
    """Text of any of the encodings that compilers and editors read without being asked."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    return content.decode("utf-8-sig", "replace")


def kind_of(path: str, head: bytes) -> Kind:
    """What a file is, by its name, its first line and its first bytes."""
    pure = PurePosixPath(path)
    name = pure.name.lower()
    if name in ("dockerfile", "containerfile") or (
        name.startswith(("dockerfile.", "containerfile.")) and pure.suffix.lower() not in SUFFIXES
    ):
        return "dockerfile"
    if pure.suffix in (".yml", ".yaml") and (
        pure.parts[-3:-1] == (".github", "workflows") or name in ("action.yml", "action.yaml")
    ):
        return "workflow"
    if pure.suffix.lower() in SUFFIXES:  # before any look at NUL bytes: interpreters run scripts that hold some
        return SUFFIXES[pure.suffix.lower()]
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "binary"
    shebang = re.match(rb"#!\s*(\S+)(?:[ \t]+(?:-\S+[ \t]+)*(\S+))?", head)
    if shebang:
        program, argument = (PurePosixPath((each or b"").decode("utf-8", "replace")).name for each in shebang.groups())
        wanted = argument if program == "env" else program
        return next((kind for pattern, kind in INTERPRETERS if re.match(pattern, wanted)), "text")
    return "text"
