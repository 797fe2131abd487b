"""The page's frame: how one gets in and out, what it loads, and that it is for everybody."""

import json
import re
import time
from collections.abc import AsyncIterator

import pytest
from anyio import to_thread
from playwright.async_api import Browser, Request, Route, expect

from core.lab import Lab
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_PROSE, Message
from tests.browser import watched
from tests.emads.echo import Echo
from tests.labs import call, lab_of_own
from tests.pages import flaws, live, run_of, seen, sideways, signed_in, ticket

FIRST_VIEW = 100_000  # bytes on the wire
PLACES = (
    *("/", "/runs", "/runs?outcome=failed", "/runs?q=nothing-like-this", "/lab/no/where"),
    *("/patches", "/reports", "/conversations", "/search?q=hello", "/lab"),
)


@pytest.fixture(scope="module")
async def lab(anyio_backend: str) -> AsyncIterator[Lab]:
    async with lab_of_own(echo=Echo) as lab:
        await call(lab, "echo", "say", text="hello")
        await call(lab, "echo", "keep", text="kept")
        await call(lab, "echo", "misbehave", how="raise")
        yield lab


async def test_the_ticket_is_out_of_the_address_before_anything_is_sent(browser: Browser, lab: Lab) -> None:
    url = await to_thread.run_sync(ticket, lab.home)
    async with watched(browser, lab.web) as found:
        addresses = []

        async def look(route: Route, request: Request) -> None:
            addresses.append(await found.page.evaluate("location.href"))
            await route.continue_()

        await found.page.route("**/api/v1/sessions", look)
        await found.page.goto(url)
        await live(found)
        assert addresses == [f"{lab.web}/"]
        assert found.page.url == f"{lab.web}/"
        assert not [each for each in found.asked if "ticket=" in each and "#" not in each]
        found.quiet()


async def test_without_a_token_it_says_what_to_type_and_shows_nothing_of_the_lab(browser: Browser, lab: Lab) -> None:
    async with watched(browser, lab.web) as found:
        await found.page.goto("/runs")
        await expect(found.page.get_by_role("heading", name="not signed in")).to_be_focused()
        await expect(found.page.get_by_text("madlab open")).to_be_visible()
        await expect(found.page.get_by_role("navigation")).to_have_count(0)
        assert not [each for each in found.asked if "/api/" in each]
        assert await flaws(found) == []
        found.quiet()


async def test_a_session_that_is_ended_leads_back_there_at_once(browser: Browser, lab: Lab) -> None:
    async with signed_in(browser, lab.home) as found:
        token = await found.page.evaluate("localStorage.getItem('madlab-token')")
        headers = {"authorization": f"Bearer {token}"}
        answer = await found.page.request.delete(f"{lab.web}/api/v1/sessions/current", headers=headers)
        assert answer.ok, await answer.text()
        await expect(found.page.get_by_role("heading", name="not signed in")).to_be_visible()
        assert await found.page.evaluate("localStorage.getItem('madlab-token')") is None
        found.quiet(but=["401", "ERR_INCOMPLETE_CHUNKED"])


async def test_a_view_that_comes_misses_nothing_while_the_stream_is_not_yet_opened_for_it(
    browser: Browser, lab: Lab
) -> None:
    async with signed_in(browser, lab.home) as found:
        await found.page.clock.install()
        await found.page.clock.pause_at(
            time.time() + 10
        )  # by a timer; less than a silence that the page takes for the end
        await found.page.evaluate(
            """async () => {
              const {follow, mark} = await import("/assets/js/live.js");
              const since = await mark();
              const note = (name, word) => (document.body.dataset[name] = (document.body.dataset[name] ?? "") + word);
              follow(["runs"], (event) => event.name === "run" && note("runs", "*"), since);
              const hear = (event) => event.name === "message" && note("heard", event.data.text);
              follow(["conversation:meanwhile"], hear, since);
            }"""
        )
        said = Message(id=new_id(), conversation="meanwhile", kind=KIND_PROSE, text="said in between")
        await lab.rogers.publish(said, sender="operator")
        await call(lab, "echo", "say", text="a run, which everybody hears of")
        await expect(found.page.locator("body")).to_have_attribute("data-runs", re.compile(r"\*"))
        await expect(found.page.locator("body[data-heard]")).to_have_count(0)
        await found.page.clock.resume()
        await expect(found.page.locator("body")).to_have_attribute("data-heard", "said in between")
        found.quiet()


async def test_a_used_ticket_is_told_and_opens_nothing(browser: Browser, lab: Lab) -> None:
    url = await to_thread.run_sync(ticket, lab.home)
    async with watched(browser, lab.web) as first:
        await first.page.goto(url)
        await live(first)
    async with watched(browser, lab.web) as second:
        await second.page.goto(url)
        await expect(second.page.get_by_role("alert")).to_contain_text("used already")
        await expect(second.page.get_by_role("heading", name="not signed in")).to_be_visible()


