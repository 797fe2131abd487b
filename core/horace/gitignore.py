"""What git would ignore: the patterns of `.gitignore` and `info/exclude`, matched as git matches them.

Why not a library: the ones there are turn a pattern into a regular expression that backtracks, and this matcher reads
patterns from repositories that may be hostile, outside any sandbox. Here a part of a path is matched in time linear
in its length for each star (each piece between two stars is taken where it first fits, and never tried again), and
`**` is resolved over whole parts. Names are bytes, as they are for git: `?` is one byte.

Three habits of git that its manual does not tell are kept, since `git ls-files` is the measure (the tests ask it): the
text before the first wildcard is compared first and cut off, so that in `/abc**/d` the `**` stands at the start; a
character class that is never closed matches nothing; and `**` before an escaped slash takes one part at least.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

FILE_BYTES = 1024 * 1024  # what is read of one file of patterns
LINE_BYTES = 4096  # of a pattern that is heeded
WILDCARDS = 2000  # patterns with wildcards that are heeded in one file: each costs a comparison per name
SPECIAL = b"*?[\\"
MISSING = b"(?!)"  # matches nothing

Part = re.Pattern[bytes] | int  # one part of a path, or `**`: so many parts or more

CLASSES: dict[bytes, Callable[[int], bool]] = {
    b"alnum": lambda c: chr(c).isalnum(),
    b"alpha": lambda c: chr(c).isalpha(),
    b"blank": lambda c: c in b" \t",
    b"cntrl": lambda c: c < 32 or c == 127,
    b"digit": lambda c: chr(c).isdigit(),
    b"graph": lambda c: 32 < c < 127,
    b"lower": lambda c: chr(c).islower(),
    b"print": lambda c: 32 <= c < 127,
    b"punct": lambda c: 32 < c < 127 and not chr(c).isalnum(),
    b"space": lambda c: c in b" \t\n\v\f\r",
    b"upper": lambda c: chr(c).isupper(),
    b"xdigit": lambda c: c in b"0123456789abcdefABCDEF",
}


@dataclass(frozen=True)
class Pattern:
    """One line: what it matches, below the directory whose file it stands in."""

    negative: bool  # takes a name back in
    directories_only: bool
    literal: bytes  # what the name must start with, or be
    parts: tuple[Part, ...]  # the rest
    anywhere: bool  # no slash in it: compared with the last part of the path alone

    def matches(self, path: bytes, is_directory: bool) -> bool:
        """Whether `path`, relative to the directory of the pattern's file, is meant."""
        if self.directories_only and not is_directory:
            return False
        text = path[path.rfind(b"/") + 1 :] if self.anywhere else path
        if not text.startswith(self.literal):
            return False
        if not self.parts:
            return len(text) == len(self.literal)
        return _match(self.parts, text[len(self.literal) :].split(b"/"))


class Patterns:
    """The lines of one file, indexed so that the many that are plain names cost one look-up.

    `unheeded` counts the lines that were too long or too many: what only they would hide is taken.
    """

    def __init__(self, content: bytes) -> None:
        self._names: dict[bytes, list[tuple[int, Pattern]]] = {}
        self._endings: dict[bytes, list[tuple[int, Pattern]]] = {}
        self._others: list[tuple[int, Pattern]] = []
        self.unheeded = 0
        for place, line in enumerate(lines_of(content)):
            if len(line) > LINE_BYTES or len(self._others) == WILDCARDS:
                self.unheeded += 1
                continue
            pattern = parse(line)
            if pattern is None:
                continue
            if pattern.anywhere and not pattern.parts:
                self._names.setdefault(pattern.literal, []).append((place, pattern))
            elif pattern.anywhere and (ending := re.fullmatch(rb"\*(\.[^.*?\[\\]+)", line.strip(b"!/"))):
                self._endings.setdefault(ending[1], []).append((place, pattern))
            else:
                self._others.append((place, pattern))
        self._others.reverse()

    def says(self, path: bytes, is_directory: bool) -> bool | None:
        """Whether the last line that matches ignores `path` (True) or takes it back in (False); None: no line does."""
        base = path[path.rfind(b"/") + 1 :]
        best: tuple[int, Pattern] | None = None
        for found in (
            self._names.get(base, ()),
            self._endings.get(base[base.rfind(b".") :] if b"." in base else b"", ()),
        ):
            for each in found:
                if (best is None or each[0] > best[0]) and each[1].matches(path, is_directory):
                    best = each
        for each in self._others:
            if best is not None and each[0] < best[0]:
                break
            if each[1].matches(path, is_directory):
                best = each
                break
        return None if best is None else not best[1].negative


def ignored(levels: Iterable[tuple[int, Patterns]], path: bytes, is_directory: bool) -> bool:
    """Whether `path` is ignored. `levels` are the files that count for it, the strongest first, each with the length
    of its directory's path (with the slash): patterns see what lies below their own file."""
    for start, patterns in levels:
        said = patterns.says(path[start:], is_directory)
        if said is not None:
            return said
    return False


