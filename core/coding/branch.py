"""The change of a run made into one commit on top of a repository's HEAD, or the files where it does not fit.

The run began with a snapshot, which may hold what was not committed, and HEAD may have moved since. So each file is
set against the one at HEAD: where that is what the run began with, the run's version is taken; where both have changed,
the texts are merged by lines; what cannot be merged is a conflict, and then nothing at all is written. What the work
tree holds is never looked at. The commit is a function of HEAD and the run: applying a run twice is applying it once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from core.coding.changes import Changes, Pair, Side
from core.coding.merge import Conflict, merge_text
from core.coding.objects import EXECUTABLE, FILE, GITLINK, LINK, TREE, Entry, commit, identify, tree
from core.coding.patch import is_binary
from core.coding.repository import Objects, Repository
from protos.treerules import escaped

LFS = b"version https://git-lfs.github.com/spec/"
TEXT_BYTES = 16 * 1024**2  # of a version that is merged


@dataclass
class Planned:
    """What a branch will hold: the files that differ from HEAD's, or what keeps it from being made."""

    head: str  # the commit
    tree: str  # and its tree
    files: dict[str, tuple[int, bytes] | None] = field(default_factory=dict)  # mode and content; None where it goes
    merged: list[str] = field(default_factory=list)  # files that had changed at HEAD, too
    converted: list[str] = field(default_factory=list)  # files whose line ends the repository keeps differently
    conflicts: list[Conflict] = field(default_factory=list)


def plan(changes: Changes, head: str, objects: Objects, below: str = "") -> Planned:
    """Sets each changed file against HEAD. `below` is the directory that the changes belong in, empty for the top.

    Raises:
        Conflict: the repository cannot be read.
    """
    at_head = _AtHead(objects, objects.commit_tree(head))
    planned = Planned(head, at_head.root)
    for pair in changes.pairs.values():
        path = f"{below}/{pair.path}" if below else pair.path
        _Fitting(changes, pair, path, at_head, planned).fit()
    _check_ways(planned, at_head)
    return planned


def write(planned: Planned, repository: Repository, objects: Objects, who: str, at: int, message: str) -> str:
    """Stores the planned commit and returns its id. No ref is touched."""
    root = _Directory()
    for path, file in planned.files.items():
        *above, name = path.encode("utf-8", "surrogateescape").split(b"/")
        place = root
        for each in above:
            place = place.below.setdefault(each, _Directory())
        place.files[name] = None if file is None else Entry(file[0], name, repository.write("blob", file[1]))
    written = _written(root, planned.tree, repository, objects) or repository.write("tree", b"")
    return repository.write("commit", commit(written, planned.head, who, at, message))


@dataclass
class _Directory:
    """What changes in one directory."""

    files: dict[bytes, Entry | None] = field(default_factory=dict)
    below: dict[bytes, "_Directory"] = field(default_factory=dict)


def _written(directory: _Directory, old: str, repository: Repository, objects: Objects) -> str:
    """Stores a tree and those below it, and returns its id; empty where nothing is left in it."""
    entries = objects.tree(old) if old else {}
    for name, entry in directory.files.items():
        if entry is None:
            entries.pop(name, None)
    for name, below in directory.below.items():
        known = entries.pop(name, None)
        id = _written(below, known.id if known and known.mode == TREE else "", repository, objects)
        if id:
            entries[name] = Entry(TREE, name, id)
    entries |= {name: entry for name, entry in directory.files.items() if entry is not None}
    return repository.write("tree", tree(entries.values())) if entries else ""


class _AtHead:
    """The files of one commit, by path; trees are read when they are first needed."""

    def __init__(self, objects: Objects, root: str) -> None:
        self.objects, self.root = objects, root
        self._trees: dict[bytes, dict[bytes, Entry]] = {b"": objects.tree(root)}

    def entry(self, path: str) -> Entry | None:
        """What has this path."""
        above, _, name = path.encode("utf-8", "surrogateescape").rpartition(b"/")
        return self._tree(above).get(name)

    def _tree(self, path: bytes) -> dict[bytes, Entry]:
        if path not in self._trees:
            above, _, name = path.rpartition(b"/")
            entry = self._tree(above).get(name)
            self._trees[path] = self.objects.tree(entry.id) if entry and entry.mode == TREE else {}
        return self._trees[path]


