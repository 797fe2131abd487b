"""What the members of one archive do by their names alone: escape, clash, mislead. And the list of such faults."""

import unicodedata
from dataclasses import dataclass, field
from typing import NamedTuple

from periphery.mcnamara.findings import Hit, Level

DEPTH = 64  # parts of a path
NAME_BYTES = 255  # of one part
INVISIBLE = frozenset("\u200b\u200c\u200d\u2060\ufeff\u00ad")
TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
HIDING = INVISIBLE | TURNING
FIX = "Do not unpack this archive with ordinary tools; ask its publisher for a clean one."


class Fault(NamedTuple):
    """One way in which an archive can be made to harm."""

    severity: Level
    cwe: str
    message: str


FAULTS = {
    "absolute": Fault("critical", "CWE-22", "The member's name is absolute: unpacking may write anywhere."),
    "after-end": Fault("high", "CWE-436", "Data follows the archive's end: tools that read on see other members."),
    "backslash": Fault("high", "CWE-22", "A backslash is a separator on one system and a letter on another."),
    "bidi-name": Fault("high", "CWE-1007", "The name holds invisible or turning characters: it reads as another."),
    "bomb": Fault("high", "CWE-409", "It unpacks to far more than it is"),
    "case-clash": Fault("high", "CWE-178", "Two names differ in case or composition alone: one overwrites the other"),
    "control-name": Fault("high", "CWE-150", "Control characters in the name: they break lines or drive a terminal."),
    "count-lie": Fault("high", "CWE-436", "The directory lists another number of members than it promises"),
    "damaged": Fault("high", "CWE-20", "It cannot be read to its end"),
    "device": Fault("critical", "CWE-66", "The member is a device or FIFO; packages hold none."),
    "duplicate": Fault("high", "CWE-694", "Two members have this name; tools differ in which one they take."),
    "encrypted": Fault("high", "CWE-311", "The member is encrypted: nobody but its maker knows what it holds."),
    "escape": Fault("critical", "CWE-22", "The member's name climbs out of the directory it is unpacked to."),
    "header-bomb": Fault("high", "CWE-400", "An extended header is of unreasonable size"),
    "header-mismatch": Fault("high", "CWE-436", "Its own header contradicts the directory of the archive in"),
    "hidden-member": Fault("high", "CWE-436", "It holds a member that its directory does not list: some tools see it."),
    "link": Fault("critical", "CWE-59", "A link that leaves the archive"),
    "long-name": Fault("high", "CWE-400", "The name is longer or deeper than file systems take; tools disagree on it."),
    "nested": Fault("high", "CWE-409", "Archives are nested so deeply that this one was not opened."),
    "nul-name": Fault("high", "CWE-158", "A NUL within the name: some tools cut the name there."),
    "overlap": Fault("high", "CWE-409", "Two members share bytes of the file, as zip bombs do."),
    "prefix": Fault("high", "CWE-436", "Bytes lie before the archive: the file is something else, too"),
    "setuid": Fault("high", "CWE-250", "Whoever runs it gets its owner's rights (set-user-id or set-group-id)"),
    "size-lie": Fault("high", "CWE-130", "Two places give two sizes: tools lose step at this member."),
    "through-link": Fault("critical", "CWE-59", "It lies below a link of this archive: it is written where it leads."),
    "unknown-kind": Fault("high", "CWE-436", "A member of an unusual kind; tools treat it differently"),
}  # fmt: skip


class NotAnArchive(Exception):
    """The file is of no kind that is opened here, or is damaged before its first member."""


class Damaged(Exception):
    """An archive or a member cannot be read; the message says how."""


@dataclass
class Opened:
    """What came of opening one archive and what lay within it."""

    hits: list[Hit] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)  # path and reason: links, other kinds
    unread: list[tuple[str, str]] = field(default_factory=list)  # path and reason: damaged, encrypted, over a cap


