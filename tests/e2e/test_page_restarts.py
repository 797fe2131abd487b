"""The page outlives the core: it says that it waits, finds the next one, and has missed nothing and nothing twice."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from anyio import to_thread
from playwright.async_api import Browser, expect

from core.grace.cli.client import Client
from tests.commands import ECHO, Madlab, a_lab
from tests.labs import a_home, opened
from tests.pages import live, signed_in


@pytest.fixture(scope="module")
async def madlab(anyio_backend: str) -> AsyncIterator[Madlab]:
    """A lab in a process of its own."""
    context = a_lab(ECHO)
    yield await to_thread.run_sync(context.__enter__)
    await to_thread.run_sync(context.__exit__, None, None, None)


async def say(madlab: Madlab, text: str, conversation: str) -> str:
    """Calls the resident, as the operator; tells the message's id."""
    message = {"recipient": "echo", "kind": "call", "tool": "say", "arguments": {"text": text}}
    said = await to_thread.run_sync(Client(madlab.home).publish, message | {"conversation": conversation})
    id: str = said["id"]
    return id


async def test_a_core_that_is_killed_and_back_is_caught_up_with(browser: Browser, madlab: Madlab) -> None:
    async with signed_in(browser, madlab.home) as found:
        page = found.page
        await to_thread.run_sync(madlab.kill_core)
        await expect(page.locator(".live")).to_have_text("Reconnecting…")
        await page.get_by_role(
            "link", name="Runs", exact=True
        ).click()  # what cannot be asked for now is told, and comes later
        await expect(page.get_by_role("alert")).to_contain_text("does not answer")
        await to_thread.run_sync(madlab.up)
        await live(found)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Runs")
        await expect(page.get_by_text("No runs yet").or_(page.locator("tr.item").first)).to_be_visible()
        said = [each for each in found.said if "ERR_" not in each and "does not answer" not in each]
        assert said == []
        assert found.elsewhere == []


async def test_an_address_that_was_given_up_says_how_to_go_on(browser: Browser) -> None:
    with a_home(f"{ECHO}[runs]\nlease_s = 1\n") as home:
        async with AsyncExitStack() as up:
            lab = await up.enter_async_context(opened(home))
            async with signed_in(browser, home) as found:
                lab.keep_runs = False  # as `madlab down` says
                await up.aclose()
                await expect(found.page.locator(".live")).to_have_text("Gone. Type: madlab open")


async def test_what_is_said_while_the_page_is_cut_off_is_told_once_when_it_is_back(
    browser: Browser, madlab: Madlab
) -> None:
    follows = """async (conversation) => {
        const {follow, mark} = await import("/assets/js/live.js");
        const since = await mark();
        const heard = [];
        let backs = 0;
        follow(["conversation:" + conversation], (event) => {
            if (event.name === "message") heard.push(event.data.data.text);
            if (event.name === "back") backs += 1;
            document.body.dataset.heard = heard.join(" ");
            document.body.dataset.backs = backs;
        }, since);
    }"""
    async with signed_in(browser, madlab.home) as found:
        body, conversation = found.page.locator("body"), f"talk-{os.urandom(4).hex()}"
        await found.page.evaluate(follows, conversation)
        await say(madlab, "first", conversation)
        heard = "first first"  # the call, and its reply
        await expect(body).to_have_attribute("data-heard", heard)
        for text in ("second", "third"):
            await to_thread.run_sync(madlab.kill_core)
            await to_thread.run_sync(madlab.up)
            await say(madlab, text, conversation)
            heard += f" {text} {text}"
            await expect(body).to_have_attribute("data-heard", heard)
        await expect(body).to_have_attribute("data-backs", "2")
        await say(madlab, "last", conversation)
        await expect(body).to_have_attribute("data-heard", f"{heard} last last")