@dataclass
class _Fitting:
    """One file on its way onto HEAD."""

    changes: Changes
    pair: Pair
    path: str
    at_head: _AtHead
    planned: Planned

    def fit(self) -> None:
        old, new, here = self.pair.old, self.pair.new, self.at_head.entry(self.path)
        if here is None:
            if old is None and new is not None:
                self._take(new.mode, self.changes.read(new))
            elif new is not None:
                self._refuse("is not in HEAD's commit: it was not committed when the run began, or was removed since")
        elif here.mode == GITLINK:
            self._refuse("is a submodule at HEAD, which is another repository")
        elif here.mode == TREE:
            if new is not None and not self._emptied(here):
                self._refuse("is a directory at HEAD")
            elif new is not None:
                self._take(new.mode, self.changes.read(new))
        elif new is not None and here.id == new.id and _kind(here.mode) == _kind(new.mode):
            self._take(self._mode(here), self.changes.read(new))
        elif old is None:
            self._refuse("is there at HEAD already, with other content")
        else:
            self._replace(old, new, here)

    def _replace(self, old: Side, new: Side | None, here: Entry) -> None:
        """HEAD has a version, and the run began with one."""
        if here.id == old.id and _kind(here.mode) == _kind(old.mode):
            if new is None:
                self.planned.files[self.path] = None
            else:
                self._take(self._mode(here), self.changes.read(new))
            return
        there = self.at_head.objects.blob(here.id, TEXT_BYTES)
        if there is None:
            self._refuse("was changed at HEAD since the run began, and is too big to be merged")
        elif there.startswith(LFS):
            self._refuse("is kept by git-lfs, which a patch cannot reach")
        elif LINK in (here.mode, old.mode, new.mode if new else 0) or not old.kept or (new and not new.kept):
            self._refuse("was changed at HEAD since the run began" if here.mode != LINK else "is a link at HEAD")
        else:
            self._merge(there, self.changes.read(old), new, here)

    def _merge(self, there: bytes, before: bytes, new: Side | None, here: Entry) -> None:
        """The file at HEAD is not what the run began with."""
        after = self.changes.read(new)
        if b"\r\n" in before and b"\r\n" not in there and not is_binary(before):
            before, after = before.replace(b"\r\n", b"\n"), after.replace(b"\r\n", b"\n")
            self.planned.converted.append(self.path)
        if before == there:
            if new is None:
                self.planned.files[self.path] = None
            else:
                self._take(self._mode(here), after)
        elif new is None:
            self._refuse("was changed at HEAD, or was not committed, and the run deletes it")
        elif any(is_binary(each) or len(each) > TEXT_BYTES for each in (there, before, after)):
            self._refuse("was changed at HEAD since the run began, and cannot be merged by lines")
        else:
            text, conflicts = merge_text(before, there, after, ("HEAD", "the run"))
            if conflicts:
                why = "was changed at HEAD and by the run in the same place"
                self.planned.conflicts.append(Conflict(self.path, why, text))
            else:
                self.planned.merged.append(self.path)
                self._take(self._mode(here), text)

    def _mode(self, here: Entry) -> int:
        """The mode that the run gave the file, and HEAD's where it gave none."""
        old, new = self.pair.old, self.pair.new
        assert new is not None
        return here.mode if old is not None and old.mode == new.mode else new.mode

    def _emptied(self, here: Entry) -> bool:
        """Whether the run has removed all that HEAD has in this directory."""
        gone = {each.path for each in self.changes.pairs.values() if each.new is None}
        prefix = self.path[: len(self.path) - len(self.pair.path)]
        return all(each.removeprefix(prefix) in gone for each in _files(self.at_head.objects, here.id, self.path))

    def _take(self, mode: int, content: bytes) -> None:
        self.planned.files[self.path] = mode, content

    def _refuse(self, why: str) -> None:
        self.planned.conflicts.append(Conflict(self.path, why))


def _files(objects: Objects, id: str, path: str) -> Iterator[str]:
    for entry in objects.tree(id).values():
        below = f"{path}/{entry.name.decode('utf-8', 'surrogateescape')}"
        if entry.mode == TREE:
            yield from _files(objects, entry.id, below)
        else:
            yield below


def _check_ways(planned: Planned, at_head: _AtHead) -> None:
    """Finds new files that would lie below what is a file at HEAD."""
    for path, file in planned.files.items():
        at = path.find("/")
        while file is not None and at >= 0:
            above = path[:at]
            entry = at_head.entry(above)
            if entry is None:
                break
            if entry.mode != TREE and planned.files.get(above, ()) is not None:
                why = f"lies below '{escaped(above)}', which is a file at HEAD"
                planned.conflicts.append(Conflict(path, why))
                break
            at = path.find("/", at + 1)


def _kind(mode: int) -> int:
    """A file is a file, executable or not."""
    return FILE if mode in (FILE, EXECUTABLE, 0o100664) else mode


def same_as_head(planned: Planned, objects: Objects) -> bool:
    """Whether HEAD holds all of it already."""
    at_head = _AtHead(objects, planned.tree)
    for path, file in planned.files.items():
        here = at_head.entry(path)
        if file is None and here is not None:
            return False
        if file is not None and (here is None or (here.mode, here.id) != (file[0], identify("blob", file[1]))):
            return False
    return True
