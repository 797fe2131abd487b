"""The tree an agent works on, what it was when it came, and what has become of it.

Rules of the file
  1. Filling takes one pass: each file is written, its digest taken and its place in the file system noted. So finding
     the changes of 20,000 files is 20,000 `stat` calls, and only what they call touched is read again.
  2. A file is touched when its inode, its size or its `ctime` differs. The `ctime` cannot be set back, so neither
     `touch` nor an archive that restores times hides a change.
  3. Changed is what differs in content, executable bit or a link's target. Directories are not kept: git knows none.
  4. Added files are the agent's, unless a tool dropped them: caches and modules by name, programs and objects by their
     first bytes. (`Tree` also asks git what the tree's own `.gitignore` names.) What is left out is counted and said.
     Nothing that was in the tree is ever left out.
  5. `.git` is neither taken in nor given out, at any depth and in any case: a tree's configuration and hooks are not
     ours to run, and a patch has no use for them.

Everything blocks: call it from a thread.
"""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from protos.errors import InvalidArgument
from protos.tree import Caps, Descent, Member, TreeRefused, escaped, members, open_root, pack, parts_of
from protos.treerules import check_target

CAPS = Caps()
CACHES = frozenset(
    {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".tox", ".nox", ".venv", ".eggs"}
    | {"node_modules", ".nyc_output", ".gradle", ".cache", "CMakeFiles", ".ipynb_checkpoints"}
)
BESIDE = {"target": "Cargo.toml", "build": "CMakeLists.txt"}  # what a build makes, by what stands beside it
DROPPED = (".pyc", ".pyo", ".o", ".obj", ".gcda", ".gcno", ".egg-info", ".swp")
DROPPED_NAMES = frozenset({".coverage", "CMakeCache.txt", ".DS_Store"})
HEADER_BYTES = 3072  # at most, of a name and its padding in a packed tree
PROGRAMS = (b"\x7fELF", b"!<arch>\n", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Known:
    """A file or a link as it came. `digest` is a link's target."""

    digest: bytes
    executable: bool = False
    size: int = -1  # of a file; a link has none
    place: tuple[int, int] = (0, 0)  # inode and ctime in nanoseconds


@dataclass(frozen=True)
class Changes:
    """What has become of the tree: names, sorted."""

    modified: list[str]
    added: list[str]
    deleted: list[str]
    left_out: Counter[str] = field(default_factory=Counter)  # why, and how many files

    @property
    def written(self) -> list[str]:
        """What there is now and was not so before."""
        return sorted([*self.modified, *self.added])

    def __bool__(self) -> bool:
        return bool(self.modified or self.added or self.deleted)


class Workspace:
    """The tree below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[str, _Known] = {}
        self._folders: set[str] = set()

    def fill(self, stream: Iterable[bytes]) -> int:
        """Unpacks a tree into `root`, which must not exist yet, and returns how many files and links it has.

        Raises:
            TreeRefused: it is no packed tree, or breaks its rules.
            OSError: there is no room (ENOSPC).
        """
        self.root.mkdir(parents=True, mode=0o755)
        with closing(Descent(open_root(self.root), make=True)) as descent:
            for member in members(stream, CAPS):
                if not is_git(member.name) and (known := _write(descent, member)) is not None:
                    self._known[member.name] = known
        self._folders = {above for name in self._known for above in _above(name)}
        return len(self._known)

    @property
    def size(self) -> int:
        """The bytes that the files had when they came."""
        return sum(max(each.size, 0) for each in self._known.values())

    def lay(self, stream: Iterable[bytes]) -> list[str]:
        """Writes a packed tree over the one there is, replacing what is in its way, and returns the names.

        Raises:
            TreeRefused: it is no packed tree, or breaks its rules.
            OSError: there is no room (ENOSPC).
        """
        written = []
        with closing(Descent(open_root(self.root), make=True)) as descent:
            for member in members(stream, CAPS):
                if is_git(member.name):
                    continue
                self._clear(member)
                _write(descent, member)
                written.append(member.name)
        return written

    def remove(self, names: Iterable[str]) -> None:
        """Removes files and links; what is not there is not missed.

        Raises:
            TreeRefused: a name breaks the rules.
        """
        for name in names:
            parts = parts_of(name, CAPS)
            if is_git(name) or any(self.root.joinpath(*parts[:end]).is_symlink() for end in range(1, len(parts))):
                continue
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                (self.root / name).unlink()
            for above in list((self.root / name).parents)[: len(parts) - 1]:
                with suppress(OSError):
                    above.rmdir()  # only what is empty goes

    def changes(self) -> Changes:
        """What differs from the tree as it came."""
        modified, added = [], []
        left_out: Counter[str] = Counter()
        seen = 0
        missing = dict.fromkeys(self._known)
        for name, status in self._walk(left_out):
            known = self._known.get(name)
            if known is not None and self._same(name, known, status):
                del missing[name]
                continue
            seen += known is None
            why = self._unfit(name, status)
            if known is None and not why:
                beyond = seen > CAPS.files - len(self._known)
                why = "beyond the most files a tree may have" if beyond else self._unwanted(name, status)
            if why:
                left_out[why] += 1
            elif known is not None:
                del missing[name]
                modified.append(name)
            else:
                added.append(name)
        return Changes(sorted(modified), sorted(added), sorted(missing), left_out)

    def stamp(self, changes: Changes) -> bytes:
        """A digest of changes, by what they hold."""
        digest = blake2b(digest_size=16)
        for name in changes.written:
            with suppress(OSError):
                place = self.root / name
                content = os.fsencode(os.readlink(place)) if place.is_symlink() else _digest(place)
                digest.update(os.fsencode(name) + b"\0" + content + b"\0")
        digest.update(b"\0".join(map(os.fsencode, changes.deleted)))
        return digest.digest()

    def fitting(self, names: Iterable[str], room: int) -> tuple[list[str], list[str], int]:
        """Those of `names` that fit into so many bytes when packed; those that do not, the largest; and the bytes."""
        sizes = {name: _size(self.root / name) + HEADER_BYTES for name in names}
        needed = sum(sizes.values()) + HEADER_BYTES
        left_out = set[str]()
        for name in sorted(sizes, key=lambda each: -sizes[each]):
            if needed <= room:
                break
            needed -= sizes[name]
            left_out.add(name)
        return [each for each in sizes if each not in left_out], sorted(left_out), needed

    def packed(self, names: Iterable[str], note: Callable[[str], None]) -> Iterator[bytes]:
        """`names` as one packed tree.

        Raises:
            InvalidArgument, Unavailable: something is still writing there.
        """
        return pack(self.root, names, CAPS, note=note)

    def _clear(self, member: Member) -> None:
        """Makes room: a file where a directory shall be, or the other way round, goes."""
        place = self.root
        parts = member.name.split("/")
        for part in parts[:-1]:
            place = place / part
            if place.is_symlink() or place.is_file():
                place.unlink()
        place = place / parts[-1]
        if member.kind == "directory":
            if place.is_symlink() or place.is_file():
                place.unlink()
        elif place.is_dir() and not place.is_symlink():
            _remove_tree(place)
        else:
            place.unlink(missing_ok=True)

    def _walk(self, left_out: Counter[str]) -> Iterator[tuple[str, os.stat_result]]:
        """Every file and link with its status; what the caches of tools hold is passed by."""
        waiting = [""]
        while waiting:
            above = waiting.pop()
            with _listed(self.root / above) as listed:
                for each in listed:
                    name = f"{above}/{each.name}" if above else each.name
                    if each.name.lower() == ".git":
                        continue
                    if each.is_dir(follow_symlinks=False):
                        if self._is_cache(name, each.name):
                            left_out["caches and modules of tools"] += 1
                        else:
                            waiting.append(name)
                        continue
                    with suppress(FileNotFoundError):
                        status = each.stat(follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode) and not status.st_mode & 0o400:
                            os.chmod(each.path, status.st_mode | 0o600)  # the sandbox's own: it may read it
                        yield name, status

    def _is_cache(self, name: str, last: str) -> bool:
        if name in self._folders:
            return False
        if last in CACHES or last.endswith(".egg-info"):
            return True
        return last in BESIDE and (self.root / name).with_name(BESIDE[last]).exists()

    def _unwanted(self, name: str, status: os.stat_result) -> str:
        """Why an added file is none of the agent's, or nothing."""
        last = name.rpartition("/")[2]
        if last.endswith(DROPPED) or last in DROPPED_NAMES:
            return "droppings of tools"
        return "programs and objects that a build made" if self._is_program(name, status) else ""

    def _unfit(self, name: str, status: os.stat_result) -> str:
        """Why nothing of this name and kind can travel, or nothing."""
        try:
            parts_of(name, CAPS)
            if stat.S_ISLNK(status.st_mode):
                check_target(name, os.readlink(self.root / name))
            elif not stat.S_ISREG(status.st_mode):
                return "neither files nor links"
        except (TreeRefused, FileNotFoundError):
            return "names or links that no tree may have"
        return ""

    def _is_program(self, name: str, status: os.stat_result) -> bool:
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return False
        with suppress(OSError), (self.root / name).open("rb") as file:
            return file.read(8).startswith(PROGRAMS)
        return False

    def _same(self, name: str, known: _Known, status: os.stat_result) -> bool:
        """Whether a name still stands for what came; remembers where, if it was only touched."""
        if stat.S_ISLNK(status.st_mode):
            return known.size < 0 and os.fsencode(os.readlink(self.root / name)) == known.digest
        if not stat.S_ISREG(status.st_mode) or known.size != status.st_size:
            return False
        place = (status.st_ino, status.st_ctime_ns)
        if place == known.place:
            return True
        if known.executable != bool(status.st_mode & 0o100):
            return False
        try:
            if _digest(self.root / name) != known.digest:
                return False
        except OSError:
            return False
        known.place = place
        return True


def _write(descent: Descent, member: Member) -> _Known | None:
    parts = member.name.split("/")
    if member.kind == "directory":
        descent.to(parts)
        return None
    above = descent.to(parts[:-1])
    if member.kind == "link":
        os.symlink(member.target, parts[-1], dir_fd=above)
        return _Known(os.fsencode(member.target))
    opened = os.open(parts[-1], FILE_FLAGS, 0o755 if member.executable else 0o644, dir_fd=above)
    try:
        digest = blake2b(digest_size=16)
        for chunk in member.chunks:
            digest.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(opened, view) :]
        status = os.fstat(opened)
    finally:
        os.close(opened)
    return _Known(digest.digest(), member.executable, status.st_size, (status.st_ino, status.st_ctime_ns))


