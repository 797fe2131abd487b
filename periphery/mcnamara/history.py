"""Earlier versions of the files of a git repository: what was committed and removed is still there for who clones it.

Runs in a process of its own (`python -m periphery.mcnamara.history`): it takes the files of a git directory, walks the
commits from the oldest on, and writes each version of a text file that the working tree no longer holds into a
directory, where secret scanners read it like any other file. Each version comes with the commit that brought it.
Objects that no ref reaches (an amended commit, a dropped branch) are taken too, as long as they have not been pruned.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from heapq import heapify, heappop, heappush
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import anyio

from periphery.mcnamara.archives.names import escaped
from periphery.mcnamara.findings import Hit
from periphery.mcnamara.gitobjects import Objects, Unreadable, blob_id, entries, grafted, tips
from periphery.mcnamara.inventory import HEAD_BYTES, File, kind_of
from periphery.mcnamara.program import python_module, run
from periphery.mcnamara.scanner import Coverage, Scanner, Tell, drive

VERSION = "0.1.0"
SECONDS = 300.0
VERSION_BYTES = 2**20  # a longer version of a file is left out
TOTAL_BYTES = 256 * 2**20  # written out of one scan
TOTAL_FILES = 40_000
COMMITS = 500_000
TREE_DEPTH = 64
INTERNAL = re.compile(r"^(?:objects/|refs/|logs/|(?:[A-Z_]+HEAD|HEAD|packed-refs|shallow|index)$)")


class Version(NamedTuple):
    """One earlier version of a file."""

    place: Path
    path: str
    commit: str  # 40 hex digits; empty where no commit is known
    when: int  # seconds since the epoch


@dataclass
class Extracted:
    """What was taken out of the repositories of a tree."""

    versions: list[Version] = field(default_factory=list)
    commits: int = 0
    left: int = 0  # versions left out: too big, or over a cap
    unreadable: int = 0
    complete: bool = True


def repositories(files: Sequence[File]) -> dict[str, dict[str, Path]]:
    """The git directories among the files: prefix → name below it → place."""
    by_path = {each.path: each.place for each in files}
    roots = {
        path[: match.start()]
        for path in by_path
        if (match := re.search(r"objects/(?:[0-9a-f]{2}/[0-9a-f]{38,62}|pack/pack-[0-9a-f]{40,64}\.pack)$", path))
    }
    roots = {root for root in roots if f"{root}HEAD" in by_path}
    return {
        root: {path[len(root) :]: place for path, place in by_path.items() if path.startswith(root)} for root in roots
    }


def internal(files: Sequence[File]) -> set[str]:
    """The paths of git's own data files, which are read as history and not as text."""
    return {
        root + name
        for root, repository in repositories(files).items()
        for name in repository
        if INTERNAL.search(name) is not None
    }


async def look(files: Sequence[File], scanners: Sequence[Scanner], scratch: Path, tell: Tell) -> Coverage:
    """Runs secret scanners over the earlier versions of the files."""
    coverage = Coverage("history", VERSION)
    found = repositories(files)
    if not found:
        coverage.state = "no git history"
        return coverage
    await anyio.Path(scratch).mkdir()
    extracted = Extracted()
    data = internal(files)
    present = {str(each.place) for each in files if each.path not in data}
    for number, (root, repository) in enumerate(sorted(found.items())):
        order = {
            "files": {name: str(place) for name, place in repository.items()},
            "present": sorted(present),
            "into": str(scratch / str(number)),
            "bytes": TOTAL_BYTES // len(found),
            "count": TOTAL_FILES // len(found),
            "prefix": root.removesuffix(".git/").removesuffix("!/") if root != ".git/" else "",
        }
        ended = await run(
            python_module("periphery.mcnamara.history"), seconds=SECONDS, stdin=json.dumps(order).encode()
        )
        if not _take(ended.output, extracted) or ended.code != 0:
            coverage.failed = True
            coverage.state = f"failed: {root}: ended with {ended.code} {ended.errors.strip()[-160:]}"
    texts = [_as_file(each) for each in extracted.versions]
    looked = [await drive(each, texts, tell) for each in scanners]
    coverage.hits = _first_of_each([hit for each in looked for hit in each.hits], extracted.versions)
    _judge(coverage, looked, extracted)
    return coverage


