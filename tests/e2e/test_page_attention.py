"""The start: what needs a person comes there by itself, best first, and goes when it was dealt with."""

from collections.abc import AsyncIterator

import pytest
from anyio import Event, create_task_group, fail_after, sleep, to_thread
from playwright.async_api import Browser, expect

from core.grace.cli.client import Client
from core.lab import Lab
from core.policy.policy import Policy
from core.policy.rules import BUILT_IN, parse_policy, read_policy
from protos.tools import Call, tool
from protos.v1.message_pb2 import KIND_FAULT, KIND_REPLY, Message
from tests.browser import Scheme
from tests.emads.echo import Echo, Said
from tests.labs import call, lab_of_own
from tests.pages import flaws, live, sideways, signed_in, tabbed_to
from tests.sizes import full

RULE = """
[[rules]]
name = "keeping"
kinds = ["files.put"]
principals = ["mad:echo"]
verdict = "ask"
reason = "what is kept is looked at"
"""
CALLING = """
[[rules]]
name = "calling"
kinds = ["bus.call"]
principals = ["operator"]
targets = ["echo.say"]
verdict = "ask"
reason = "what is said is looked at"
"""


class Patient:
    """Is at work for as long as a test wants to see it there."""

    gate = Event()

    @tool(effects="read")
    async def wait(self, call: Call, *, text: str) -> Said:
        """Waits for the test."""
        await Patient.gate.wait()
        return {"text": text}


@pytest.fixture(scope="module")
async def lab(anyio_backend: str) -> AsyncIterator[Lab]:
    async with lab_of_own("[llm]\nusd_per_day = 5\n", echo=Echo, patient=Patient) as lab:
        yield lab


@pytest.mark.parametrize("scheme", ["light", "dark"] if full() else ["dark"])
async def test_a_newcomer_is_told_what_to_type_first(browser: Browser, scheme: Scheme) -> None:
    async with lab_of_own() as fresh, signed_in(browser, fresh.home, scheme=scheme, width=360) as found:
        await expect(found.page.get_by_text("madlab scan .")).to_be_visible()
        assert await sideways(found) == 0
        assert await flaws(found) == []
        await found.page.goto("/runs")
        await live(found)
        await expect(found.page.get_by_text("No runs yet")).to_be_visible()
        found.quiet()


async def test_a_run_that_fails_comes_up_and_goes_when_it_was_seen(browser: Browser, lab: Lab) -> None:
    async with signed_in(browser, lab.home) as found:
        page = found.page
        await expect(page.locator(".figure", has_text="Spent today")).to_contain_text("of $5")
        await call(lab, "echo", "misbehave", how="raise")
        item = page.locator(".queue-item", has_text="misbehave")
        await expect(item).to_contain_text("RuntimeError")
        await expect(page.get_by_role("link", name="Attention, 1 open")).to_be_visible()
        await call(lab, "echo", "misbehave", how="raise")
        await expect(item).to_contain_text("(2 times)")
        await expect(page.locator(".queue-item")).to_have_count(1)
        assert await flaws(found) == []
        await item.get_by_role("button", name="Dismiss").click()
        await expect(page.locator(".queue-item")).to_have_count(0)
        await expect(page.get_by_role("heading", name="Nothing needs you")).to_be_visible()
        found.quiet()


async def test_it_is_run_again_from_there(browser: Browser, lab: Lab) -> None:
    async with signed_in(browser, lab.home) as found:
        await call(lab, "echo", "misbehave", how="raise")
        item = found.page.locator(".queue-item", has_text="misbehave")
        await item.get_by_role("button", name="Run it again").click()
        await expect(item).to_contain_text("(2 times)")
        await item.get_by_role("button", name="Dismiss").click()
        await expect(item).to_have_count(0)
        found.quiet()


