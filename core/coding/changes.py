"""What a worker changed, set against the tree it was given: one streaming pass over each, and what changed is kept.

Both come as packed trees (`protos.tar`), as bytes from an untrusted place. What is kept lies in a file that spills from
memory to disk, so that a tree of two gigabytes takes no more memory than the two versions of its largest changed file.
A file that may not be changed is refused with the reason and left out; a stream that no worker of ours would write
(a name twice, a link that leaves the tree, a damaged header) is refused as a whole.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO, NamedTuple

from core.coding.objects import EXECUTABLE, FILE, LINK, identify, identify_blob
from core.coding.review import submodules_of, unfit, unfit_link
from protos import tar
from protos.tar import Member
from protos.treerules import Caps, TreeRefused, escaped

GITMODULES_BYTES = 256 * 1024
REFUSALS = 1_000  # so many are listed; the others are counted


@dataclass(frozen=True)
class Limits:
    """How big a patch may be. Sizes are bytes."""

    files: int = 5_000
    bytes: int = 256 * 1024**2  # of all new versions together
    file_bytes: int = 64 * 1024**2  # of one file; a larger one is refused
    text_bytes: int = 8 * 1024**2  # of what differs in one text; more is shown as binary
    binary_bytes: int = 4 * 1024**2  # of a binary file; a larger one is shown by name
    diff_bytes: int = 64 * 1024**2  # of the whole diff; what comes after it is shown by name
    tree: Caps = field(default_factory=Caps)  # of the streams


@dataclass(frozen=True)
class Side:
    """One version of a file. A link's content is its target."""

    mode: int  # git's
    size: int  # bytes
    id: str  # git's name for the content
    place: int  # in the spool; -1 where it is too big to be kept

    @property
    def kept(self) -> bool:
        """Whether its content can be read."""
        return self.place >= 0


@dataclass(frozen=True)
class Pair:
    """One path, before and after. At least one of both is there, and they differ."""

    path: str
    old: Side | None
    new: Side | None


class Refusal(NamedTuple):
    """What is left out of the patch, and why."""

    path: str
    why: str


