"""Opens archives that may be made to harm: zip (wheels, jars), tar, and tar within gzip, bzip2 or xz.

Rules of the room
  1. Nothing is extracted by a library. Headers are read here, by size, before anything is kept for them; zlib, bz2 and
     lzma decompress in small steps with an output limit and a memory limit.
  2. Only regular files are written, into a stage that no name can leave. Links, devices and FIFOs never exist.
  3. A member that would escape, bomb or mislead is a finding, and its content is scanned like any other where there is
     some: refusing the whole archive would let one planted member hide the rest.
  4. What two programs may read differently is a finding: two entries of one name, names that differ in case alone, a
     local header that contradicts the central directory, entries the directory does not list, wrong sizes.
  5. Archives within archives are opened up to a depth; deeper ones are reported. Caps count over all of them.

Why not `zipfile` and `tarfile`: both take tables and headers of any size into memory; `tarfile` follows chains of long
names, cuts a name at its first NUL and has had its extraction filters bypassed; `zipfile` believes one of two tables.
"""

from pathlib import Path

from periphery.mcnamara.archives.names import Damaged, Names, NotAnArchive, Opened, escaped, fault
from periphery.mcnamara.archives.reader import reader_for
from periphery.mcnamara.inventory import File
from periphery.mcnamara.stage import Full, Stage

__all__ = ["NotAnArchive", "Opened", "escaped", "nest", "unpack"]

NESTING = 3  # archives within archives
SUFFIXES = (
    ".zip", ".whl", ".egg", ".jar", ".war", ".apk", ".nupkg", ".vsix", ".xpi", ".pyz",
    ".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".gem", ".crate",
)  # fmt: skip


def unpack(place: Path, stage: Stage, *, name: str = "", prefix: str = "", depth: int = 0) -> Opened:
    """Unpacks the archive at `place` into `stage`, and the archives it holds; `name` helps where content cannot tell.

    Raises:
        NotAnArchive: it is none.
    """
    opened = Opened()
    names = Names(prefix, opened)
    first = len(stage.files)
    with open(place, "rb") as file:
        reader = reader_for(file, name)
        try:
            reader(file, stage, names)
        except Full as full:
            names.report("bomb", "", f"{full}; the rest was not taken")
            names.leave("", str(full))
        except (Damaged, NotAnArchive) as damaged:
            if len(stage.files) == first and not opened.hits:
                raise NotAnArchive(str(damaged)) from damaged
            names.report("damaged", "", str(damaged))
            names.leave("", str(damaged))
    for inner in stage.newest(len(stage.files) - first):
        nest(inner, stage, opened, depth=depth + 1)
    return opened


def nest(file: File, stage: Stage, opened: Opened, *, depth: int) -> None:
    """Opens `file` too if it is an archive."""
    if not file.name.lower().endswith(SUFFIXES) and not _looks_like_one(file.place):
        return
    if depth > NESTING:
        opened.hits.append(fault("nested", file.path))
        opened.unread.append((file.path, f"an archive within {NESTING} others"))
        return
    try:
        inner = unpack(file.place, stage, name=file.name, prefix=f"{file.path}!/", depth=depth)
    except NotAnArchive:
        return
    stage.drop(file)
    opened.hits += inner.hits
    opened.skipped += inner.skipped
    opened.unread += inner.unread


def _looks_like_one(place: Path) -> bool:
    with open(place, "rb") as file:
        head = file.read(512)
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06")) or head[257:262] == b"ustar"
