"""Which files of a directory go into the lab.

Rules of the file
  1. No program is run in the directory, git least of all: its configuration names programs to run. What git would list
     (`ls-files --cached --others --exclude-standard`) is read from the index and the ignore files, as data.
  2. Every name comes from walking real directories with descriptors, never through a link. The index and the ignore
     files only decide which of the names count, so nothing they say can reach outside.
  3. `.git` counts as a repository only where it, or what its pointer names, lies within the directory itself. A work
     tree whose `.git` file points elsewhere is taken whole, and the person is told.
  4. A repository within a repository (a submodule, or a clone that lies there) is listed by its own index and ignore
     files; `git ls-files` would stop at its door, and a scan must not.

The person's own `core.excludesFile` is not read: it says what to hide from their commits, not from a scan.
Taken in case of doubt: everything. What is left out is always said.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from core.horace.gitignore import FILE_BYTES, Patterns, ignored
from core.horace.gitindex import INDEX_BYTES, IndexUnreadable, Tracked, parse_index
from protos.errors import InvalidArgument
from protos.tree import FLAGS, Caps, Census, Descent, Kind, TreeRefused, entries, escaped, open_root, pack, parts_of

IGNORE_BYTES = 16 * 1024 * 1024  # of all ignore files together
POINTER_BYTES = 4096  # of a `.git` file
HISTORY = ("HEAD", "packed-refs", "shallow", "refs", "objects")  # what a reader of the history needs
EMPTY = "name a directory with files, or look at what its ignore files hide"
NO_HISTORY = (".git/objects/info",)  # alternates lead elsewhere; the rest of it only makes git faster

Levels = tuple[tuple[int, Patterns], ...]  # ignore files, the strongest first, and where their directory's names begin


@dataclass(frozen=True)
class Snapshot:
    """The names to take, below `root`, and what the person should know about the choice."""

    root: Path
    kind: Literal["git", "plain"]
    names: list[str]
    files: int  # and links; without the history
    size: int  # bytes in them
    history: bool  # whether the git history is among the names
    notes: list[str] = field(default_factory=list)

    def pack(self, caps: Caps | None = None, *, note: Callable[[str], None] = lambda sentence: None) -> Iterator[bytes]:
        """The snapshot as one packed tree; see `protos.tree.pack`."""
        return pack(self.root, self.names, caps, note=note)


def take(path: Path, caps: Caps | None = None, *, history: bool = False) -> Snapshot:
    """Lists what of `path` goes in: of a git repository what is tracked or not ignored, else everything.

    With `history`, the objects and refs of the repository come along below `.git`, without its configuration and its
    hooks; where they do not fit into the caps they are left out, and that is noted.

    Raises:
        NotFound: there is no such path.
        InvalidArgument: it is no directory, it holds no file, or something in it cannot be read.
        TreeRefused: the tree breaks a rule or a cap.
    """
    with closing(Descent(open_root(path))) as descent:
        listing = _Listing(path, descent, caps or Caps())
        repository = listing.top()
        files, size = listing.census.files + listing.census.links, listing.census.bytes
        if not files:
            raise InvalidArgument(f"'{escaped(str(path))}' holds no file to take", next=EMPTY)
        with_history = bool(history and repository and listing.add_history(repository))
    kind: Literal["git", "plain"] = "git" if repository else "plain"
    return Snapshot(path, kind, listing.names, files, size, with_history, listing.notes)


class _Unusable(Exception):
    """There is a repository, but not one that can be listed; the message says why, with `.git` as the subject."""


@dataclass(frozen=True)
class _Repository:
    """A repository whose files can be listed. Paths are bytes and relative to its work tree."""

    git: list[str]  # the parts of the directory that holds its index, from the snapshot's root
    tracked: Tracked
    exclude: Patterns


class _Listing:
    """One walk over a directory, gathering names."""

    def __init__(self, root: Path, descent: Descent, caps: Caps) -> None:
        self.root = root
        self.descent = descent
        self.caps = caps
        self.census = Census(caps)
        self.names: list[str] = []
        self.notes: list[str] = []
        self._ignore_bytes = IGNORE_BYTES

    def top(self) -> _Repository | None:
        """Lists the whole directory; returns the repository that it is, if it is one."""
        try:
            repository = self._repository([])
        except _Unusable as error:
            self._whole([], error)
            return None
        if repository:
            self._list_repository([], repository)
        else:
            self._everything([])
        return repository

    def add_history(self, repository: _Repository) -> bool:
        """Takes the objects and refs of a repository, if they are its own and fit; says so if not."""
        if repository.git != [".git"]:
            self.notes.append("the git history is left out: '.git' is a pointer to another directory")
            return False
        taken = len(self.names)
        try:
            for entry, status in entries(self.descent, [".git"], self.caps):
                if entry in HISTORY:
                    self._everything([".git", entry], status, history=True)
        except TreeRefused as error:
            del self.names[taken:]
            self.notes.append(f"the git history is left out: {error.message}")
            return False
        return True

    def _take(self, name: str, status: os.stat_result) -> None:
        kind: Kind = "link"
        if stat.S_ISDIR(status.st_mode):
            kind = "directory"
        elif not stat.S_ISLNK(status.st_mode):
            kind = "file"  # or a device, which `pack` refuses
        self.census.enter(name, kind, status.st_size if stat.S_ISREG(status.st_mode) else 0)
        self.names.append(name)

    def _everything(self, parts: list[str], status: os.stat_result | None = None, *, history: bool = False) -> None:
        """Takes a directory (the root without a `status`) or a file, and whatever lies below."""
        name = "/".join(parts)
        if history and name in NO_HISTORY:
            return
        if status is not None:
            if history and not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                raise TreeRefused(name, "a history is made of files", "a link or a device")
            self._take(name, status)
        if status is None or stat.S_ISDIR(status.st_mode):
            for entry, inner in entries(self.descent, parts, self.caps):
                self._everything([*parts, entry], inner, history=history)

    def _whole(self, parts: list[str], reason: _Unusable) -> None:
        """Takes everything below a directory whose repository cannot be listed, but the repository."""
        name = escaped("/".join(parts) or str(self.root))
        self.notes.append(f"'{name}' is taken whole, with what git would ignore: {reason}")
        for entry, status in entries(self.descent, parts, self.caps):
            if entry != ".git":
                self._everything([*parts, entry], status)

    def _list_repository(self, parts: list[str], repository: _Repository) -> None:
        above = os.fsencode("/".join([*parts, ""]))
        self._list(parts, len(above), repository, ((len(above), repository.exclude),), hidden=False)

    def _list(self, parts: list[str], start: int, repository: _Repository, levels: Levels, *, hidden: bool) -> None:
        """Takes what git would list in one directory of a repository that begins `start` bytes into each path. In a
        `hidden` (ignored) directory only what is tracked counts."""
        found = entries(self.descent, parts, self.caps)
        if not hidden and any(entry == ".gitignore" for entry, _ in found):
            levels = (self._ignore_file(parts), *levels)
        for entry, status in found:
            if entry == ".git":
                continue
            below = [*parts, entry]
            name = "/".join(below)
            path = os.fsencode(name)
            is_directory = stat.S_ISDIR(status.st_mode)
            out = hidden or ignored(levels, path, is_directory)
            listed = not out or path[start:] in repository.tracked
            if is_directory and repository.tracked.below(path[start:]):
                self._list(below, start, repository, levels, hidden=out)
            elif listed and is_directory:
                parts_of(name, self.caps)  # too deep is refused before it is walked
                self._list_inner(below, start, repository, levels, hidden=out)
            elif listed:
                self._take(name, status)

    def _list_inner(
        self, parts: list[str], start: int, repository: _Repository, levels: Levels, *, hidden: bool
    ) -> None:
        """A directory that holds nothing tracked: it may be a repository of its own."""
        try:
            inner = self._repository(parts)
        except _Unusable as error:
            self._whole(parts, error)
            return
        if inner:
            self._list_repository(parts, inner)
        else:
            self._list(parts, start, repository, levels, hidden=hidden)

    def _ignore_file(self, parts: list[str]) -> tuple[int, Patterns]:
        content = self._read([*parts, ".gitignore"], min(FILE_BYTES, self._ignore_bytes))
        self._ignore_bytes -= len(content or b"")
        patterns = Patterns(content or b"")
        name = escaped("/".join([*parts, ".gitignore"]))
        if content is None:
            self.notes.append(f"'{name}' is a link or too much to read and is not heeded")
        elif patterns.unheeded:
            self.notes.append(f"lines of '{name}' that are too long or too many and not heeded: {patterns.unheeded:,}")
        return len(os.fsencode("/".join([*parts, ""]))), patterns

    def _repository(self, parts: list[str]) -> _Repository | None:
        """The repository whose work tree a directory is; None where there is none."""
        git = self._git_directory(parts)
        if git is None:
            return None
        found = Tracked()
        if self._status([*git, "index"]):
            content = self._read([*git, "index"], INDEX_BYTES)
            if content is None:
                raise _Unusable("the index in '.git' is no plain file, or too big")
            try:
                found = parse_index(content, self.caps)
            except IndexUnreadable as error:
                raise _Unusable(f"the index in '.git' cannot be used: {error}") from error
        common = self._pointed(git, self._read([*git, "commondir"], POINTER_BYTES) or b".") or git
        exclude = self._read([*common, "info", "exclude"], FILE_BYTES)
        return _Repository(git, found, Patterns(exclude or b""))

    def _git_directory(self, parts: list[str]) -> list[str] | None:
        status = self._status([*parts, ".git"])
        if status is None:
            return None
        if stat.S_ISDIR(status.st_mode):
            return [*parts, ".git"] if self._status([*parts, ".git", "HEAD"]) else None
        if stat.S_ISLNK(status.st_mode):
            raise _Unusable("'.git' is a link, which is not followed")
        content = self._read([*parts, ".git"], POINTER_BYTES) or b""
        if not content.startswith(b"gitdir: "):
            return None
        target = content[8:].rstrip(b"\r\n")
        git = self._pointed(parts, target)
        if git is None:
            raise _Unusable(f"'.git' points to '{escaped(os.fsdecode(target))}', outside this directory")
        if not self._status([*git, "HEAD"]):
            raise _Unusable(f"'.git' points to '{escaped(os.fsdecode(target))}', where no repository is")
        return git

    def _pointed(self, parts: list[str], target: bytes) -> list[str] | None:
        """Where a pointer that stands in a directory leads, as parts below the root; None if that is elsewhere."""
        root = os.path.abspath(self.root)
        found = os.path.relpath(os.path.join(root, *parts, os.fsdecode(target.rstrip(b"\r\n"))), root)
        below = found.split("/")
        return None if below[0] == ".." or "\0" in found else [each for each in below if each != "."]

    def _status(self, parts: list[str]) -> os.stat_result | None:
        """The status of what has this name, links not followed; None where there is nothing."""
        try:
            return os.stat(parts[-1], dir_fd=self.descent.to(parts[:-1]), follow_symlinks=False)
        except OSError:
            return None

    def _read(self, parts: list[str], limit: int) -> bytes | None:
        """A regular file's content; None where there is none, or a bigger one, or a link on the way."""
        try:
            opened = os.open(parts[-1], FLAGS, dir_fd=self.descent.to(parts[:-1]))
        except OSError:
            return None
        with os.fdopen(opened, "rb") as file:
            status = os.fstat(opened)
            return file.read(limit) if stat.S_ISREG(status.st_mode) and status.st_size <= limit else None
