"""A person's git repository, as far as a new branch is put into it: read by git from outside, written by hand.

Rules of the file
  1. No git ever runs inside the repository: its configuration names programs to run. Objects are read by
     `git cat-file` in a git directory of our own making, whose one tie to the repository is its `objects` as an
     alternate. So neither its configuration nor its hooks, replacements, grafts or promised objects count.
  2. What is written are loose objects and one ref, by hand. Each file is written elsewhere, synced and then linked to
     its name, so that it is there whole or not at all; the ref comes last. Whatever ends this in between leaves objects
     that nothing refers to, which git's own housekeeping removes, and the repository as it was.
  3. A ref is made the way git makes one: under `NAME.lock`, seen to be new among the loose refs and the packed ones.
     The lock is a link to a finished file, so one that a killed process left is either this very ref, or not ours.
  4. Nothing else is touched: no work tree, index, configuration, hook, log or other ref.

Refused, and said: SHA-256 repositories, reftable, and whatever else their configuration marks as an extension.
"""

import errno
import os
import secrets
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from core.coding.objects import Entry, identify, loose, parse_tree
from protos.errors import Conflict, InvalidArgument, NotFound, Unavailable
from protos.treerules import escaped

POINTER_BYTES, REFS_BYTES = 4096, 64 * 1024**2  # of a file that points, and of all packed refs
OBJECT_BYTES = 256 * 1024**2  # of a tree or a commit
CHUNK = 256 * 1024
UNDERSTOOD = {
    *("noop", "preciousobjects", "partialclone", "worktreeconfig", "relativeworktrees"),
    *("objectformat", "refstorage"),
}
ELSEWHERE = "write the diff with madlab apply RUN --out FILE, and apply it with git apply"
FORBIDDEN = frozenset(" ~^:?*[\\\x7f")
LINKS = 5  # symbolic refs are followed so far


