"""The lab, conversations, the search and reports in the page, as a person uses them; what others wrote stays text."""

from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from core.fiedler.ledger import Attempt, Caller, Ledger
from core.fiedler.money import Bound, Price, Used
from core.fiedler.policy import Leg
from core.lab import Lab
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_PROSE, Message
from tests.emads.echo import Echo
from tests.labs import call, lab_of_own
from tests.pages import flaws, live, seen, sideways, signed_in
from tests.reporting import EVIL
from tests.surface import Caller as Door

PARTS = ("", "/mads", "/sandboxes", "/costs", "/secrets", "/policy", "/incidents", "/audit", "/doctor")

EVIL_PLACES = (
    "/lab/mads",
    "/conversations",
    "/conversations/%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E",
    "/search?q=back",
)


@pytest.fixture(scope="module")
async def lab(anyio_backend: str) -> AsyncIterator[Lab]:
    evil_one = type("Evil", (Echo,), {"__doc__": f"{EVIL} \u202eback"})
    async with lab_of_own(echo=Echo, evil=evil_one) as lab:
        await call(lab, "echo", "say", conversation="greeting", text="hello #there")
        await call(lab, "echo", "keep", text="kept")
        tagged = Message(id=new_id(), conversation="tagged", kind=KIND_PROSE, text="all about the #harvest")
        await lab.rogers.publish(tagged, sender="operator")
        for number in range(130):
            said = Message(id=new_id(), conversation="long", kind=KIND_PROSE, text=f"word number {number}")
            await lab.rogers.publish(said, sender="operator")
        evil = Message(id=new_id(), conversation=EVIL, kind=KIND_PROSE, text=f"{EVIL} #tag-{EVIL} \u202eback\x1b[2J")
        await lab.rogers.publish(evil, sender=EVIL)
        yield lab


async def test_every_part_of_the_lab_is_shown_for_everybody(browser: Browser, lab: Lab) -> None:
    for (width, scheme), parts in seen(PARTS, (1600, "dark"), (360, "light")):
        async with signed_in(browser, lab.home, width=width, scheme=scheme) as found:
            for each in parts:
                await found.page.goto(f"/lab{each}")
                await live(found)
                assert await flaws(found) == [], each
                assert await sideways(found) == 0, each
            found.quiet()


async def test_the_map_draws_who_talks_to_whom_and_says_it_in_a_table(browser: Browser, lab: Lab) -> None:
    async with signed_in(browser, lab.home) as found:
        page = found.page
        await page.goto("/lab")
        await expect(page.get_by_role("img", name="connections")).to_be_visible()
        row = page.get_by_role("row", name="person operator mad echo")
        await expect(row).to_be_visible()
        before = await row.locator("td").nth(3).inner_text()
        await call(lab, "echo", "say", text="once more")
        await expect(row.locator("td").nth(3)).to_have_text(str(int(before) + 1))  # by itself, within a second or so
        found.quiet()


async def test_what_is_said_to_a_whole_conversation_is_in_the_table_and_not_drawn(browser: Browser, lab: Lab) -> None:
    async with signed_in(browser, lab.home) as found:
        page = found.page
        await page.goto("/lab")
        await expect(page.get_by_role("row", name="person operator its conversation")).to_be_visible()
        await expect(page.locator(".map-node", has_text="echo")).to_have_count(1)
        await expect(page.get_by_text("everybody")).to_have_count(0)
        labels = await page.locator(".map-rate").evaluate_all(
            "all => all.map(each => each.getBBox()).map(b => [b.x, b.y, b.x + b.width, b.y + b.height])"
        )
        for place, (left, top, right, bottom) in enumerate(labels):
            for other in labels[:place]:
                assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
        found.quiet()


async def test_a_link_to_a_part_of_the_lab_points_to_what_it_names(browser: Browser, lab: Lab) -> None:
    async with signed_in(browser, lab.home) as found:
        page = found.page
        await page.goto("/lab/mads?mad=echo")
        await expect(page.locator(".card.meant")).to_contain_text("echo")
        await page.goto("/lab/policy?rule=files")
        await expect(page.locator(".finding.meant")).to_contain_text("files")
        await page.goto("/lab/costs?by=run&days=1")
        await expect(page.get_by_label("Add up by")).to_have_value("run")
        await page.goto("/lab/incidents?mad=echo")
        await expect(page.get_by_role("searchbox", name="MAD")).to_have_value("echo")
        await page.goto("/lab/attic")
        await expect(page.get_by_role("alert")).to_contain_text("no such part")


async def spend(ledger: Ledger, caller: Caller) -> None:
    """Books one answer, as Fiedler does."""
    leg, price, bound = Leg("coder", "there/coder"), Price(input=3_000_000), Bound(100, 100, 400)
    async with ledger.account_of(caller) as account:
        name = new_id()
        attempt = Attempt(name, name, 1, "llm.complete", caller, account, leg, "there", "coder", price, bound, "")
        ledger.hold(attempt)
        await ledger.start(attempt)
        await ledger.settle(attempt, Used(input=100), "finished")