class Changes:
    """What changed, by path in order, and what is refused."""

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool
        self.pairs: dict[str, Pair] = {}
        self.refused: list[Refusal] = []  # the first
        self.unlisted = 0  # refused, too

    def read(self, side: Side | None) -> bytes:
        """The content of one version; none of a file that is not there."""
        if side is None:
            return b""
        assert side.kept, "too big to be kept"
        self._spool.seek(side.place)
        return self._spool.read(side.size)

    def refuse(self, path: str, why: str) -> None:
        """Leaves a path out."""
        if len(self.refused) < REFUSALS:
            self.refused.append(Refusal(path, why))
        else:
            self.unlisted += 1

    def pack(self) -> Iterator[bytes]:
        """The new versions as a packed tree."""
        for path, pair in self.pairs.items():
            if pair.new is not None:
                yield from _packed(path, pair.new, [self.read(pair.new)])
        yield bytes(2 * tar.BLOCK)

    @property
    def deleted(self) -> list[str]:
        """The paths that are gone."""
        return [path for path, pair in self.pairs.items() if pair.new is None]

    def keep(self, mode: int, size: int, chunks: Iterable[bytes], limit: int) -> Side:
        """Takes one version in; over `limit` only what it is called."""
        if size > limit:
            return Side(mode, size, identify_blob(size, chunks), -1)
        self._spool.seek(0, 2)
        place = self._spool.tell()
        return Side(mode, size, identify_blob(size, self._through(chunks)), place)

    def _through(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._spool.write(chunk)
            yield chunk


@contextmanager
def open_changes(
    source: Iterable[bytes], changes: Iterable[bytes], deleted: Sequence[str], limits: Limits | None = None
) -> Iterator[Changes]:
    """Reads a tree, and the packed files that were changed or added in it, and the names of those that are gone.

    Raises:
        TreeRefused: a stream is no packed tree, or no honest worker wrote it.
    """
    with SpooledTemporaryFile(max_size=16 * 1024**2) as spool:
        found = Changes(spool)
        _Reading(found, limits or Limits()).read(source, changes, deleted)
        yield found


def restored(changes: Iterable[bytes], paths: Collection[str]) -> Iterator[bytes]:
    """The same packed changes without those to `paths`: where the tree has such a file, it stays as it was, if it is
    taken out of the names of the deleted ones too.

    Raises:
        TreeRefused: `changes` is no packed tree.
    """
    without = frozenset(paths)
    for member in tar.read(changes, Caps()):
        if member.name not in without and member.kind != "directory":
            mode = LINK if member.kind == "link" else EXECUTABLE if member.executable else FILE
            yield from _entry(member.name, mode, member.size, member.target, member.chunks)
    yield bytes(2 * tar.BLOCK)


def packed(files: Iterable[tuple[str, int, bytes]]) -> Iterator[bytes]:
    """A packed tree of files: path, git's mode and content of each."""
    for path, mode, content in files:
        target = content.decode("utf-8", "surrogateescape") if mode == LINK else ""
        yield from _entry(path, mode, len(content), target, [content])
    yield bytes(2 * tar.BLOCK)


def _packed(path: str, side: Side, chunks: Sequence[bytes]) -> Iterator[bytes]:
    target = b"".join(chunks).decode("utf-8", "surrogateescape") if side.mode == LINK else ""
    yield from _entry(path, side.mode, side.size, target, chunks)


def _entry(path: str, mode: int, size: int, target: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    if mode == LINK:
        yield tar.header(path, b"2", 0o777, target=target)
        return
    yield tar.header(path, b"0", mode & 0o777, size)
    yield from chunks
    yield bytes(-size % tar.BLOCK)


class _Reading:
    """The two passes, and what must be known in between."""

    def __init__(self, found: Changes, limits: Limits) -> None:
        self.found, self.limits = found, limits
        self.new: dict[str, Side] = {}
        self.old: dict[str, Side] = {}
        self.gone: set[str] = set()
        self.submodules: frozenset[str] = frozenset()
        self.above: set[str] = set()  # the directories that the new files lie in
        self.clashing: dict[str, str] = {}  # a new file, and what of the tree is in its way

    def read(self, source: Iterable[bytes], changes: Iterable[bytes], deleted: Sequence[str]) -> None:
        self._changes(changes)
        for each in deleted:
            if why := unfit(each, (), self.limits.tree):
                self.found.refuse(each, why)
            elif each not in self.new:
                self.gone.add(each)
        self.above = {above for each in self.new for above in _above(each)}
        self._source(source)
        for path in sorted({*self.new, *self.gone}, key=lambda each: each.encode("utf-8", "surrogateescape")):
            self._settle(path)

    def _changes(self, stream: Iterable[bytes]) -> None:
        kept = 0
        for member in tar.read(stream, self.limits.tree):
            if member.kind == "directory":
                continue
            if member.name in self.new:
                raise TreeRefused(member.name, "each name is there once", "the name comes twice")
            why = unfit(member.name, (), self.limits.tree)
            if not why and member.kind == "link":
                why = unfit_link(member.name, member.target)
            if not why and member.size > self.limits.file_bytes:
                why = f"it has {member.size:,} bytes; at most {self.limits.file_bytes:,} are taken"
            if not why and kept + member.size > self.limits.bytes:
                why = f"with it, the patch would be over {self.limits.bytes:,} bytes"
            if not why and len(self.new) >= self.limits.files:
                why = f"the patch has {self.limits.files:,} files already"
            if why:
                self.found.refuse(member.name, why)
                continue
            kept += member.size
            self.new[member.name] = self._side(member)
        for path in [each for each in self.new if any(above in self.new for above in _above(each))]:
            raise TreeRefused(path, "only a directory has names below it", "a file or a link is above it")

    def _side(self, member: Member) -> Side:
        if member.kind == "link":
            target = member.target.encode("utf-8", "surrogateescape")
            return self.found.keep(LINK, len(target), [target], self.limits.file_bytes)
        mode = EXECUTABLE if member.executable else FILE
        return self.found.keep(mode, member.size, member.chunks, self.limits.file_bytes)

    def _source(self, stream: Iterable[bytes]) -> None:
        clear: set[str] = set()  # directories that lie below no new file
        for member in tar.read(stream, self.limits.tree):
            path = member.name
            if member.kind == "directory":
                continue
            if path == ".gitmodules" and member.size <= GITMODULES_BYTES:
                content = b"".join(member.chunks)
                self.submodules = submodules_of(content)
                member = Member(path, member.kind, member.size, member.executable, member.target, iter([content]))
            if path in self.new or path in self.gone:
                self.old[path] = self._side(member)
            if path in self.gone:
                continue
            if path in self.above and path not in self.new:
                self.clashing[path + "/"] = path
            directory = path.rpartition("/")[0]
            if directory and directory not in clear:
                over = next((each for each in _above(path) if each in self.new), None)
                if over is None:
                    clear.add(directory)
                else:
                    self.clashing[over] = path

    def _settle(self, path: str) -> None:
        old, new = self.old.get(path), self.new.get(path)
        if old == new or (old and new and (old.mode, old.id) == (new.mode, new.id)):
            return
        why = unfit(path, self.submodules, self.limits.tree)
        if not why and new:
            in_the_way = next(
                (self.clashing[each] for each in (path, *_above(path, "/")) if each in self.clashing), None
            )
            if in_the_way is not None:
                why = f"'{escaped(in_the_way)}' of the tree is in its way"
        if why:
            self.found.refuse(path, why)
        else:
            self.found.pairs[path] = Pair(path, old, new)


def _above(path: str, end: str = "") -> Iterator[str]:
    """The directories a path lies in."""
    at = path.find("/")
    while at >= 0:
        yield path[:at] + end
        at = path.find("/", at + 1)


def side_of(content: bytes, mode: int) -> Side:
    """A version that is not in any spool."""
    return Side(mode, len(content), identify("blob", content), -1)
