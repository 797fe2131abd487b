"""The page of a run in a real sandbox: what it used, drawn, and read by the keyboard."""

import json
import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, expect

from core.lab import Lab
from tests.bubblewrap_lab import need_bubblewrap
from tests.labs import EMADS, lab_of
from tests.pages import flaws, live, run_of, signed_in

pytestmark = pytest.mark.docker


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    need_bubblewrap()
    images = ("base", "tests/emads/echo")
    async with lab_of(EMADS + '[sandbox]\nruntime = "bwrap"\n', images=images, unpacked=True) as lab:
        yield lab


async def test_what_a_sandbox_used_is_drawn_and_read_by_keyboard(browser: Browser, lab: Lab) -> None:
    run = await run_of(lab, "echo", "say_later", json.dumps({"text": "measured", "after_s": 3.5}))
    async with signed_in(browser, lab.home) as found:
        page = found.page
        await page.goto(f"/runs/{run}")
        await live(found)
        await expect(page.get_by_role("img", name="Memory over")).to_be_visible()
        await expect(page.get_by_role("img", name="CPU over")).to_be_visible()
        slider = page.get_by_role("slider", name="Memory: read at a time")
        await slider.focus()
        await page.keyboard.press("Home")
        await expect(slider).to_have_attribute("aria-valuenow", "0")
        await page.keyboard.press("ArrowRight")
        await expect(slider).to_have_attribute("aria-valuetext", re.compile(r"^1\.0 s: \d+(\.\d)? MiB$"))
        await page.get_by_text("As numbers").last.click()
        await expect(page.get_by_role("table", name="Memory")).to_contain_text("MiB")
        await expect(page.locator(".steps-line .past")).to_have_count(7)
        assert await flaws(found) == []
        found.quiet()
