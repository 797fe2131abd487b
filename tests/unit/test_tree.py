import errno
import io
import os
import socket
import stat
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from protos.errors import Conflict, InvalidArgument, NotFound, Unavailable
from protos.tree import CHUNK, Caps, TreeRefused, escaped, members, pack, unpack, walk

HOSTILE_NAMES = {
    "../up": "a part that is '..'",
    "a/../../up": "a part that is '..'",
    "/absolute": "an absolute name",
    "a//b": "a part that is ''",
    "./a": "a part that is '.'",
    "line\nbreak": "control character",
    "bell\x07": "control character",
    "\x1b[31mred": "control character",
    "c1\x9b": "control character",
    "line\u2028separator": "control character",
}
HOSTILE_TARGETS = ["/etc/passwd", "../up", "a/../../up", "a/..", "..", "", "a\nb", "x" * 5000]


def tree(root: Path, **files: bytes) -> Path:
    root.mkdir()
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root


def packed(root: Path, caps: Caps | None = None) -> bytes:
    return b"".join(pack(root, walk(root, caps), caps))


def chunks(data: bytes, size: int = 1000) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def made_by_tarfile(*infos: tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return buffer.getvalue()


def entry(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def refused(data: bytes, tmp_path: Path, caps: Caps | None = None) -> TreeRefused:
    """The refusal, the same when listed and when unpacked, and nothing left behind."""
    with pytest.raises(TreeRefused) as listed:
        for _ in members(chunks(data), caps):
            pass
    place = tmp_path / "place"
    place.mkdir(exist_ok=True)
    with pytest.raises(TreeRefused) as unpacked:
        unpack(chunks(data), place / "out", caps)
    assert unpacked.value.message == listed.value.message
    assert list(place.iterdir()) == []
    return unpacked.value


def header(name: bytes, kind: bytes = b"0", size: int = 0, target: bytes = b"") -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[124:136] = b"%011o\0" % size
    block[156:157] = kind
    block[157 : 157 + len(target)] = target
    block[257:265] = b"ustar\x0000"
    return resummed(block)


def resummed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    body = b"".join(records)
    return header(b"pax", kind, len(body)) + body + bytes(-len(body) % 512)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(str(length)) + len(key) + len(value) + 3 != length:
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


END = bytes(1024)


# ── what goes in comes out ───────────────────────────────────────────────────────────────────────────────────────


def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", plain=b"1", big=os.urandom(3_000_000), empty=b"", **{"é" * 100: b"2"})
    (root / "deep" / ("d" * 200)).mkdir(parents=True)
    (root / "deep" / ("d" * 200) / "file").write_bytes(b"3")
    (root / "run.sh").write_bytes(b"#!")
    (root / "run.sh").chmod(0o6755)
    (root / "hollow").mkdir()
    (root / "deep" / "link").symlink_to("../plain")
    (root / ("l" * 150)).symlink_to("é" * 120)
    written = unpack(chunks(packed(root)), tmp_path / "out")
    assert (written.files, written.directories, written.links, written.bytes) == (6, 3, 2, 3_000_005)
    assert [*walk(tmp_path / "out")] == [*walk(root)]
    for name in walk(root):
        was, now = root / name, tmp_path / "out" / name
        assert was.is_symlink() == now.is_symlink()
        if was.is_symlink():
            assert was.readlink() == now.readlink()
        elif was.is_file():
            assert was.read_bytes() == now.read_bytes()
    assert stat.S_IMODE((tmp_path / "out" / "run.sh").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "out" / "plain").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "out" / "deep").stat().st_mode) == 0o700