async def test_what_ends_and_what_is_at_work_is_seen_beside_it(browser: Browser, lab: Lab) -> None:
    async with signed_in(browser, lab.home) as found, create_task_group() as tasks:
        box = found.page.get_by_role("region", name="At work")
        await expect(box).to_contain_text("No run is at work")
        tasks.start_soon(lambda: call(lab, "patient", "wait", text="slowly"))
        await expect(box).to_contain_text("slowly")
        Patient.gate.set()
        await expect(found.page.get_by_role("region", name="Lately")).to_contain_text("slowly")
        await expect(box).to_contain_text("No run is at work")
        found.quiet()


async def test_a_question_is_answered_there_and_twice_where_it_cannot_be_taken_back(
    browser: Browser, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = Policy([parse_policy(RULE, "the test's"), read_policy(BUILT_IN)])
    monkeypatch.setattr(lab.services, "policy", asks)
    answers: list[Message] = []

    async def keep(text: str) -> None:
        answers.append(await call(lab, "echo", "keep", text=text))

    async with signed_in(browser, lab.home) as found, create_task_group() as tasks:
        page = found.page
        item = page.locator(".queue-item", has_text="echo wants to store")
        for word, kind in (("Approve", KIND_REPLY), ("Deny", KIND_FAULT)):
            tasks.start_soon(keep, word)
            await expect(item).to_contain_text("what is kept is looked at")
            await expect(item.locator(".form")).to_contain_text("mad:echo for run:")
            await item.get_by_role("button", name=word).click()
            if word == "Approve":
                await expect(page.get_by_role("dialog")).to_contain_text("echo wants to store")
                await expect(page.get_by_role("region", name="What is approved")).to_contain_text("mad:echo for run:")
                assert await flaws(found) == []
                assert answers == []
                await page.get_by_role("dialog").get_by_role("button", name="Approve").click()
            await expect(item).to_have_count(0)
            with fail_after(60):
                while not answers:
                    await sleep(0.02)
            assert answers.pop().kind == kind
        found.quiet()


async def test_a_question_is_answered_by_the_keyboard_alone(
    browser: Browser, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = Policy([parse_policy(RULE, "the test's"), read_policy(BUILT_IN)])
    monkeypatch.setattr(lab.services, "policy", asks)
    answers: list[Message] = []

    async def keep() -> None:
        answers.append(await call(lab, "echo", "keep", text="by keys"))

    async with signed_in(browser, lab.home) as found, create_task_group() as tasks:
        page, keys = found.page, found.page.keyboard
        tasks.start_soon(keep)
        item = page.locator(".queue-item", has_text="echo wants to store")
        await tabbed_to(found, item.get_by_role("button", name="Approve"))
        await keys.press("Enter")
        dialog = page.get_by_role("dialog")
        await tabbed_to(found, dialog.get_by_role("region", name="What is approved"))
        await keys.press("ArrowDown")
        await tabbed_to(found, dialog.get_by_role("button", name="Approve"))
        assert answers == []
        await keys.press("Enter")
        await expect(item).to_have_count(0)
        with fail_after(60):
            while not answers:
                await sleep(0.02)
        assert answers[0].kind == KIND_REPLY
        found.quiet()


async def test_what_is_too_long_for_the_list_is_read_whole_before_it_is_approved(
    browser: Browser, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = Policy([parse_policy(CALLING, "the test's"), read_policy(BUILT_IN)])
    monkeypatch.setattr(lab.services, "policy", asks)
    said = {"recipient": "echo", "kind": "call", "tool": "say", "arguments": {"text": "x" * 3_000 + " and the end"}}
    async with signed_in(browser, lab.home) as found, create_task_group() as tasks:
        page = found.page
        tasks.start_soon(to_thread.run_sync, lambda: Client(lab.home).post("/api/v1/messages", said))
        item = page.locator(".queue-item", has_text="wants to call echo.say")
        await expect(item).to_contain_text("This is its beginning.")
        await expect(item).not_to_contain_text("and the end")
        await item.get_by_role("button", name="Approve").click()
        dialog = page.get_by_role("dialog")
        await expect(dialog.get_by_role("region", name="What is approved")).to_contain_text("and the end")
        assert await flaws(found) == []
        await dialog.get_by_role("button", name="Approve").click()
        await expect(item).to_have_count(0)
        found.quiet()
