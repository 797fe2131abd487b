"""What a model does to files: read, search, edit, write, remove. Each answers in words that help it to go on.

A file is text as its bytes are: what is no UTF-8 is kept as it is, line ends too. Nothing here raises for what a model
asked wrongly but `InvalidArgument`, whose sentence and `next` are given back to it.
"""

import difflib
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from periphery.hopper.printable import printable, shortened
from periphery.hopper.shell import Shell
from periphery.hopper.workspace import CACHES, CAPS, inside
from protos.errors import InvalidArgument
from protos.tree import escaped, parts_of

READ_LINES = 400
READ_CHARACTERS = 24_000
LINE_CHARACTERS = 500
FILE_BYTES = 8 * 2**20
FOUND_LINES = 100
SEARCH_S = 20.0
LISTED = 300


@dataclass(frozen=True)
class Edited:
    """What a change did."""

    path: str  # relative to the root
    said: str  # to the model
    added: int = 0  # lines
    removed: int = 0


def read(root: Path, path: str, first: int = 1, last: int = 0) -> str:
    """Lines of a file with their numbers, or what a directory holds.

    Raises:
        InvalidArgument: there is no such file, or it is no text.
    """
    place = inside(root, path)
    if place.is_dir():
        return _listing(place)
    text = _text(place, path)
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    first, last = max(int(first), 1), int(last)
    if first > max(len(lines), 1):
        raise InvalidArgument(f"{path} has {len(lines)} lines.", next="Ask for lines that it has.")
    last = min(last or first + READ_LINES - 1, len(lines), first + READ_LINES - 1)
    shown, room = [], READ_CHARACTERS
    for number, line in enumerate(lines[first - 1 : last], first):
        line = f"{number:>5}\t{_line(line)}"
        room -= len(line) + 1
        if room < 0:
            last = number - 1
            break
        shown.append(line)
    told = f"{_relative(root, place)}, lines {first}-{last} of {len(lines)}" if lines else f"{path} is empty"
    return "\n".join([told, *shown])


async def search(shell: Shell, pattern: str, path: str = ".") -> str:
    """Lines that match a regular expression, with file and line number.

    Raises:
        InvalidArgument: the pattern is none, or the path is not there.
    """
    place = inside(shell.root, path)
    if not place.exists():
        raise InvalidArgument(f"There is no {path}.", next=_nearest(shell.root, path))
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise InvalidArgument(
            f"'{pattern}' is no regular expression: {error}.", next="Escape what is meant literally."
        ) from None
    below = place.relative_to(shell.root.resolve()).as_posix()
    if shutil.which("rg"):
        words = [
            "rg",
            "--line-number",
            "--no-heading",
            "--with-filename",
            "--color=never",
            "--hidden",
            "--no-require-git",
        ]
        words += ["--glob=!.git", f"--max-columns={LINE_CHARACTERS}", "--max-columns-preview", "--sort=path"]
        ran = await shell.run([*words, "--regexp", pattern, "--", below], seconds=SEARCH_S, listed=False)
        if ran.exit_code in (0, 1):
            return _found([each.removeprefix("./") for each in ran.output.splitlines()], pattern)
    return _found(list(_matches(shell.root.resolve(), place, wanted)), pattern)


def edit(root: Path, path: str, old: str, new: str) -> Edited:
    """Replaces the one place where `old` stands.

    Raises:
        InvalidArgument: it stands nowhere, or in several places.
    """
    place = inside(root, path)
    if not old:
        raise InvalidArgument("`old` is empty.", next="Use `write` to make a file, or give the text to be replaced.")
    if old == new:
        raise InvalidArgument("`old` and `new` are the same.", next="Give the text as it shall be in `new`.")
    text = _text(place, path)
    if "\r\n" in text and "\r\n" not in old:
        old, new = old.replace("\n", "\r\n"), new.replace("\n", "\r\n")
    times = text.count(old)
    if times == 0:
        raise InvalidArgument(f"`old` does not stand in {path}.", next=_hint(text, old))
    if times > 1:
        lines = [str(text.count("\n", 0, at) + 1) for at in _places(text, old)]
        raise InvalidArgument(
            f"`old` stands {times} times in {path}: at lines {', '.join(lines[:10])}.",
            next="Give more of the lines around it, so that it is one place.",
        )
    return _save(root, place, text, text.replace(old, new, 1))


def write(root: Path, path: str, content: str) -> Edited:
    """Writes a file as a whole, with the directories above it.

    Raises:
        InvalidArgument: there is a directory, or a file where a directory is needed, or the name is none for a tree.
    """
    place = inside(root, path)
    if place.is_dir():
        raise InvalidArgument(f"{path} is a directory.", next="Give the path of a file.")
    parts_of(_relative(root, place), CAPS)  # what could not be handed over need not be written
    before = _text(place, path) if place.exists() else ""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InvalidArgument(f"A part of {path} is a file.", next="Choose another path.") from None
    return _save(root, place, before, content)


def remove(root: Path, path: str) -> Edited:
    """Removes a file, a link or an empty directory.

    Raises:
        InvalidArgument: it is not there, or a directory with something in it.
    """
    named = root.resolve() / path
    place = inside(root, str(named.parent)) / named.name if named.is_symlink() else inside(root, path)
    if place == root.resolve():
        raise InvalidArgument("That is the repository itself.", next="Name what is in it.")
    if place.is_dir() and not place.is_symlink():
        try:
            place.rmdir()
        except OSError:
            raise InvalidArgument(f"{path} is not empty.", next="Remove its files first, or run `rm -r`.") from None
        return Edited(_relative(root, place), f"Removed the empty directory {path}.")
    if not place.exists() and not place.is_symlink():
        raise InvalidArgument(f"There is no {path}.", next=_nearest(root, path))
    removed = 0 if place.is_symlink() else place.read_bytes().count(b"\n")
    place.unlink()
    return Edited(_relative(root, place), f"Removed {path}.", 0, removed)