async def test_costs_are_told_of_the_run_that_was_asked_for_and_below_it_of_those_it_began(
    browser: Browser, lab: Lab
) -> None:
    assert lab.services.fiedler is not None
    ledger = lab.services.fiedler.ledger
    await ledger.open_account("run:foreman-1")
    await ledger.open_account("run:hopper-1", parent="run:foreman-1")
    await spend(ledger, Caller("foreman-1", "foreman", "c", "foreman-1", "run:foreman-1"))
    await spend(ledger, Caller("hopper-1", "hopper", "c/1", "hopper-1", "run:hopper-1"))
    await spend(ledger, Caller("fiedler", "fiedler"))
    async with signed_in(browser, lab.home) as found:
        rows = found.page.locator("tbody tr")
        await found.page.goto("/lab/costs?by=run&days=1")
        await expect(rows).to_have_count(3)
        for row, (name, tokens) in enumerate((("foreman-1", "200"), ("└ hopper-1", "100"), ("no run", "100"))):
            await expect(rows.nth(row)).to_contain_text(name)
            await expect(rows.nth(row)).to_contain_text(tokens)
        assert await found.page.locator("tbody a").all_inner_texts() == ["foreman-1", "hopper-1"]
        found.quiet()


async def test_a_grant_says_which_methods_it_lets_and_any_where_it_lets_all(browser: Browser, lab: Lab) -> None:
    operator = Door(lab, unix=True)
    assert (await operator.ask("POST", "/vault", {})).status == 201
    assert (await operator.ask("PUT", "/secrets/token", {"value": b64encode(b"a longer value").decode()})).status == 201
    for id, host, methods in (("grant1", "a.test", ["any"]), ("grant2", "b.test", ["GET", "POST"])):
        grant = {"id": id, "to": "mad:echo", "place": host, "methods": methods}
        assert (await operator.ask("POST", "/secrets/token/grants", grant)).status == 201
    async with signed_in(browser, lab.home) as found:
        await found.page.goto("/lab/secrets")
        await found.page.get_by_role("button", name="Grants and uses").click()
        rows = found.page.get_by_role("table", name="Grants").get_by_role("row")
        await expect(rows.filter(has_text="a.test")).to_contain_text("any method")
        await expect(rows.filter(has_text="b.test")).to_contain_text("GET POST")
        found.quiet()


async def test_conversations_are_found_by_tag_and_read_both_ways(browser: Browser, lab: Lab) -> None:
    async with signed_in(browser, lab.home) as found:
        page = found.page
        await page.goto("/conversations")
        await page.get_by_role("link", name="#harvest", exact=True).click()
        await expect(page.locator("tbody tr")).to_have_count(1)
        await page.locator("tbody .item-link").click()
        await expect(page.get_by_text("all about the #harvest").first).to_be_visible()
        await page.goto("/conversations/long")
        await expect(page.get_by_text("word number 129")).to_be_visible()
        await expect(page.get_by_text("word number 3", exact=True)).to_have_count(0)
        await page.get_by_role("button", name="Earlier").click()
        await expect(page.get_by_text("word number 12", exact=True)).to_have_count(1)
        await page.get_by_role("button", name="Earlier").click()
        await expect(page.get_by_text("word number 3", exact=True)).to_have_count(1)
        said = Message(id=new_id(), conversation="long", kind=KIND_PROSE, text="said just now")
        await lab.rogers.publish(said, sender="operator")
        await expect(page.get_by_text("said just now")).to_be_visible()
        found.quiet()


async def test_the_operator_speaks_to_a_mad_by_its_name(browser: Browser, lab: Lab) -> None:
    async with signed_in(browser, lab.home) as found:
        page = found.page
        await page.goto("/conversations")
        box = page.get_by_role("combobox", name="What to say")
        await box.fill("")
        await box.press_sequentially("@ech")
        await expect(page.get_by_role("option", name="echo")).to_be_visible()
        await page.keyboard.press("Enter")
        await expect(box).to_have_value("@echo ")
        await box.press_sequentially("are you there #roll-call")
        await page.get_by_role("button", name="Say it").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("are you there")
        await expect(page.locator(".message .run-link")).to_have_count(1)
        await expect(page.locator(".message").nth(1)).to_be_visible()  # whatever echo makes of prose
        found.quiet()


async def test_names_tags_and_words_of_others_are_text(browser: Browser, lab: Lab) -> None:
    for (width, scheme), places in seen(EVIL_PLACES, (360, "dark"), (1600, "light")):
        async with signed_in(browser, lab.home, width=width, scheme=scheme) as found:
            page = found.page
            for each in places:
                await page.goto(each)
                await live(found)
                assert await page.locator("main img, main script").count() == 0, each
                assert await flaws(found) == [], each
                assert await sideways(found) == 0, each
            found.quiet()


async def test_the_search_marks_what_it_found_and_leads_there(browser: Browser, lab: Lab) -> None:
    async with signed_in(browser, lab.home) as found:
        page = found.page
        await page.goto("/search")
        await expect(page.get_by_role("searchbox", name="Search for")).to_be_focused()
        await page.get_by_role("searchbox", name="Search for").fill('"word number 57"')
        await expect(page.locator("mark").first).to_be_visible()
        await page.keyboard.press("Escape")
        await page.keyboard.press("j")
        await page.keyboard.press("Enter")
        await expect(page.locator(".message.found")).to_contain_text("word number 57")
        found.quiet()
        await page.goto("/search")
        await page.get_by_role("searchbox", name="Search for").fill("form:ann")
        await expect(page.get_by_role("alert")).to_contain_text("there is no field 'form'")
        await page.get_by_role("searchbox", name="Search for").fill('"word number 57')
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("a quotation mark is never closed")


def test_no_part_of_the_page_names_a_place_outside() -> None:
    web = Path(__file__).parents[2] / "core/grace/web"
    for each in [*web.glob("js/*.js"), *web.glob("*.css")]:
        text = each.read_text()
        assert "innerHTML" not in text.replace("no innerHTML", ""), each
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", ""), each
        assert "https://" not in text, each