async def test_the_first_view_is_under_a_hundred_kilobytes_on_the_wire(browser: Browser, lab: Lab) -> None:
    async with signed_in(browser, lab.home) as found:
        session = await found.page.context.new_cdp_session(found.page)
        sizes: list[float] = []
        await session.send("Network.enable")
        await session.send("Network.setCacheDisabled", {"cacheDisabled": True})
        session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
        await found.page.reload()
        await live(found)
        await found.page.wait_for_load_state("load")
        assert len(sizes) > 8, sizes
        print(f"the first view: {sum(sizes):,.0f} bytes in {len(sizes)} answers")
        assert sum(sizes) < FIRST_VIEW
        found.quiet()


async def test_every_place_is_for_everybody_and_no_wider_than_its_window(browser: Browser, lab: Lab) -> None:
    run = await run_of(lab, "echo", "keep", json.dumps({"text": "w" * 3000}))
    for (width, scheme), places in seen((*PLACES, f"/runs/{run}"), (360, "light"), (1600, "dark")):
        async with signed_in(browser, lab.home, width=width, height=780, scheme=scheme) as found:
            for each in places:
                await found.page.goto(each)
                await live(found)
                assert await flaws(found) == [], each
                assert await sideways(found) == 0, each
            found.quiet()


async def test_on_a_small_telephone_the_ways_are_behind_a_button(browser: Browser, lab: Lab) -> None:
    async with signed_in(browser, lab.home, width=360, height=780) as found:
        await found.page.get_by_role("button", name="Menu").click()
        assert await flaws(found) == []
        await found.page.get_by_role("navigation", name="Main").get_by_role("link", name="Runs").click()
        await expect(found.page.get_by_role("heading", level=1, name="Runs")).to_be_focused()
        await expect(found.page.get_by_role("navigation", name="Main")).to_be_hidden()
        found.quiet()


async def test_everything_is_reached_by_the_keyboard_alone(browser: Browser, lab: Lab) -> None:
    async with signed_in(browser, lab.home) as found:
        page, keys = found.page, found.page.keyboard
        await keys.press("Tab")
        await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        await keys.press("Enter")
        await expect(page.locator("main")).to_be_focused()
        for key in ("g", "r"):
            await keys.press(key)
        await expect(page.get_by_role("heading", level=1, name="Runs")).to_be_focused()
        for key in ("j", "j", "k"):
            await keys.press(key)
        first = page.locator("tr.item .item-link").first
        await expect(first).to_be_focused()
        name = await first.inner_text()
        await keys.press("Enter")
        await expect(page.get_by_role("heading", level=1, name=name)).to_be_focused()
        await keys.press("u")
        await expect(page.get_by_role("heading", level=1, name="Runs")).to_be_focused()
        await keys.press("/")
        await expect(page.get_by_role("searchbox")).to_be_focused()
        await keys.type("gr?")
        await expect(page.get_by_role("searchbox")).to_have_value("gr?")
        await keys.press("Escape")
        await keys.press("?")
        await expect(page.get_by_role("dialog")).to_contain_text("Next and previous in a list")
        assert await flaws(found) == []
        await keys.press("Escape")
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await keys.press("Control+k")
        await expect(page.get_by_role("combobox", name="Go to")).to_be_focused()
        await keys.type("atten")
        assert await flaws(found) == []
        await keys.press("Enter")
        await expect(page.get_by_role("heading", level=1, name="Attention")).to_be_focused()
        found.quiet()


async def test_the_colours_are_the_systems_until_somebody_chooses(browser: Browser, lab: Lab) -> None:
    async with signed_in(browser, lab.home, scheme="dark") as found:
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = await found.page.evaluate(ground)
        await found.page.get_by_role("button", name="Colours: as the system").click()
        light = await found.page.evaluate(ground)
        assert dark != light
        await found.page.reload()
        await live(found)
        assert await found.page.evaluate(ground) == light
        await expect(found.page.get_by_role("button", name="Colours: light")).to_be_visible()
        found.quiet()


async def test_a_page_that_is_kept_is_asked_for_again_and_not_sent_again(browser: Browser, lab: Lab) -> None:
    async with watched(browser, lab.web) as found:
        first = await found.page.request.get("/assets/style.css")
        kept = {"if-none-match": first.headers["etag"]}
        assert (await found.page.request.get("/assets/style.css", headers=kept)).status == 304
        assert first.headers["content-type"] == "text/css; charset=utf-8"
        policy = (await found.page.request.get("/lab/anything/at/all")).headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "require-trusted-types-for 'script'" in policy
        for missing in ("/assets/README.md", "/assets/../api.py", "/assets/js/__init__.py"):
            assert (await found.page.request.get(missing)).status == 404, missing