def _save(root: Path, place: Path, before: str, after: str) -> Edited:
    try:
        place.write_bytes(after.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise InvalidArgument("The text holds half a character.", next="Write it again.") from None
    added, removed = _counted(before, after)
    name = _relative(root, place)
    return Edited(name, f"Wrote {name}: {added} lines added, {removed} removed.", added, removed)


def _counted(before: str, after: str) -> tuple[int, int]:
    """Lines added and removed, by what is left between the common start and end: cheap, and right for one place."""
    old, new = before.splitlines(), after.splitlines()
    while old and new and old[-1] == new[-1]:
        old.pop()
        new.pop()
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    old, new = old[start:], new[start:]
    if max(len(old), len(new)) > 2000:
        return len(new), len(old)
    same = sum(each.size for each in difflib.SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks())
    return len(new) - same, len(old) - same


def _text(place: Path, path: str) -> str:
    try:
        if not place.is_file():
            raise InvalidArgument(f"There is no file {path}.", next=_nearest_of(place))
        if place.stat().st_size > FILE_BYTES:
            raise InvalidArgument(f"{path} is over {FILE_BYTES // 2**20} MiB.", next="Use `run` with sed or grep.")
        content = place.read_bytes()
    except PermissionError:
        raise InvalidArgument(f"{path} cannot be read.", next="Leave it alone.") from None
    if b"\0" in content[:8192]:
        raise InvalidArgument(f"{path} is no text: {len(content):,} bytes.", next="Use `run` to look into it.")
    return content.decode("utf-8", "surrogateescape")


def _listing(place: Path) -> str:
    names = sorted(each.name + ("/" if each.is_dir() else "") for each in place.iterdir() if each.name != ".git")
    more = f"\n… and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return "\n".join(escaped(each) for each in names[:LISTED]) + more if names else "The directory is empty."


def _line(line: str) -> str:
    line = printable(line)
    return line if len(line) <= LINE_CHARACTERS else f"{line[:LINE_CHARACTERS]} [… {len(line):,} characters]"


def _relative(root: Path, place: Path) -> str:
    return place.relative_to(root.resolve()).as_posix()


def _matches(root: Path, place: Path, wanted: re.Pattern[str]) -> Iterator[str]:
    until = time.monotonic() + SEARCH_S
    waiting = [place]
    while waiting and time.monotonic() < until:
        each = waiting.pop()
        if each.is_symlink():
            continue
        if each.is_dir():
            if each.name not in CACHES and each.name != ".git":
                waiting.extend(sorted(each.iterdir(), reverse=True))
            continue
        try:
            text = _text(each, each.name)
        except (InvalidArgument, OSError):
            continue
        for number, line in enumerate(text.split("\n"), 1):
            if wanted.search(line[:10_000]):
                yield f"{_relative(root, each)}:{number}:{_line(line)}"


def _found(lines: list[str], pattern: str) -> str:
    if not lines:
        return f"Nothing matches {pattern}."
    more = f"\n… and {len(lines) - FOUND_LINES} more lines; search for less" if len(lines) > FOUND_LINES else ""
    return shortened("\n".join(lines[:FOUND_LINES]), READ_CHARACTERS) + more


def _places(text: str, old: str) -> Iterator[int]:
    at = text.find(old)
    while at >= 0:
        yield at
        at = text.find(old, at + 1)


def _hint(text: str, old: str) -> str:
    """What stands there instead, as near as it can be told."""
    squeezed = " ".join(old.split())
    lines = text.split("\n")
    wanted = [" ".join(each.split()) for each in old.strip("\n").split("\n")]
    for start in range(len(lines) - len(wanted) + 1):
        if [" ".join(each.split()) for each in lines[start : start + len(wanted)]] == wanted:
            exact = "\n".join(lines[start : start + len(wanted)])
            return f"Only the white space differs. At line {start + 1} it reads exactly:\n{exact}"
    if re.match(r"\s*\d+\t", old):
        return "The line numbers and the tab that `read` shows are not part of the file: leave them out."
    first = next((each for each in wanted if len(each) > 3), squeezed[:80])
    near = difflib.get_close_matches(first, [" ".join(each.split()) for each in lines[:20_000]], n=1, cutoff=0.5)
    if near:
        at = next(number for number, each in enumerate(lines) if " ".join(each.split()) == near[0])
        around = "\n".join(lines[max(at - 1, 0) : at + len(wanted) + 1])
        return f"The nearest is at line {at + 1}, which reads:\n{shortened(around, 1500)}"
    return "Nothing like it is there: read the file again, it may have changed."


def _nearest(root: Path, path: str) -> str:
    return _nearest_of(root.resolve() / path)


def _nearest_of(place: Path) -> str:
    folder = place.parent
    if not folder.is_dir():
        return "The directory does not exist either: look with `read` at one that does."
    near = difflib.get_close_matches(place.name, [each.name for each in folder.iterdir()], n=3, cutoff=0.5)
    return f"Did you mean {', '.join(near)}?" if near else "Look with `read` at the directory, or `search`."
