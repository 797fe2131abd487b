"""Looks for secrets where a lab could have left them.

Files and their names, rows of databases and words of their indexes, processes, dumps of memory, what the engine says of
containers and images, and the layers of these. Nothing is passed over for its size or because it cannot be read: that
raises. Only what has gone in the meantime is let be.
"""

import json
import os
import re
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import docker
from ahocorasick_rs import BytesAhoCorasick, Implementation

from tests.security.forms import forms

PIECE_BYTES = 8 * 1024 * 1024  # of a file, at once
WORD = re.compile(r"[^\W_]{10,}")  # of a secret, as an index of words has it: so long that no other text has the same
USING_FTS5, KEEPS_NO_TEXT = re.compile(rb"(?i)using fts5\b"), re.compile(rb"(?i)using fts5\b.*\bcontent *= *''")
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
ET_CORE = (4).to_bytes(2, "little")
GONE = (FileNotFoundError, ProcessLookupError)


class Sought:
    """Some secrets, looked for in all their forms at once."""

    def __init__(self, *keys: str) -> None:
        self._forms: dict[bytes, str] = {}
        for key in keys:
            for name, form in forms(key).items():
                self._forms.setdefault(form, name)
        self._overlap = max(map(len, self._forms), default=1) - 1
        self._names = list(self._forms.values())
        self._search = BytesAhoCorasick(list(self._forms), implementation=Implementation.ContiguousNFA)

    def seen(self, content: bytes) -> list[str]:
        """The forms in which they stand in some bytes."""
        found = self._search.find_matches_as_indexes(content, overlapping=True)
        return sorted({self._names[index] for index, _, _ in found})

    def seen_in(self, file: Path) -> list[str]:
        """The same of a file, however large it is.

        Raises:
            OSError: it cannot be read.
        """
        found, tail = set[str](), b""
        with file.open("rb") as content:
            while piece := content.read(PIECE_BYTES):
                found.update(self.seen(tail + piece))
                tail = (tail + piece)[-self._overlap :]
        return sorted(found)


sought = lru_cache(maxsize=8)(Sought)


def found_below(root: Path, *keys: str, but: tuple[Path, ...] = ()) -> list[str]:
    """Every file below a directory that holds a form of a key, links not followed, and the names themselves.

    Raises:
        OSError: a file or a directory cannot be read, or `root` is not there.
    """
    wanted, found = sought(*keys), list[str]()
    root.stat()
    for directory, directories, files in os.walk(root, onerror=_unless_gone):
        for name in (*directories, *files):
            path = Path(directory, name)
            if path in but:
                continue
            found += [f"{path}: {form}" for form in wanted.seen(str(path).encode("utf-8", "surrogateescape"))]
            with suppress(*GONE):  # what a sandbox has may be gone in this moment
                if stat.S_ISREG(path.lstat().st_mode):
                    found += [f"{path}: {form}" for form in wanted.seen_in(path)]
    return found


def databases(root: Path) -> list[Path]:
    """Every SQLite database below a directory."""
    found = []
    for each in root.rglob("*"):
        with suppress(*GONE):
            if each.is_file() and _begins(each, b"SQLite format 3\0"):
                found.append(each)
    return sorted(found)


def found_in_tables(database: Path, *keys: str) -> list[str]:
    """Every table of a database that holds a form of a key in any column of any row; and every index of words.

    A search of the file itself does not see a value that two pages share, nor one that is in the log of writes only.
    """
    wanted, found = sought(*keys), list[str]()
    words = {each.lower() for key in keys for each in WORD.findall(key)}
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as db:
        db.text_factory = bytes
        tables = db.execute("SELECT name, coalesce(sql, '') FROM sqlite_schema WHERE type = 'table'").fetchall()
        for name, sql in [*tables, (b"sqlite_schema", b"")]:
            table = name.decode().replace('"', '""')
            if not KEEPS_NO_TEXT.search(sql):
                cells = (_bytes(cell) for row in db.execute(f'SELECT * FROM "{table}"') for cell in row)
                found += [f"{database}, {table}: {form}" for form in wanted.seen(b"\0".join(cells))]
            if USING_FTS5.search(sql):  # packed words, which may be all that is there
                db.execute(f"""CREATE VIRTUAL TABLE temp.words USING fts5vocab('main', "{table}", 'row')""")
                terms = {term.decode() for (term,) in db.execute("SELECT term FROM temp.words")}
                found += [f"{database}, {table}: the word {each}" for each in sorted(words & terms)]
                db.execute("DROP TABLE temp.words")
    return found


