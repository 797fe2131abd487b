import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path

import anyio
import pytest
from anyio import fail_after

from core.horace.store import Horace
from protos.errors import Conflict, Exhausted, InvalidArgument, NotFound
from protos.tree import Caps, TreeRefused, pack
from tests.unit.horace.ledger import Ledger


async def source(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def content(horace: Horace, digest: str, offset: int = 0) -> bytes:
    async with aclosing(horace.get(digest, offset=offset)) as chunks:  # type: ignore[type-var]
        return b"".join([chunk async for chunk in chunks])


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def file_of(home: Path, digest: str) -> Path:
    return home / "files" / "blobs" / digest[7:9] / digest[9:]


def files_in(home: Path) -> list[Path]:
    return [path for path in (home / "files").rglob("*") if path.is_file()]


def open_horace(home: Path, quota_bytes: int = 10_000_000) -> AbstractAsyncContextManager[Horace]:
    return Horace(home / "files", Ledger(home / "ledger"), quota_bytes=quota_bytes)


async def test_what_was_put_comes_back_byte_for_byte(tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    async with open_horace(tmp_path) as horace:
        blob = await horace.put(source(data[:7], b"", data[7:]), name="report.json", media_type="application/json")
        assert (blob.digest, blob.size, blob.name, blob.media_type) == (
            digest_of(data),
            len(data),
            "report.json",
            "application/json",
        )
        assert await content(horace, blob.digest) == data
        assert await content(horace, blob.digest, 2_999_999) == data[2_999_999:]
        assert await content(horace, blob.digest, len(data)) == b""
        assert (await horace.stat(blob.digest)).size == len(data)
        assert await horace.verify(blob.digest)
        assert file_of(tmp_path, blob.digest).stat().st_mode & 0o777 == 0o600


async def test_an_empty_blob_is_a_blob(tmp_path: Path) -> None:
    async with open_horace(tmp_path) as horace:
        blob = await horace.put(source())
        assert blob.size == 0
        assert await content(horace, blob.digest) == b""


async def test_chunks_are_at_most_256_kib(tmp_path: Path) -> None:
    async with open_horace(tmp_path) as horace:
        blob = await horace.put(source(bytes(2_500_000)))
        assert max([len(chunk) async for chunk in horace.get(blob.digest)]) == 256 * 1024


async def test_the_same_content_is_stored_and_counted_once(tmp_path: Path) -> None:
    async with open_horace(tmp_path) as horace:
        assert await horace.put(source(b"twice")) == await horace.put(source(b"tw", b"ice"))
        assert len(files_in(tmp_path)) == 1
        assert (horace.usage().blobs, horace.usage().bytes) == (1, 5)


async def test_many_puts_of_one_content_at_once_are_one_blob(tmp_path: Path) -> None:
    async with open_horace(tmp_path) as horace:
        with fail_after(60):
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(horace.put, source(b"the same"))
        assert len(files_in(tmp_path)) == 1
        assert (horace.usage().blobs, horace.usage().bytes) == (1, 8)


async def test_a_put_over_the_labs_quota_is_refused_with_numbers_and_leaves_nothing(tmp_path: Path) -> None:
    async with open_horace(tmp_path, quota_bytes=1000) as horace:
        await horace.put(source(bytes(600)))
        with pytest.raises(Exhausted, match=r"900 of 1,000 bytes are taken"):
            await horace.put(source(b"x" * 300, b"y" * 200))
        assert len(files_in(tmp_path)) == 1
        assert horace.usage().bytes == 600
        await horace.put(source(b"z" * 400))


async def test_a_put_over_its_own_limit_stops_reading(tmp_path: Path) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield bytes(1000)

    async with open_horace(tmp_path) as horace:
        with pytest.raises(Exhausted, match="2,500 bytes"):
            await horace.put(endless(), limit_bytes=2500)
        assert read == 3
        assert files_in(tmp_path) == []
        assert horace.usage().bytes == 0


async def test_a_source_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield bytes(2_000_000)
        raise ConnectionResetError("gone")

    async with open_horace(tmp_path) as horace:
        with pytest.raises(ConnectionResetError):
            await horace.put(breaking())
        assert files_in(tmp_path) == []
        assert horace.usage().bytes == 0


async def test_a_cancelled_put_leaves_nothing(tmp_path: Path) -> None:
    async def hanging() -> AsyncIterator[bytes]:
        yield bytes(2_000_000)
        await anyio.sleep_forever()

    async with open_horace(tmp_path) as horace:
        with anyio.move_on_after(0.1):
            await horace.put(hanging())
        assert files_in(tmp_path) == []
        assert horace.usage().bytes == 0


async def test_what_a_crash_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    async with open_horace(tmp_path) as horace:
        await horace.put(source(b"kept"))
    (tmp_path / "files" / "incoming" / "half").write_bytes(bytes(1000))
    async with open_horace(tmp_path) as horace:
        assert len(files_in(tmp_path)) == 1
        assert (horace.usage().blobs, horace.usage().bytes) == (1, 4)


async def test_a_blob_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    async with open_horace(tmp_path) as horace:
        for act in (horace.stat, horace.verify):
            with pytest.raises(NotFound):
                await act(digest_of(b"never put"))
        with pytest.raises(NotFound):
            await content(horace, digest_of(b"never put"))


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:" + "g" * 64, "sha256:../../" + "a" * 58, "md5:" + "0" * 32])
async def test_what_is_no_digest_is_said_to_be_none(tmp_path: Path, digest: str) -> None:
    async with open_horace(tmp_path) as horace:
        with pytest.raises(InvalidArgument, match="is no digest"):
            await horace.stat(digest)


async def test_an_offset_outside_the_blob_is_refused(tmp_path: Path) -> None:
    async with open_horace(tmp_path) as horace:
        blob = await horace.put(source(b"four"))
        for offset in (-1, 5):
            with pytest.raises(InvalidArgument, match="a blob of 4 bytes"):
                await content(horace, blob.digest, offset)


async def test_a_damaged_blob_never_ends_like_a_good_one(tmp_path: Path) -> None:
    async with open_horace(tmp_path) as horace:
        blob = await horace.put(source(bytes(5000)))
        with file_of(tmp_path, blob.digest).open("r+b") as file:
            file.seek(4000)
            file.write(b"!")
        assert not await horace.verify(blob.digest)
        with pytest.raises(Conflict, match="damaged"):
            await content(horace, blob.digest)


async def test_a_result_tree_comes_out_whole(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "a").write_bytes(bytes(2_000_000))
    async with open_horace(tmp_path) as horace:
        blob = await horace.put(source(*pack(tmp_path / "r", ["a"])))
        assert (await horace.unpack(blob.digest, tmp_path / "out")).files == 1
        assert (tmp_path / "out" / "a").read_bytes() == bytes(2_000_000)


async def test_a_result_tree_that_breaks_a_rule_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "a").write_bytes(bytes(2000))
    packed = b"".join(pack(tmp_path / "r", ["a"]))
    place = tmp_path / "place"
    place.mkdir()
    async with open_horace(tmp_path) as horace:
        blob = await horace.put(source(packed))
        with pytest.raises(TreeRefused, match=r"tree\.bytes"):
            await horace.unpack(blob.digest, place / "out", Caps(bytes=1000))
        text = await horace.put(source(b"no tree at all" * 1000))
        with pytest.raises(TreeRefused, match="another format"):
            await horace.unpack(text.digest, place / "out")
        with file_of(tmp_path, blob.digest).open("r+b") as file:
            file.seek(1000)
            file.write(b"!")
        with pytest.raises(Conflict, match="damaged"):
            await horace.unpack(blob.digest, place / "out")
    assert list(place.iterdir()) == []


async def test_a_name_follows_its_newest_version(tmp_path: Path) -> None:
    async with open_horace(tmp_path) as horace:
        with pytest.raises(NotFound):
            await horace.find("advisories")
        first, second = await horace.put(source(b"1")), await horace.put(source(b"22"))
        await horace.set_name("advisories", first.digest, media_type="application/x-index")
        assert (await horace.find("advisories")).media_type == "application/x-index"
        await horace.set_name("advisories", second.digest)
        assert (await horace.set_name("advisories", second.digest)).version == 2
        found = await horace.find("advisories")
        assert (found.digest, found.size, found.name) == (second.digest, 2, "advisories")
        assert [each.version for each in await horace.versions("advisories")] == [2, 1]
    async with open_horace(tmp_path) as horace:
        assert (await horace.find("advisories")).digest == second.digest


async def test_names_given_at_once_become_versions_in_some_order(tmp_path: Path) -> None:
    async with open_horace(tmp_path) as horace:
        blobs = [await horace.put(source(b"%d" % each)) for each in range(5)]
        with fail_after(60):
            async with anyio.create_task_group() as group:
                for blob in blobs:
                    group.start_soon(horace.set_name, "busy", blob.digest)
        assert {each.blob.digest for each in await horace.versions("busy")} == {each.digest for each in blobs}


@pytest.mark.parametrize("name", ["", "../x", "A", "a b", "a\nb", ".hidden", "x" * 101])
async def test_a_name_that_misleads_is_refused(tmp_path: Path, name: str) -> None:
    async with open_horace(tmp_path) as horace:
        blob = await horace.put(source(b"1"))
        with pytest.raises(InvalidArgument, match="is no name"):
            await horace.set_name(name, blob.digest)


async def test_a_name_for_a_blob_that_is_not_there_is_refused(tmp_path: Path) -> None:
    async with open_horace(tmp_path) as horace:
        with pytest.raises(NotFound):
            await horace.set_name("advisories", digest_of(b"never put"))


async def test_a_sweep_removes_what_nobody_refers_to(tmp_path: Path) -> None:
    async with open_horace(tmp_path) as horace:
        loose, linked = await horace.put(source(b"loose")), await horace.put(source(b"linked"))
        versions = [await horace.put(source(b"v%d" % each)) for each in range(5)]
        for each in versions:
            await horace.set_name("advisories", each.digest)
        swept = await horace.sweep([linked.digest], idle_s=-1)
        assert (swept.blobs, swept.bytes) == (3, 9)
        assert (horace.usage().blobs, horace.usage().bytes) == (4, 12)
        with pytest.raises(NotFound):
            await horace.stat(loose.digest)
        for each in (linked, *versions[2:]):
            await horace.stat(each.digest)


async def test_a_sweep_leaves_alone_what_was_just_put_again(tmp_path: Path) -> None:
    async with open_horace(tmp_path) as horace:
        blob = await horace.put(source(b"old"))
        os.utime(file_of(tmp_path, blob.digest), (1, 1))
        await horace.put(source(b"old"))
        assert (await horace.sweep([])).blobs == 0
        os.utime(file_of(tmp_path, blob.digest), (1, 1))
        assert (await horace.sweep([])).blobs == 1


async def test_what_is_removed_by_name_is_just_that_and_not_what_somebody_stores_again(tmp_path: Path) -> None:
    async with open_horace(tmp_path) as horace:
        gone, named, again, other = [await horace.put(source(each)) for each in (b"gone", b"named", b"again", b"other")]
        await horace.set_name("advisories", named.digest)
        for each in (gone, named, again, other):
            os.utime(file_of(tmp_path, each.digest), (1, 1))
        moment = time.time() - 60
        await horace.put(source(b"again"))
        asked = [gone.digest, named.digest, again.digest, digest_of(b"never put")]
        removed = await horace.remove(dict.fromkeys(asked, moment))
        assert (removed.blobs, removed.bytes) == (1, 4)
        assert await horace.digests() == sorted([named.digest, again.digest, other.digest])
        assert (horace.usage().blobs, horace.usage().bytes) == (3, 15)
        os.utime(file_of(tmp_path, again.digest), (moment - 7200, moment - 7200))
        assert (await horace.remove({again.digest: 1.0})).blobs == 1, "put again, and in an hour nobody referred to it"