def lines_of(content: bytes) -> list[bytes]:
    """The patterns in a file's content: no comments, no line ends, no trailing spaces but escaped ones."""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    found = []
    for position, line in enumerate(lines):
        if position < len(lines) - 1:
            line = line.removesuffix(b"\r")
        line = _trimmed(line.split(b"\0")[0])
        if line and not line.startswith(b"#"):
            found.append(line)
    return found


def _trimmed(line: bytes) -> bytes:
    end = position = 0
    while position < len(line):
        if line[position : position + 1] == b"\\":
            position += 2
            end = min(position, len(line))
        else:
            position += 1
            if line[position - 1 : position] != b" ":
                end = position
    return line[:end]


def parse(line: bytes) -> Pattern | None:
    """One line as a pattern; None where there is nothing to match."""
    negative = line.startswith(b"!")
    text = line[1:] if negative else line
    directories_only = text.endswith(b"/")
    if directories_only:
        text = text[:-1]
    anywhere = b"/" not in text
    text = text.removeprefix(b"/")
    if not text:
        return None
    plain = next((place for place, each in enumerate(text) if each in SPECIAL), len(text))
    rest = text[plain:]
    parts = tuple(_split(rest)) if rest else ()
    return Pattern(negative, directories_only, text[:plain], parts, anywhere)


def _split(text: bytes) -> Iterator[Part]:
    """The parts of a pattern."""
    part: list[bytes | None] = []  # expressions for one byte each; None is a star
    position = 0
    while position < len(text):
        each = text[position : position + 1]
        position += 1
        escape = each == b"\\"
        if escape:
            each = text[position : position + 1]
            position += 1
        if each == b"/":
            yield _compile(part, least=int(escape))
            part = []
        elif escape:
            part.append(re.escape(each) if each else MISSING)
        elif each == b"*":
            part.append(None)
        elif each == b"?":
            part.append(b".")
        elif each == b"[":
            expression, position = _character_class(text, position)
            part.append(expression)
        else:
            part.append(re.escape(each))
    yield _compile(part, least=1)  # `a/**` is what lies below, not `a` itself


def _compile(tokens: Sequence[bytes | None], least: int) -> Part:
    if len(tokens) >= 2 and all(token is None for token in tokens):
        return least
    pieces: list[list[bytes]] = [[]]
    for token in tokens:
        if token is None:
            pieces.append([])
        else:
            pieces[-1].append(token)
    joined = [b"".join(each) for each in pieces]
    if len(joined) == 1:
        return re.compile(joined[0], re.DOTALL)
    middle = b"".join(b"(?>.*?" + each + b")" for each in joined[1:-1] if each)
    return re.compile(joined[0] + middle + b".*" + joined[-1], re.DOTALL)


def _character_class(text: bytes, position: int) -> tuple[bytes, int]:
    """The class whose `[` ends at `position`, as a regular expression for one byte, and where the pattern goes on."""
    negated = text[position : position + 1] in (b"!", b"^") and position < len(text)
    position += negated
    found: set[int] = set()
    before = 0  # the byte that a range would start at
    first = True
    while first or text[position : position + 1] != b"]":
        first = False
        if position >= len(text):
            return MISSING, len(text)
        each = text[position]
        if each == ord("\\"):
            position += 1
            if position >= len(text):
                return MISSING, len(text)
            each = text[position]
            found.add(each)
        elif each == ord("-") and before and text[position + 1 : position + 2] not in (b"", b"]"):
            position += 1
            if text[position] == ord("\\"):
                position += 1
                if position >= len(text):
                    return MISSING, len(text)
            found.update(range(before, text[position] + 1))
            each = 0
        elif each == ord("[") and text[position + 1 : position + 2] == b":":
            end = text.find(b"]", position + 2)
            if end < 0:
                return MISSING, len(text)
            name = text[position + 2 : end]
            if name.endswith(b":"):
                if name[:-1] not in CLASSES:
                    return MISSING, len(text)
                found.update(code for code in range(1, 128) if CLASSES[name[:-1]](code))
                position, each = end, 0
            else:
                found.add(each)
        else:
            found.add(each)
        before = each
        position += 1
    if negated:
        found = set(range(256)) - found
    found.discard(ord("/"))
    expression = b"[" + b"".join(b"\\x%02x" % each for each in sorted(found)) + b"]" if found else MISSING
    return expression, position + 1


def _match(parts: Sequence[Part], names: Sequence[bytes]) -> bool:
    """Whether the parts of a pattern cover all the names of a path."""
    reached = {0}  # how many names may be covered by the parts so far
    for part in parts:
        if isinstance(part, int):
            reached = set(range(min(reached) + part, len(names) + 1))
        else:
            reached = {each + 1 for each in reached if each < len(names) and part.fullmatch(names[each])}
        if not reached:
            return False
    return len(names) in reached