def told_by_processes(*keys: str, but: Iterable[int] = (os.getpid(),)) -> list[str]:
    """Every process of this machine whose command line or environment holds a form of a key."""
    wanted, found = sought(*keys), list[str]()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) in but:
            continue
        for each in ("cmdline", "environ"):
            try:
                content = (process / each).read_bytes()
            except OSError:
                continue
            found += [f"{process / each}: {form}" for form in wanted.seen(content)]
    return found


def said_by_engine(lab: str) -> dict[str, str]:
    """What the engine says of a lab's images and containers, by `image ID` and `container ID`, as JSON."""
    said = dict[str, str]()
    with closing(_engine()) as api:
        for image in _images(api, lab):
            told = [api.inspect_image(image), api.history(image)]
            said[f"image {image}"] = json.dumps(told)
        for container in api.containers(all=True, filters={"label": f"madlab.lab={lab}"}):
            with suppress(docker.errors.APIError):  # it has just gone
                told = [api.inspect_container(container["Id"]), str(api.logs(container["Id"]))]
                said[f"container {container['Id']}"] = json.dumps(told)
    return said


def told_by_engine(lab: str, *keys: str) -> list[str]:
    """What the engine says of a lab's images and containers, as far as it holds a form of a key."""
    wanted = sought(*keys)
    return [f"{what}: {form}" for what, text in said_by_engine(lab).items() for form in wanted.seen(text.encode())]


def layers_of_engine(lab: str) -> list[Path]:
    """The folders in which the engine keeps the files of a lab's images; none where it does not say."""
    with closing(_engine()) as api:
        told = [(api.inspect_image(each).get("GraphDriver") or {}).get("Data") or {} for each in _images(api, lab)]
    folders = {part for each in told for key in ("LowerDir", "UpperDir") for part in each.get(key, "").split(":")}
    return sorted(Path(each) for each in folders - {""})


def places_of_dumps(process: int) -> list[Path]:
    """Where the kernel would write the memory of a process that dies."""
    cwd, pattern = Path(f"/proc/{process}/cwd").readlink(), CORE_PATTERN.read_text().strip()
    if pattern.startswith("|"):  # to a program: it keeps them where it likes, these are the usual places
        likely = (Path("/var/lib/systemd/coredump"), Path("/var/crash"), Path("/var/lib/apport/coredump"))
        return [cwd, *(each for each in likely if each.is_dir())]
    return list(dict.fromkeys((cwd, (cwd / pattern.partition("%")[0]).parent)))


def dumps_in(*places: Path, word: str) -> list[Path]:
    """Every dump of a process's memory in these folders in which `word` stands."""
    found = []
    for path in (each for place in places for each in place.iterdir()):
        with suppress(*GONE):
            if path.is_file() and _begins(path, b"\x7fELF") and _begins(path, ET_CORE, at=16):
                with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
                    if content.find(word.encode()) >= 0:
                        found.append(path)
    return found


def _engine() -> Any:
    api = docker.APIClient(version="auto")
    api.trust_env = False
    return api


def _images(api: Any, lab: str) -> Iterator[str]:
    for image in api.images():
        if any(tag.startswith(f"madlab-{lab}/") for tag in image["RepoTags"] or ()):
            yield str(image["Id"])


def _begins(file: Path, with_: bytes, at: int = 0) -> bool:
    with file.open("rb") as content:
        content.seek(at)
        return content.read(len(with_)) == with_


def _bytes(cell: object) -> bytes:
    return cell if isinstance(cell, bytes) else str(cell).encode()


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, GONE):
        raise error