def fault(rule: str, shown: str, detail: str = "") -> Hit:
    """The finding for one of `FAULTS`; `shown` is the escaped name of what has it."""
    severity, cwe, message = FAULTS[rule]
    return Hit(
        rule=f"archive-{rule}",
        severity=severity,
        path=shown,
        line=0,
        message=f"{message}: {detail}." if detail else message,
        fix=FIX,
        cwe=cwe,
        confidence="high",
        scanner="archive",
        distinct=True,
    )


class Names:
    """The names of one archive's members, looked at one after the other."""

    def __init__(self, prefix: str, opened: Opened) -> None:
        self._prefix = prefix
        self._opened = opened
        self._exact: set[str] = set()
        self._folded: dict[str, str] = {}
        self._links: set[str] = set()

    def shown(self, name: str) -> str:
        """How people see the member: escaped, with the archives it lies in."""
        return self._prefix + escaped(name)

    @property
    def whole(self) -> str:
        """How people see the archive itself."""
        return self._prefix.removesuffix("!/") or "(the archive)"

    def report(self, rule: str, name: str, detail: str = "") -> None:
        """Adds a finding about a member; an empty name stands for the archive."""
        self._opened.hits.append(fault(rule, self.shown(name) if name else self.whole, detail))

    def skip(self, name: str, reason: str) -> None:
        """A member without content that could be scanned."""
        self._opened.skipped.append((self.shown(name), reason))

    def leave(self, name: str, reason: str) -> None:
        """A member, or with an empty name the rest of the archive, that could not be read."""
        self._opened.unread.append((self.shown(name) if name else self.whole, reason))

    def enter(self, name: str, *, link: str | None = None) -> None:
        """Looks at one member's name, and at where it points if it is a link."""
        plain = name.removesuffix("/")
        parts = plain.replace("\\", "/").split("/")
        if ".." in parts:
            self.report("escape", name)
        elif name.startswith(("/", "\\")) or (name[1:2] == ":" and name[0].isalpha()):
            self.report("absolute", name)
        elif "\\" in name:
            self.report("backslash", name)
        if any(unicodedata.category(each) in ("Cc", "Zl", "Zp", "Cs") for each in name):
            self.report("control-name", name)
        if any(each in HIDING for each in name):
            self.report("bidi-name", name)
        if len(parts) > DEPTH or any(len(each.encode("utf-8", "surrogateescape")) > NAME_BYTES for each in parts):
            self.report("long-name", name)
        self._clashes(name, plain, parts)
        if link is not None:
            self._link(name, plain, link)

    def _clashes(self, name: str, plain: str, parts: list[str]) -> None:
        folded = unicodedata.normalize("NFC", plain).casefold()
        if plain in self._exact:
            if not name.endswith("/"):
                self.report("duplicate", name)
        elif folded in self._folded:
            self.report("case-clash", name, f"the other is '{escaped(self._folded[folded])}'")
        self._exact.add(plain)
        self._folded.setdefault(folded, plain)
        if any("/".join(parts[:depth]) in self._links for depth in range(1, len(parts))):
            self.report("through-link", name)

    def _link(self, name: str, plain: str, target: str) -> None:
        self._links.add(plain)
        depth = plain.count("/")
        leaves = target.startswith(("/", "\\"))
        for part in target.replace("\\", "/").split("/"):
            depth += -1 if part == ".." else 0 if part in ("", ".") else 1
            leaves = leaves or depth < 0
        if leaves:
            self.report("link", name, f"to '{escaped(target)}'")
        self.skip(name, f"a link to '{escaped(target)}'; its target is scanned under its own name")


def escaped(name: str, limit: int = 300) -> str:
    """`name` as one line of printable characters."""
    shown = "".join(_plain(each) for each in name)
    return shown if len(shown) <= limit else f"{shown[: limit // 2]}…{shown[-limit // 2 :]}"


def _plain(character: str) -> str:
    if character.isprintable() and character != "\\" and character not in HIDING:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
