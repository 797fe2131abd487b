"""The page's runs: the list as it changes, one run as it goes, and what a worker writes, which is text."""

import json
import re
from collections.abc import AsyncIterator

import pytest
from anyio import Event, fail_after, sleep, sleep_forever
from playwright.async_api import Browser, Route, expect

from core.lab import Lab
from core.run import State
from protos.blobs import store
from protos.ids import new_id
from protos.tools import Call, tool
from protos.v1.message_pb2 import KIND_CALL, Message
from tests.browser import Watched
from tests.emads.echo import Echo, Said
from tests.labs import call, lab_of_own
from tests.pages import flaws, live, run_of, sideways, signed_in
from tests.sizes import full

LINES = 10_000 if full() else 2_000
MARKUP = '<img src=x onerror="document.title=1"><script>document.title="owned"</script>"\'&lt;'
BIDI = "invoice\u202egnp.exe \u2066hidden\u2069 zero\u200bwidth\ufeff"
ANSI = "\x1b[31mred\x1b[0m\x1b]0;title\x07\rover\x00"
WORD = "w" * 3000
HOSTILE = {"markup": MARKUP, "bidi": BIDI, "ansi": ANSI, "word": WORD}


class Loud:
    """A MAD that writes what nobody wants to read, and waits where it is told to."""

    gate = Event()  # opened by a test

    @tool(effects="write")
    async def write(self, call: Call, *, lines: int, title: str) -> Said:
        """Writes lines, and puts hostile text wherever there is room for text."""
        for number in range(lines):
            await call.log(f"line {number} {HOSTILE[list(HOSTILE)[number % 4]] if number < 8 else ''}")
        for each in HOSTILE.values():
            await call.progress(each[:300], what="command", command=each[:300], exit_code=0, seconds=0.1)
            await call.progress("edited", what="edit", path=each[:200], added=1, removed=2)
        name = f"../../{MARKUP[:40]}.txt"
        blob = await store(call.ctx.files, MARKUP.encode(), name=name, media_type="text/html")
        call.ctx.verdict.artifacts.append(blob)
        call.ctx.verdict.evidence |= {"kept": MARKUP, "nested": {BIDI: [ANSI]}}
        return {"text": " ".join(HOSTILE.values())}

    @tool(effects="read", steerable=True)
    async def wait(self, call: Call, *, text: str) -> Said:
        """Says that it waits, and waits for a test."""
        await call.log("at the gate")
        await Loud.gate.wait()
        await call.log("through the gate")
        return {"text": text}

    @tool(effects="read")
    async def hang(self, call: Call) -> Said:
        """Waits for ever."""
        await sleep_forever()
        return {"text": "never"}


@pytest.fixture(scope="module")
async def lab(anyio_backend: str) -> AsyncIterator[Lab]:
    async with lab_of_own("[runs]\nmax_running = 8\n", echo=Echo, loud=Loud) as lab:
        await call(lab, "echo", "say", text="the first of all")
        await call(lab, "echo", "misbehave", how="raise")
        yield lab


async def begun(lab: Lab, mad: str, tool: str, **arguments: object) -> str:
    """Starts a run, and tells its id once it is at work."""
    id, data = new_id(), json.dumps(arguments)
    message = Message(id=id, conversation=new_id(), recipient=mad, kind=KIND_CALL, tool=tool, data=data)
    await lab.rogers.publish(message, sender="operator")
    run = lab.runs.id_of(mad, id)
    with fail_after(60):
        while not await lab.runs.known(run) or (await lab.runs.get(run)).state is not State.RUNNING:
            await sleep(0.02)
    return run


async def rows_of(found: Watched) -> list[str]:
    """The ids in the list."""
    ids: list[str] = await found.page.locator("tr[data-id]").evaluate_all("rows => rows.map(row => row.dataset.id)")
    return ids


async def test_a_new_run_comes_to_the_list_by_itself_and_changes_there(browser: Browser, lab: Lab) -> None:
    async with signed_in(browser, lab.home) as found:
        await found.page.goto("/runs")
        await live(found)
        run = await begun(lab, "loud", "hang")
        row = found.page.locator(f"tr[data-id='{run}']")
        await expect(row).to_contain_text("running")
        assert (await rows_of(found))[0] == run
        await lab.dispatcher.cancel(run, "the test is over")
        await expect(row).to_contain_text("cancelled")
        assert len(set(await rows_of(found))) == len(await rows_of(found))
        found.quiet()