def test_the_same_content_is_the_same_blob(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", a=b"1", b=b"2")
    first = b"".join(pack(root, ["b", "a"]))
    os.utime(root / "a", (1, 1))
    (root / "a").chmod(0o640)
    assert b"".join(pack(root, ["a", "b", "a"])) == first


def test_other_programs_read_what_is_packed(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", a=b"1", **{"n" * 120: b"22"})
    (root / "link").symlink_to("a")
    with tarfile.open(fileobj=io.BytesIO(packed(root))) as archive:
        assert {each.name: each.size for each in archive} == {"a": 1, "n" * 120: 2, "link": 0}


def test_what_other_programs_pack_in_the_same_format_is_read(tmp_path: Path) -> None:
    data = made_by_tarfile(entry("d", type=tarfile.DIRTYPE), entry("d/" + "é" * 80, size=700, mtime=1.5), entry("x"))
    assert [(each.name, each.kind, each.size) for each in members(chunks(data))] == [
        ("d", "directory", 0),
        ("d/" + "é" * 80, "file", 700),
        ("x", "file", 0),
    ]


def test_a_name_that_is_not_utf_8_survives(tmp_path: Path) -> None:
    root = tree(tmp_path / "r")
    with open(os.fsencode(root) + b"/caf\xe9", "wb") as file:
        file.write(b"1")
    unpack(chunks(packed(root)), tmp_path / "out")
    assert os.listdir(os.fsencode(tmp_path / "out")) == [b"caf\xe9"]


def test_content_that_nobody_takes_is_skipped(tmp_path: Path) -> None:
    data = packed(tree(tmp_path / "r", a=bytes(600_000), b=b"2"))
    assert [each.name for each in members(chunks(data))] == ["a", "b"]
    taken = {each.name: next(each.chunks) for each in members(chunks(data, 5000))}
    assert taken["b"] == b"2"


def test_chunks_are_full_but_for_the_last(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", **{f"f{each}": bytes(9000) for each in range(100)})
    sizes = [len(each) for each in pack(root, walk(root))]
    assert set(sizes[:-1]) == {CHUNK}
    assert sizes[-1] <= CHUNK


def test_packing_and_unpacking_keep_little_in_memory(tmp_path: Path) -> None:
    root = tree(tmp_path / "r")
    with (root / "big").open("wb") as file:
        file.truncate(200_000_000)
    tracemalloc.start()
    unpack(pack(root, ["big"]), tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000
    assert (tmp_path / "out" / "big").stat().st_size == 200_000_000


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_is_refused_and_nothing_stays(tmp_path: Path, name: str) -> None:
    for data in (
        made_by_tarfile(entry("good", size=5), entry(name)),
        pax(record(b"path", name.encode())) + header(b"x") + END,
    ):
        error = refused(data, tmp_path)
        assert HOSTILE_NAMES[name] in error.value
        assert error.name == escaped(name)
        assert error.message.isprintable()


@pytest.mark.parametrize("target", HOSTILE_TARGETS)
def test_a_link_that_leaves_or_may_leave_is_refused(tmp_path: Path, target: str) -> None:
    data = pax(record(b"linkpath", target.encode())) + header(b"here", b"2") + END
    if not target:
        data = header(b"here", b"2") + END
    assert refused(data, tmp_path).name == "here"


def test_a_link_may_climb_as_far_as_it_is_deep(tmp_path: Path) -> None:
    data = made_by_tarfile(entry("a/b/link", type=tarfile.SYMTYPE, linkname="../../c"))
    assert unpack(chunks(data), tmp_path / "out").links == 1


@pytest.mark.parametrize(
    ("kind", "what"),
    [(b"1", "a hard link"), (b"3", "a device"), (b"4", "a device"), (b"6", "a FIFO"), (b"S", "a sparse file")]
    + [(each, "an entry of type") for each in (b"7", b"L", b"K", b"V", b"A", b"\xff")],
)
def test_what_is_no_file_directory_or_link_is_refused(tmp_path: Path, kind: bytes, what: str) -> None:
    assert refused(header(b"odd", kind, target=b"good") + END, tmp_path).value.startswith(what)


@pytest.mark.parametrize(
    "second",
    [header(b"a"), header(b"a/", b"5"), header(b"a", b"2", target=b"b"), header(b"a/b")],
    ids=["file", "directory", "link", "below"],
)
def test_a_name_that_is_taken_is_refused(tmp_path: Path, second: bytes) -> None:
    assert refused(header(b"a") + second + END, tmp_path).name in ("a", "a/b")


def test_nothing_goes_below_a_link(tmp_path: Path) -> None:
    data = header(b"d/", b"5") + header(b"l", b"2", target=b"d") + header(b"l/x") + END
    assert "'l' is a file or a link" in refused(data, tmp_path).value


def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    assert refused(header(b"a/b") + header(b"a") + END, tmp_path).value == "the name comes twice"
    assert refused(header(b"a/", b"5") + header(b"a/", b"5") + END, tmp_path).value == "the name comes twice"


def test_a_directory_may_be_named_after_what_is_in_it(tmp_path: Path) -> None:
    assert unpack([header(b"a/b") + header(b"a/", b"5") + END], tmp_path / "out").directories == 1


def test_names_that_differ_in_case_are_two_names(tmp_path: Path) -> None:
    assert unpack([header(b"a") + header(b"A") + END], tmp_path / "out").files == 2


def test_a_name_is_never_cut_at_a_nul(tmp_path: Path) -> None:
    assert refused(header(b"a\0b") + END, tmp_path).value == "a NUL within a name"
    assert "control character" in refused(pax(record(b"path", b"a\0b")) + header(b"x") + END, tmp_path).value


CAPS = Caps(files=3, bytes=1000, name_bytes=10, depth=3)
OVER = {
    "tree.files": made_by_tarfile(*(entry(f"f{each}") for each in range(4))),
    "tree.bytes": made_by_tarfile(entry("a", size=600), entry("b", size=401)),
    "tree.name_bytes": made_by_tarfile(entry("é" * 5 + "x")),
    "tree.depth": made_by_tarfile(entry("1/2/3/4")),
}


@pytest.mark.parametrize("setting", OVER)
def test_over_a_cap_the_refusal_says_name_value_cap_and_setting(tmp_path: Path, setting: str) -> None:
    error = refused(OVER[setting], tmp_path, CAPS)
    assert error.setting == setting
    assert all(part in error.message for part in (error.name, error.value, error.cap, setting))
    assert setting in error.next


def test_exactly_at_the_caps_is_fine(tmp_path: Path) -> None:
    data = made_by_tarfile(entry("é" * 5, size=400), entry("1/2/3", size=600), entry("c"))
    assert unpack(chunks(data), tmp_path / "out", CAPS).files == 3


def test_directories_that_nobody_named_count_too(tmp_path: Path) -> None:
    data = made_by_tarfile(entry("1/2/x"), entry("3/4/x"))
    assert refused(data, tmp_path, CAPS).setting == "tree.files"


def test_a_size_that_is_only_claimed_is_refused_before_it_is_read(tmp_path: Path) -> None:
    data = pax(record(b"size", b"99999999999999999")) + header(b"a") + END
    assert refused(data, tmp_path).setting == "tree.bytes"
    assert refused(header(b"a", size=1000) + b"short", tmp_path).value == "the stream ends 995 bytes early"


ODD = {
    "empty": b"",
    "text": b"hello" * 1000,
    "no end": header(b"a"),
    "half an end": header(b"a") + bytes(512),
    "data after the end": header(b"a") + END + b"x",
    "endless end": header(b"a") + bytes(3_000_000),
    "wrong checksum": header(b"a")[:148] + b"000000\0 " + header(b"a")[156:] + END,
    "gnu magic": resummed(bytearray(header(b"a")[:257] + b"ustar  \0" + header(b"a")[265:])) + END,
    "negative size": resummed(bytearray(header(b"a")[:124] + b"\xff" * 12 + header(b"a")[136:])) + END,
    "header bomb": header(b"pax", b"x", 500_000) + bytes(500_000),
    "headers in a row": pax(record(b"path", b"a")) + pax(record(b"path", b"b")) + header(b"c") + END,
    "header for nothing": pax(record(b"path", b"a")) + END,
    "sparse record": pax(record(b"GNU.sparse.realsize", b"99")) + header(b"a") + END,
    "global path": pax(record(b"path", b"a"), kind=b"g") + header(b"b") + END,
    "record too long": pax(b"99 path=a\n") + header(b"b") + END,
    "record too short": pax(b"3 path=a\n") + header(b"b") + END,
    "record without key": pax(b"5 ab\n") + header(b"b") + END,
    "record twice": pax(record(b"path", b"a"), record(b"path", b"b")) + header(b"c") + END,
    "odd charset": pax(record(b"hdrcharset", b"UTF-7")) + header(b"c") + END,
    "size is no number": pax(record(b"size", b"-5")) + header(b"c") + END,
    "directory with content": header(b"d/", b"5", size=512) + bytes(512) + END,
    "link with content": header(b"l", b"2", size=512, target=b"a") + bytes(512) + END,
    "file with a slash": header(b"a/") + END,
    "gnu long names": made_by_tarfile(entry("n" * 200), format=tarfile.GNU_FORMAT),
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_no_packed_tree_is_refused(tmp_path: Path, case: str) -> None:
    assert refused(ODD[case], tmp_path).message.isprintable()


def test_random_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    data = packed(tree(tmp_path / "r", a=b"1", **{"é" * 80: b"2" * 700}))
    for position in range(0, len(data), 7):
        for value in (0, 47, 255):
            damaged = data[:position] + bytes([value]) + data[position + 1 :]
            try:
                names = [each.name for each in members([damaged])]
            except TreeRefused:
                continue
            assert all(".." not in name and not name.startswith("/") for name in names)


def test_a_place_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    with pytest.raises(Conflict, match="there is something at"):
        unpack([header(b"mine") + END], tmp_path / "out")
    (tmp_path / "link").symlink_to("out")
    with pytest.raises(Conflict):
        unpack([header(b"mine") + END], tmp_path / "link")
    assert (tmp_path / "out" / "mine").read_text() == "kept"


def test_an_empty_directory_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    unpack([header(b"a") + END], tmp_path / "out")
    assert (tmp_path / "out" / "a").exists()


def test_a_stream_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[bytes]:
        yield header(b"a", size=1000)
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        unpack(failing(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# ── packing what moves or cannot be read ─────────────────────────────────────────────────────────────────────────


def test_a_file_swapped_for_a_link_while_packing_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", a=bytes(3_000_000), b=b"good")
    (tmp_path / "secret").write_bytes(b"not yours")
    stream = pack(root, ["a", "b"])
    next(stream)
    (root / "b").unlink()
    (root / "b").symlink_to("../secret")
    with pytest.raises(TreeRefused, match=r"a link to '\.\./secret'"):
        b"".join(stream)


def test_a_directory_swapped_for_a_link_while_packing_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", a=bytes(3_000_000))
    tree(root / "d", x=b"good")
    tree(tmp_path / "outside", x=b"not yours")
    stream = pack(root, ["a", "d/x"])
    next(stream)
    (root / "d").rename(root / "e")
    (root / "d").symlink_to(tmp_path / "outside")
    with pytest.raises(TreeRefused, match="swapped"):
        b"".join(stream)


def test_what_is_no_file_is_not_packed(tmp_path: Path) -> None:
    root = tree(tmp_path / "r")
    os.mkfifo(root / "odd")
    with pytest.raises(TreeRefused, match="a FIFO"):
        packed(root)
    (root / "odd").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "odd"))
    with pytest.raises(TreeRefused, match="a socket"):
        packed(root)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_is_not_packed(tmp_path: Path, name: str) -> None:
    with pytest.raises(TreeRefused):
        b"".join(pack(tree(tmp_path / "r"), [name]))


def test_a_name_with_a_newline_on_disk_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", **{"a\nb": b"1"})
    with pytest.raises(TreeRefused) as error:
        packed(root)
    assert error.value.name == "a\\nb"


def test_a_link_that_leaves_is_not_packed(tmp_path: Path) -> None:
    root = tree(tmp_path / "r")
    (root / "l").symlink_to("/etc/passwd")
    with pytest.raises(TreeRefused, match="/etc/passwd"):
        packed(root)


@pytest.mark.parametrize("setting", OVER)
def test_a_tree_over_a_cap_is_not_packed(tmp_path: Path, setting: str) -> None:
    unpack([OVER[setting]], tmp_path / "r")
    with pytest.raises(TreeRefused) as error:
        packed(tmp_path / "r", CAPS)
    assert error.value.setting == setting


def test_a_file_that_vanishes_is_left_out_and_said(tmp_path: Path) -> None:
    said: list[str] = []
    data = b"".join(pack(tree(tmp_path / "r", a=b"1"), ["a", "gone", "d/gone"], note=said.append))
    assert [each.name for each in members([data])] == ["a"]
    assert said == [f"'{name}' vanished before it was packed and is left out" for name in ("d/gone", "gone")]


def test_a_file_that_grows_is_packed_to_the_size_it_had_and_said(tmp_path: Path) -> None:
    said: list[str] = []
    root = tree(tmp_path / "r", a=bytes(3_000_000))
    stream = pack(root, ["a"], note=said.append)
    first = next(stream)
    with (root / "a").open("ab") as file:
        file.write(b"more")
    data = first + b"".join(stream)
    assert [each.size for each in members([data])] == [3_000_000]
    assert said == ["'a' grew while it was being packed; the first 3,000,000 bytes are in"]


def test_a_file_that_shrinks_ends_the_packing(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", a=bytes(3_000_000))
    stream = pack(root, ["a"])
    next(stream)
    os.truncate(root / "a", 1_000_000)
    with pytest.raises(Unavailable, match="shrank from 3,000,000"):
        b"".join(stream)


def test_a_missing_directory_and_a_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotFound, match="there is no"):
        list(walk(tmp_path / "none"))
    with pytest.raises(InvalidArgument, match="is not a directory"):
        list(walk(tmp_path / "file"))


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user to be refused as")
def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", a=b"1")
    (root / "a").chmod(0)
    script = (
        "import os, sys; from pathlib import Path; from protos.tree import pack;"
        "os.chdir(sys.argv[1]); os.setgroups([]); os.setuid(65534); list(pack(Path('.'), ['a']))"
    )
    command = [sys.executable, "-c", script, str(root)]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert "'a' cannot be read: Permission denied" in ended.stderr


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    def full() -> Iterator[bytes]:
        yield header(b"d/a", size=1000)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        unpack(full(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", a=bytes(3_000_000))
    before = len(os.listdir("/proc/self/fd"))
    stream = pack(root, ["a"])
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    data = packed(root)
    for end in (100_000, len(data)):
        with suppress(TreeRefused):
            unpack([data[:end]], tmp_path / "out")
    assert len(os.listdir("/proc/self/fd")) == before


def test_escaped_names_are_one_printable_line() -> None:
    assert escaped("a\nb\x1b[1m\udcff\u202e\\é") == "a\\nb\\x1b[1m\\xff\\u202e\\\\é"
    assert len(escaped("x" * 1000)) < 310
