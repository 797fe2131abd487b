"""Archives that no honest tool would write, made byte by byte."""

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping


def zipped(members: Mapping[str, bytes]) -> bytes:
    """An honest zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def tarred(*members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w") -> bytes:
    """A tar of files and whatever else the `TarInfo` objects say."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A link, device or FIFO."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def entry(
    name: bytes,
    content: bytes,
    *,
    listed_as: bytes | None = None,
    listed_size: int | None = None,
    method: int = 8,
    flags: int = 0,
    mode: int = 0o100644,
) -> tuple[bytes, bytes]:
    """One member of a zip: what lies in the file, and its line of the directory with room for the offset."""
    packed = zlib.compress(content)[2:-4] if method == 8 else content
    listed = name if listed_as is None else listed_as
    size = len(content) if listed_size is None else listed_size
    crc = zlib.crc32(content)
    local = struct.pack(
        "<IHHHHHIIIHH", 0x04034B50, 20, flags, method, 0, 0, crc, len(packed), len(content), len(name), 0
    )
    central = struct.pack(
        "<IHHHHHHIIIHHHHHI",
        0x02014B50, 0x0314, 20, flags, method, 0, 0, crc, len(packed), size, len(listed), 0, 0, 0, 0, mode << 16,
    )  # fmt: skip
    return local + name + packed, central + b"OFFS" + listed


def zip_of(*entries: tuple[bytes, bytes], unlisted: tuple[bytes, ...] = (), offsets: list[int] | None = None) -> bytes:
    """A zip of such members; `unlisted` ones lie between them, `offsets` may make several lines share one."""
    body, directory, places = b"", b"", []
    for local, _ in entries:
        places.append(len(body))
        body += local
    body += b"".join(unlisted)
    for (_, central), place in zip(entries, offsets or places, strict=True):
        directory += central.replace(b"OFFS", struct.pack("<I", place), 1)
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, len(entries), len(entries), len(directory), len(body), 0)
    return body + directory + end