async def test_what_is_filtered_for_stands_in_the_address_and_survives_a_reload(browser: Browser, lab: Lab) -> None:
    async with signed_in(browser, lab.home) as found:
        await found.page.goto("/runs")
        await live(found)
        await found.page.get_by_label("Outcome").select_option("failed")
        await expect(found.page).to_have_url(f"{lab.web}/runs?outcome=failed")
        await expect(found.page.locator("tr[data-id]").first).to_contain_text("failed")
        await found.page.get_by_label("Task").fill("misbehave")
        await expect(found.page).to_have_url(f"{lab.web}/runs?outcome=failed&q=misbehave")
        before = await rows_of(found)
        await found.page.reload()
        await live(found)
        await expect(found.page.get_by_label("Outcome")).to_have_value("failed")
        assert await rows_of(found) == before
        await found.page.get_by_label("Task").fill("nothing has this name")
        await found.page.get_by_role("button", name="Clear filters").click()
        await expect(found.page).to_have_url(f"{lab.web}/runs")
        await expect(found.page.get_by_label("Outcome")).to_have_value("")
        found.quiet()


async def test_a_late_answer_to_an_earlier_filter_does_not_take_the_place_of_the_later_one(
    browser: Browser, lab: Lab
) -> None:
    asked, answered, earlier = Event(), Event(), re.compile(r"/api/v1/runs\?.*q=misbehave")

    async def late(route: Route) -> None:
        asked.set()
        await answered.wait()
        await route.continue_()

    async with signed_in(browser, lab.home) as found:
        page = found.page
        await page.goto("/runs")
        await live(found)
        await page.route(earlier, late)
        await page.get_by_label("Task").fill("misbehave")
        with fail_after(60):
            await asked.wait()
        await page.get_by_label("Task").fill("the first of all")
        rows = page.locator("tr[data-id]")
        await expect(rows).to_have_count(1)
        await expect(rows).to_contain_text("the first of all")
        async with page.expect_response(earlier) as response:
            answered.set()
        await (await response.value).finished()
        await page.evaluate("new Promise((resolve) => setTimeout(resolve, 100))")
        await expect(rows).to_contain_text("the first of all")
        found.quiet()


async def test_what_happens_while_the_list_is_asked_for_is_in_it(browser: Browser, lab: Lab) -> None:
    asked, answered = Event(), Event()

    async def late(route: Route) -> None:
        answer = await route.fetch()
        asked.set()
        await answered.wait()
        await route.fulfill(response=answer)

    async with signed_in(browser, lab.home) as found:
        page = found.page
        await page.goto("/runs")
        await live(found)
        await page.route(re.compile(r"/api/v1/runs\?.*q=in.the.meantime"), late)
        await page.get_by_label("Task").fill("in the meantime")
        with fail_after(60):
            await asked.wait()
        await call(lab, "echo", "say", text="in the meantime")
        answered.set()
        await expect(page.locator("tr[data-id]")).to_have_count(1)
        await expect(page.locator("tr[data-id]")).to_contain_text("succeeded")
        found.quiet()


async def test_older_runs_come_a_page_at_a_time(browser: Browser, lab: Lab) -> None:
    for number in range(52):
        await call(lab, "echo", "say", text=f"one of many {number}")
    async with signed_in(browser, lab.home) as found:
        await found.page.goto("/runs?q=one+of+many")
        await live(found)
        await expect(found.page.locator("tr[data-id]")).to_have_count(50)
        await found.page.get_by_role("button", name="Older").click()
        await expect(found.page.locator("tr[data-id]")).to_have_count(52)
        assert len(set(await rows_of(found))) == 52
        await expect(found.page.get_by_role("button", name="Older")).to_have_count(0)
        found.quiet()


async def test_a_run_is_watched_from_its_work_to_its_end(browser: Browser, lab: Lab) -> None:
    Loud.gate = Event()
    run = await begun(lab, "loud", "wait", text="done at last")
    async with signed_in(browser, lab.home) as found:
        page = found.page
        await page.goto(f"/runs/{run}")
        await live(found)
        await expect(page.get_by_role("log")).to_contain_text("at the gate")
        await expect(page.locator(".steps-line [aria-current=step]")).to_contain_text("running")
        await page.get_by_role("button", name="Say something").click()
        await page.get_by_role("textbox", name="What to say").fill("mind the gap")
        await page.get_by_role("button", name="Say it").click()
        await expect(page.locator(".thread")).to_contain_text("mind the gap")
        Loud.gate.set()
        await expect(page.get_by_role("log")).to_contain_text("through the gate")
        await expect(page.locator(".thread")).to_contain_text("done at last")
        await expect(page.locator(".steps-line [aria-current=step]")).to_contain_text("destroyed")
        await expect(page.get_by_role("heading", name="What came of it")).to_contain_text("succeeded")
        ids = await page.locator(".thread [data-id]").evaluate_all("all => all.map(each => each.dataset.id)")
        assert len(ids) == len(set(ids)) == 3
        assert (await page.get_by_role("log").inner_text()).count("the gate") == 2
        await page.get_by_role("button", name="Run again").click()
        await expect(page.get_by_role("heading", level=1)).not_to_have_text(run)
        assert page.url != f"{lab.web}/runs/{run}"
        found.quiet()