def _take(output: bytes, extracted: Extracted) -> bool:
    """Reads what the process says; False if it broke off."""
    for line in output.splitlines():
        try:
            said = json.loads(line)
            if "place" in said:
                version = Version(Path(said["place"]), str(said["path"]), str(said["commit"]), int(said["when"]))
                extracted.versions.append(version)
            else:
                extracted.commits += int(said["commits"])
                extracted.left += int(said["left"])
                extracted.unreadable += int(said["unreadable"])
                extracted.complete = extracted.complete and bool(said["complete"])
                return True
        except (ValueError, KeyError, TypeError):
            return False
    return False


def _as_file(version: Version) -> File:
    size = version.place.stat().st_size
    with version.place.open("rb") as file:
        kind = kind_of(version.path, file.read(HEAD_BYTES))
    return File(_shown(version), version.place, size, kind)


def _shown(version: Version) -> str:
    return f"{version.path}@{version.commit[:12] or 'unreachable-' + version.place.name[:12]}"


def _first_of_each(hits: list[Hit], versions: list[Version]) -> list[Hit]:
    """Each secret once: where it came in. Versions are in the order of their commits."""
    by_path = {_shown(each): (number, each) for number, each in enumerate(versions)}
    seen: set[tuple[str, str]] = set()
    kept = []
    for hit in sorted(hits, key=lambda hit: by_path[hit.path][0]):
        _, version = by_path[hit.path]
        key = version.path, (hit.secrets or (hit.snippet,))[0]
        scanner_key = f"{key[0]}\0{hit.scanner}", key[1]
        if scanner_key in seen:
            continue
        seen.add(scanner_key)
        when = datetime.fromtimestamp(version.when, UTC).date().isoformat() if version.when else "unknown date"
        where = f"commit {version.commit} of {when}" if version.commit else "an object that no commit reaches"
        kept.append(replace(hit, message=f"In the git history ({where}): {hit.message}", scanner=hit.scanner))
    return kept


def _judge(coverage: Coverage, looked: Sequence[Coverage], extracted: Extracted) -> None:
    done = f"{extracted.commits:,} commits, {len(extracted.versions):,} earlier versions of files"
    gaps = [f"{each.name} {each.state}" for each in looked if each.failed]
    if extracted.unreadable:
        gaps.append(f"{extracted.unreadable:,} objects could not be read")
    if not extracted.complete:
        gaps.append(f"{extracted.left:,} versions are over the cap")
    coverage.failed = coverage.failed or bool(gaps)
    if not coverage.state.startswith("failed"):
        coverage.state = f"partial: {done}; {'; '.join(gaps)}"[:300] if gaps else f"ok: {done}"


# ── in the process of its own ────────────────────────────────────────────────────────────────────────────────────


class Commit(NamedTuple):
    """One commit."""

    id: bytes
    when: int  # seconds since the epoch, as it claims
    tree: bytes
    parents: list[bytes]


def in_order(commits: Mapping[bytes, Commit]) -> list[Commit]:
    """Parents before children, whatever their dates claim; the earlier date first where either may come."""
    children: dict[bytes, list[bytes]] = {}
    missing: dict[bytes, int] = {}
    for commit in commits.values():
        parents = {each for each in commit.parents if each in commits}
        missing[commit.id] = len(parents)
        for each in parents:
            children.setdefault(each, []).append(commit.id)
    ready = [(commits[id].when, id) for id, count in missing.items() if not count]
    heapify(ready)
    ordered = []
    while ready:
        _, id = heappop(ready)
        ordered.append(commits[id])
        for child in children.get(id, ()):
            missing[child] -= 1
            if not missing[child]:
                heappush(ready, (commits[child].when, child))
    if len(ordered) < len(commits):  # objects made by hand may go round in circles; they are read all the same
        ordered += [each for each in commits.values() if missing[each.id]]
    return ordered