def _listed(folder: Path) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    """What a directory holds, opened first if whoever worked there closed it."""
    try:
        return os.scandir(folder)
    except PermissionError:
        folder.chmod(0o700)
        return os.scandir(folder)


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.lstat().st_size
    return 0


def _digest(path: Path) -> bytes:
    digest = blake2b(digest_size=16)
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.digest()


def _remove_tree(place: Path) -> None:
    for above, folders, files in os.walk(place, topdown=False):
        for each in files:
            os.unlink(os.path.join(above, each))
        for each in folders:
            path = os.path.join(above, each)
            os.unlink(path) if os.path.islink(path) else os.rmdir(path)
    place.rmdir()


def _above(name: str) -> Iterator[str]:
    at = name.rfind("/")
    while at > 0:
        yield name[:at]
        at = name.rfind("/", 0, at)


def is_git(name: str) -> bool:
    """Whether a name is `.git` or below it."""
    return ".git" in name.lower() and ".git" in name.lower().split("/")


def inside(root: Path, path: str) -> Path:
    """The place that a model means by `path`: relative to the tree's root, or absolute and below it.

    Raises:
        InvalidArgument: it is elsewhere, or in `.git`.
    """
    base = root.resolve()
    try:
        place = (base / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidArgument(f"'{escaped(path)}' is no path: {error}.") from None
    if not place.is_relative_to(base):
        raise InvalidArgument(
            f"'{escaped(path)}' is outside of the repository.", next="Give a path relative to its root."
        )
    if is_git(place.relative_to(base).as_posix()):
        raise InvalidArgument("What is below .git is not yours to touch.", next="Use git_status, git_diff, git_commit.")
    return place