@dataclass(frozen=True)
class Repository:
    """One repository: its work tree, and where its own files are."""

    place: Path  # what it is called when a person is told of it
    git: Path  # HEAD and the index
    common: Path  # the refs, the objects and the configuration; the same but in a worktree

    @classmethod
    def find(cls, path: Path) -> "Repository":
        """The repository that `path` lies in. One above it counts only where it belongs to the same user.

        Raises:
            NotFound: there is none.
            Conflict: it is of a kind that is not understood.
        """
        start = path.resolve()
        if not start.is_dir():
            raise NotFound(f"there is no directory {escaped(str(path))}", next="name a repository with --repo")
        for place in (start, *start.parents):
            git = _git_directory(place)
            if git is not None and (place == start or git.stat().st_uid == start.stat().st_uid):
                common = git / (_pointer(git / "commondir") or ".")
                found = cls(place, git, common.resolve())
                found._check()
                return found
        raise NotFound(f"{escaped(str(path))} is not in a git repository", next="name one with --repo")

    def head(self) -> str:
        """The commit that HEAD is at.

        Raises:
            Conflict: there is none yet, or it cannot be read.
        """
        text = _pointer(self.git / "HEAD")
        for _ in range(LINKS):
            if not text.startswith("ref:"):
                break
            text = self.ref(text.removeprefix("ref:").strip())
        if not text:
            raise Conflict(f"{self._shown} has no commit yet", next="make a first commit, then try again")
        if not _is_id(text):
            raise Conflict(f"the HEAD of {self._shown} cannot be read", next="look at it with git status")
        return text

    def ref(self, name: str) -> str:
        """What a ref holds; empty where it is not there."""
        return _pointer(self.common / name) or self._packed.get(name, "")

    @contextmanager
    def reading(self) -> Iterator["Objects"]:
        """The objects, read by a git that knows of nothing else here.

        Raises:
            Unavailable: there is no git on this machine.
        """
        objects = str((self.common / "objects").resolve())
        if "\n" in objects or not os.path.isabs(objects):
            raise Conflict(f"{self._shown} has a line break in its path", next="rename the directory")
        with TemporaryDirectory(prefix="madlab-git-") as place:
            git = Path(place)
            for each in ("objects/info", "refs/heads"):
                (git / each).mkdir(parents=True)
            (git / "HEAD").write_text("ref: refs/heads/none\n")
            (git / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
            (git / "objects/info/alternates").write_bytes(_alternate(objects))
            environment = {
                "PATH": os.environ.get("PATH", os.defpath),
                "LC_ALL": "C",
                "HOME": place,
                "GIT_DIR": place,
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_CONFIG_GLOBAL": "/dev/null",
                "GIT_NO_REPLACE_OBJECTS": "1",
                "GIT_NO_LAZY_FETCH": "1",
                "GIT_OPTIONAL_LOCKS": "0",
            }
            try:
                process = subprocess.Popen(
                    ["git", "cat-file", "--batch"],
                    cwd=place,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            except FileNotFoundError:
                raise Unavailable(
                    "there is no git on this machine, which is needed to read the repository",
                    next="install git, or take the patch.diff of the run elsewhere",
                ) from None
            with process:
                assert process.stdin is not None
                assert process.stdout is not None
                try:
                    yield Objects(process.stdin, process.stdout, self._shown)
                finally:
                    process.kill()

    def write(self, kind: str, content: bytes) -> str:
        """Stores an object, unless there is such a file already, and returns what it is called."""
        id = identify(kind, content)
        directory = self.common / "objects" / id[:2]
        if not (directory / id[2:]).exists():
            if not directory.is_dir():
                directory.mkdir()
                _sync(directory.parent)
            with self._written(loose(kind, content), 0o444) as finished, suppress(FileExistsError):
                _name(finished, directory / id[2:])
            _sync(directory)
        return id

    def create(self, branch: str, commit: str) -> bool:
        """Makes a branch, whole or not at all. False where it is there already and at this commit.

        Raises:
            InvalidArgument: no branch can have this name.
            Conflict: it is there and at another commit, or something is in its way.
        """
        check_branch(branch)
        name = f"refs/heads/{branch}"
        if (known := self.ref(name)) == commit:
            return False
        if known:
            raise Conflict(
                f"the branch {branch} is there already, at {known[:12]}", next="choose another with --branch NAME"
            )
        path = self.common / name
        self._make_way(path)
        lock = path.with_name(path.name + ".lock")
        line = f"{commit}\n".encode()
        with self._written(line, 0o644) as finished:
            try:
                _name(finished, lock)
            except FileExistsError:
                if _content(lock, POINTER_BYTES) != line:
                    raise Conflict(
                        f"another program is making the branch {branch}, or was killed while it did",
                        next=f"try again; if nothing else runs, remove {escaped(str(lock))}",
                    ) from None
        try:
            if _pointer(path) not in ("", commit) or path.is_dir():
                raise Conflict(f"the branch {branch} was made meanwhile", next="choose another with --branch NAME")
            os.rename(lock, path)
        except FileNotFoundError:
            if _pointer(path) != commit:
                raise
            return False  # the same run is applied twice at once, and the other was quicker
        except BaseException:
            lock.unlink(missing_ok=True)
            raise
        _sync(path.parent)
        return True

    def _make_way(self, path: Path) -> None:
        """Makes the directories that a ref lies in, through no link."""
        name = path.relative_to(self.common).as_posix()
        packed = (each for each in self._packed if each.startswith(name + "/") or name.startswith(each + "/"))
        clash = next(packed, None)
        if clash is None and path.is_dir() and any(each.is_file() for each in path.rglob("*")):
            clash = name + "/…"
        for above in reversed(path.relative_to(self.common / "refs/heads").parents):
            directory = self.common / "refs/heads" / above
            with suppress(FileExistsError):
                directory.mkdir()
                _sync(directory.parent)
            if not stat.S_ISDIR(directory.lstat().st_mode):
                clash = clash or directory.relative_to(self.common).as_posix()
                break
        if clash:
            shown = clash.removeprefix("refs/heads/")
            raise Conflict(
                f"the branch {escaped(shown)} is in the way of this one", next="choose another with --branch"
            )

    @contextmanager
    def _written(self, content: bytes, mode: int) -> Iterator[Path]:
        """A finished file among the objects, with a name that git clears away if it stays behind."""
        path = self.common / "objects" / f"tmp_obj_{secrets.token_hex(8)}"
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(opened, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _check(self) -> None:
        """Looks for what would make the repository other than it seems."""
        if not (self.common / "objects").is_dir() or not (self.common / "refs").is_dir():
            raise Conflict(f"{self._shown} is no complete git repository", next="look at it with git status")
        extensions = _extensions(self.common / "config")
        if extensions.get("objectformat", "sha1") != "sha1":
            raise Conflict(f"{self._shown} names its objects by SHA-256, which is not supported", next=ELSEWHERE)
        if extensions.get("refstorage", "files") != "files" or (self.common / "reftable").exists():
            raise Conflict(f"{self._shown} keeps its branches as a reftable, which is not supported", next=ELSEWHERE)
        if unknown := extensions.keys() - UNDERSTOOD:
            raise Conflict(
                f"{self._shown} needs the extension {escaped(min(unknown))}, which is not supported", next=ELSEWHERE
            )

    @cached_property
    def _packed(self) -> dict[str, str]:
        """The refs that are kept in one file."""
        found = {}
        for line in _content(self.common / "packed-refs", REFS_BYTES).decode("utf-8", "surrogateescape").splitlines():
            id, _, name = line.partition(" ")
            if _is_id(id) and name:
                found[name] = id
        return found

    @property
    def _shown(self) -> str:
        return escaped(str(self.place))


class Objects:
    """The objects of a repository, by id."""

    def __init__(self, ask: IO[bytes], answer: IO[bytes], shown: str) -> None:
        self._ask, self._answer, self._shown = ask, answer, shown

    def commit_tree(self, commit: str) -> str:
        """The id of a commit's tree."""
        line, _, _ = self._whole(commit, "commit").partition(b"\n")
        return line.removeprefix(b"tree ").decode("ascii", "replace")

    def tree(self, id: str) -> dict[bytes, Entry]:
        """The entries of a tree by name."""
        return {each.name: each for each in parse_tree(self._whole(id, "tree"))}

    def blob(self, id: str, most: int) -> bytes | None:
        """The content of a file; None where it has over `most` bytes."""
        return self._read(id, "blob", most)

    def _whole(self, id: str, wanted: str) -> bytes:
        content = self._read(id, wanted, OBJECT_BYTES)
        if content is None:
            raise Conflict(f"{self._shown}: the {wanted} {id[:12]} is far too big", next="look at it with git fsck")
        return content

    def _read(self, id: str, wanted: str, most: int) -> bytes | None:
        try:
            self._ask.write(id.encode() + b"\n")
            self._ask.flush()
            head = self._answer.readline().split()
        except BrokenPipeError:
            head = []
        if len(head) != 3 or head[1] != wanted.encode():
            raise Conflict(
                f"{self._shown} has no {wanted} {id[:12]}, or it cannot be read",
                next="look at the repository with git fsck; a partial clone needs git fetch --refetch first",
            )
        left = int(head[2]) + 1  # a newline follows
        pieces, fits = [], left <= most + 1
        while left:
            piece = self._answer.read(min(left, CHUNK))
            if not piece:
                raise Conflict(f"{self._shown}: the {wanted} {id[:12]} breaks off", next="look at it with git fsck")
            left -= len(piece)
            pieces.append(piece if fits else b"")
        return b"".join(pieces)[:-1] if fits else None


def check_branch(name: str) -> None:
    """Makes sure that a branch can have this name, by the rules of `git check-ref-format --branch`.

    Raises:
        InvalidArgument: it cannot.
    """
    parts = name.split("/")
    if (
        name in ("", "@", "HEAD")
        or name.startswith("-")
        or name.endswith(".")
        or ".." in name
        or "@{" in name
        or any(each in FORBIDDEN or ord(each) < 32 for each in name)
        or any(not each or each.startswith(".") or each.endswith(".lock") for each in parts)
        or len(os.fsencode(parts[-1])) > 250
    ):
        raise InvalidArgument(f"'{escaped(name)}' is no name for a branch", next="see: git help check-ref-format")


def _git_directory(place: Path) -> Path | None:
    """The directory of the repository whose work tree, or which itself, this is."""
    marker = place / ".git"
    if marker.is_dir():
        return marker if (marker / "HEAD").exists() else None
    if pointed := _pointer(marker):
        git = place / pointed.removeprefix("gitdir:").strip()
        if not pointed.startswith("gitdir:") or not (git / "HEAD").exists():
            raise Conflict(f"{escaped(str(marker))} points to no repository", next="look at it with git status")
        return git.resolve()
    bare = all((place / each).exists() for each in ("HEAD", "objects", "refs", "config"))
    return place if bare else None


def _pointer(path: Path) -> str:
    """The text of a small file, without the line's end; empty where there is none."""
    return _content(path, POINTER_BYTES).decode("utf-8", "surrogateescape").strip()


def _content(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return b""


def _extensions(config: Path) -> dict[str, str]:
    """What a configuration marks as required, in lower case. Nothing else of it is read."""
    found, within = {}, False
    for line in _content(config, REFS_BYTES).decode("utf-8", "replace").splitlines():
        text = line.strip().lower()
        if text.startswith("["):
            within = text.startswith("[extensions]")
            text = text.partition("]")[2].strip()
        if within and text and text[0] not in "#;":
            name, _, value = text.partition("=")
            found[name.strip()] = value.strip().strip('"')
    return found


def _alternate(path: str) -> bytes:
    """A path as a line of `alternates`, in quotes, since it may begin with anything."""
    quoted = path.replace("\\", "\\\\").replace('"', '\\"')
    return os.fsencode(f'"{quoted}"\n')


def _is_id(text: str) -> bool:
    return len(text) == 40 and all(each in "0123456789abcdef" for each in text)


def _name(finished: Path, path: Path) -> None:
    """Gives a finished file its name, if nothing has it."""
    try:
        os.link(finished, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.rename(finished, path)  # no hard links here


def _sync(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