@dataclass
class _Walk:
    """One walk over the commits of a repository."""

    objects: Objects
    present: set[bytes]
    into: Path
    prefix: str
    bytes_left: int
    files_left: int
    seen: set[bytes] = field(default_factory=set)
    left: int = 0
    unreadable: int = 0
    complete: bool = True

    def commits(self, start: set[bytes], shallow: set[bytes]) -> list[Commit]:
        """Every commit that is reached, parents before children. `shallow` ones have no parents."""
        found: dict[bytes, Commit] = {}
        waiting, known = sorted(start), set(start)
        while waiting and len(found) < COMMITS:
            id = waiting.pop()
            self.seen.add(id)
            try:
                kind, content = self.objects.read(id)
            except Unreadable:
                self.unreadable += 1
                continue
            head = content.partition(b"\n\n")[0]
            if kind == "tag":
                below = self.ids(rb"object", head)
            elif kind == "commit":
                below = [] if id in shallow else self.ids(rb"parent", head)
                when = re.search(rb"(?m)^committer .*> (\d{1,11}) ", head)
                for tree in self.ids(rb"tree", head)[:1]:
                    found[id] = Commit(id, int(when.group(1)) if when else 0, tree, below)
            else:
                continue
            waiting += [each for each in below if each not in known]
            known.update(below)
        return in_order(found)

    def ids(self, word: bytes, head: bytes) -> list[bytes]:
        """The objects that lines beginning with `word` name."""
        width = b"%d" % (2 * self.objects.width)
        return [
            bytes.fromhex(each.decode())
            for each in re.findall(rb"(?m)^" + word + rb" ([0-9a-f]{" + width + rb"})$", head)
        ]

    def versions(self, commit: bytes, when: int, tree: bytes) -> Iterator[Version]:
        """The versions of files that a commit brings."""
        waiting = [(tree, "", 0)]
        while waiting:
            id, above, depth = waiting.pop()
            if id in self.seen or depth > TREE_DEPTH:
                continue
            self.seen.add(id)
            try:
                content = self.objects.read(id).content
            except Unreadable:
                self.unreadable += 1
                continue
            for mode, name, below in entries(content, self.objects.width):
                if mode == 0o040000:
                    waiting.append((below, f"{above}{name}/", depth + 1))
                elif mode & 0o170000 == 0o100000:
                    yield from self.version(below, above + name, commit.hex(), when)

    def version(self, id: bytes, path: str, commit: str, when: int) -> Iterator[Version]:
        """One version, unless it is there already, is no text, or does not fit."""
        if id in self.seen or id in self.present:
            return
        self.seen.add(id)
        try:
            kind, content = self.objects.read(id)
        except Unreadable as error:
            if "bytes" in str(error):
                self.left += 1
            else:
                self.unreadable += 1
            return
        if kind != "blob" or not content or b"\0" in content[:HEAD_BYTES]:
            return
        if len(content) > VERSION_BYTES:
            self.left += 1
            return
        if len(content) > self.bytes_left or not self.files_left:
            self.left += 1
            self.complete = False
            return
        self.bytes_left -= len(content)
        self.files_left -= 1
        suffix = re.search(r"\.\w{1,12}$", path)
        place = self.into / (id.hex() + (suffix.group() if suffix else ""))
        place.write_bytes(content)
        yield Version(place, self.prefix + escaped(path), commit, when)


def _say(said: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(said) + "\n")


def main() -> None:
    """Extracts the earlier versions of one repository, as told on standard input."""
    order = json.load(sys.stdin)
    files = {str(name): Path(place) for name, place in order["files"].items()}
    into = Path(order["into"])
    into.mkdir()
    ends = monotonic() + SECONDS * 0.8
    with ExitStack() as stack:
        objects = Objects(files, stack)
        present = {blob_id(Path(each).read_bytes(), objects.width) for each in order["present"]}
        walk = _Walk(objects, present, into, order["prefix"], order["bytes"], order["count"])
        walk.unreadable += len(objects.broken)
        commits = walk.commits(tips(files), grafted(files))
        for commit in commits:
            for version in walk.versions(commit.id, commit.when, commit.tree):
                _say({**version._asdict(), "place": str(version.place)})
            if monotonic() > ends:
                walk.complete = False
                break
        for id in objects.ids() if walk.complete else ():
            if id not in walk.seen:
                for version in walk.version(id, "(unreachable)", "", 0):
                    _say({**version._asdict(), "place": str(version.place)})
            if monotonic() > ends:
                walk.complete = False
                break
    _say({"commits": len(commits), "left": walk.left, "unreadable": walk.unreadable, "complete": walk.complete})


if __name__ == "__main__":
    main()