async def test_a_run_is_cancelled_only_when_that_is_said_twice(browser: Browser, lab: Lab) -> None:
    run = await begun(lab, "loud", "hang")
    async with signed_in(browser, lab.home) as found:
        page = found.page
        await page.goto(f"/runs/{run}")
        await live(found)
        await page.get_by_role("button", name="Cancel").click()
        await page.get_by_role("dialog").get_by_role("button", name="Cancel", exact=True).click()
        assert (await lab.runs.get(run)).state is State.RUNNING
        await page.get_by_role("button", name="Cancel").click()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_have_count(0)
        assert (await lab.runs.get(run)).state is State.RUNNING
        await page.get_by_role("button", name="Cancel").click()
        await page.get_by_role("button", name="Cancel the run").click()
        await expect(page.locator(".run-title")).to_contain_text("cancelled")
        assert "operator asked for it" in (await lab.runs.get(run)).reason
        found.quiet()


async def test_whatever_a_worker_writes_is_text_and_shows_what_it_hides(browser: Browser, lab: Lab) -> None:
    run = await run_of(lab, "loud", "write", json.dumps({"lines": 8, "title": MARKUP}))
    async with signed_in(browser, lab.home, width=360, height=780) as found:
        page = found.page
        await page.goto(f"/runs/{run}")
        await live(found)
        await expect(page.get_by_role("heading", name="Tools")).to_be_visible()
        await expect(page.get_by_role("log")).to_contain_text("line 7")
        assert (await page.title()).endswith(f"{run} · madlab")
        assert await page.locator("main script, main img, main iframe, main style").count() == 0
        text = await page.locator("main").inner_text()
        assert MARKUP in text
        for character in "\u202e\u2066\u200b\ufeff\x1b\x07\x00":
            assert character not in text, hex(ord(character))
        for shown in ("⟨U+202E⟩", "⟨U+200B⟩", "⟨U+FEFF⟩", "␛[31mred"):
            assert shown in text
        assert await sideways(found) == 0
        assert await flaws(found) == []
        found.quiet()


async def test_a_file_is_saved_under_a_harmless_name_and_never_opened(browser: Browser, lab: Lab) -> None:
    run = await run_of(lab, "loud", "write", json.dumps({"lines": 1, "title": "x"}))
    async with signed_in(browser, lab.home) as found:
        await found.page.goto(f"/runs/{run}")
        await live(found)
        box = found.page.get_by_role("region", name="Files it left")
        async with found.page.expect_download() as saving:
            await box.get_by_role("button").click()
        saved = await saving.value
        assert "/" not in saved.suggested_filename
        assert not saved.suggested_filename.startswith(".")
        path = await saved.path()
        assert path.read_text() == MARKUP
        assert found.page.url == f"{lab.web}/runs/{run}"
        found.quiet()


async def test_thousands_of_lines_leave_the_page_small_and_are_all_there(browser: Browser, lab: Lab) -> None:
    run = await run_of(lab, "loud", "write", json.dumps({"lines": LINES, "title": "long"}))
    async with signed_in(browser, lab.home) as found:
        page = found.page
        await page.goto(f"/runs/{run}")
        await live(found)
        await expect(page.locator(".log-bar")).to_contain_text(f"of {LINES // 1000},")
        await expect(page.get_by_role("log")).to_contain_text(f"line {LINES - 1}")
        assert await page.locator(".line").count() <= 400
        assert await page.locator("*").count() < 3000
        await page.get_by_role("searchbox").fill("line 1321 ")
        await expect(page.locator(".line")).to_have_count(1)
        await page.get_by_role("searchbox").fill("")
        await page.get_by_role("button", name="Earlier").click()
        await expect(page.get_by_role("log")).not_to_contain_text(f"line {LINES - 1} ")
        await page.get_by_role("button", name="Newest").click()
        await expect(page.get_by_role("log")).to_contain_text(f"line {LINES - 1}")
        found.quiet()
