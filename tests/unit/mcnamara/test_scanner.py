"""The driver that trusts no scanner: canaries and poisoned files."""

from collections.abc import Sequence
from pathlib import Path

import anyio

from periphery.mcnamara.findings import Hit
from periphery.mcnamara.inventory import File
from periphery.mcnamara.scanner import Batch, Canary, Coverage, Failed, drive


class Reader:
    """A scanner that finds the word `bad`, and does what its files tell it to."""

    name = "reader"
    version = "1"
    canary = Canary("canary.txt", "bad\n", "reader.bad")
    seconds = 5.0

    def __init__(self) -> None:
        self.batches: list[int] = []

    def applies(self, file: File) -> bool:
        return file.kind == "text"

    async def look(self, files: Sequence[File], seconds: float) -> Batch:
        self.batches.append(len(files))
        texts = {each.path: each.text() for each in files}
        if any("crash" in text for text in texts.values()):
            raise Failed("it crashed")
        if any("hang" in text for text in texts.values()):
            await anyio.sleep(min(seconds, 0.05))
            raise Failed("took more than 0 s")
        if any("blind" in text for text in texts.values()):
            return Batch()
        missed = {path: "reader: not mine" for path, text in texts.items() if "unread" in text}
        return Batch([Hit("reader.bad", "low", path, 1, "m") for path, text in texts.items() if "bad" in text], missed)


def files(folder: Path, *texts: str) -> list[File]:
    made = []
    for number, text in enumerate(texts):
        place = folder / f"{number}.txt"
        place.write_text(text)
        made.append(File(place.name, place, len(text)))
    return made


async def driven(tmp_path: Path, *texts: str) -> Coverage:
    async def tell(done: int, total: int) -> None:
        assert done <= total

    with anyio.fail_after(60):
        return await drive(Reader(), files(tmp_path, *texts), tell)


async def test_a_healthy_scanner_reads_everything_and_its_canary_is_no_finding(tmp_path: Path) -> None:
    coverage = await driven(tmp_path, "good", "bad", "good")
    assert (coverage.state, coverage.failed, len(coverage.scanned)) == ("ok", False, 3)
    assert [(hit.path, hit.scanner, hit.snippet) for hit in coverage.hits] == [("1.txt", "reader", "bad")]


async def test_one_poisoned_file_blinds_the_scanner_for_itself_alone(tmp_path: Path) -> None:
    for poison in ("crash", "hang", "blind"):
        coverage = await driven(tmp_path, *["bad"] * 9, poison, *["bad"] * 7)
        assert coverage.failed
        assert list(coverage.missed) == ["9.txt"]
        assert len(coverage.hits) == 16
        assert coverage.state.startswith("partial: 1 of 17 files not read")


async def test_a_scanner_that_sees_nothing_at_all_has_failed_and_is_never_clean(tmp_path: Path) -> None:
    coverage = await driven(tmp_path, *["blind"] * 40)
    assert coverage.failed
    assert coverage.state == "failed: its canary went unseen"
    assert len(coverage.missed) == 40


async def test_a_file_that_a_scanner_says_it_did_not_read_is_missed(tmp_path: Path) -> None:
    coverage = await driven(tmp_path, "good", "unread")
    assert (coverage.failed, coverage.scanned, list(coverage.missed)) == (True, {"0.txt"}, ["1.txt"])


async def test_without_files_for_it_a_scanner_does_not_run(tmp_path: Path) -> None:
    assert (await driven(tmp_path)).state == "no files for it"
