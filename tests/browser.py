"""A real Chromium for the tests: one for all tests of a process, and pages that write down what must never happen.

A page is watched from its first moment: what it says on the console, what its policy refuses, and every address it asks
for. `Watched.quiet` is asked at the end of each test that uses one.
"""

import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from playwright.async_api import Browser, ConsoleMessage, Error, Page, Request, async_playwright

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
WAIT_MS = 30_000.0  # for anything that a page should come to show: a busy machine is slow, and not wrong
Scheme = Literal["light", "dark"]


class NoBrowser(RuntimeError):
    """There is no Chromium on this machine."""


@dataclass
class Watched:
    """A page, and what went on in it that a person would not see."""

    page: Page
    origin: str
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def elsewhere(self) -> list[str]:
        """Requests to anybody but the lab."""
        return [each for each in self.asked if not each.startswith((self.origin + "/", "blob:" + self.origin, "data:"))]

    def quiet(self, *, but: Sequence[str] = ()) -> None:
        """Nothing was said on the console and nobody else was asked; `but` are parts of lines that may be there.

        Raises:
            AssertionError: something was.
        """
        said = [each for each in self.said if not any(part in each for part in but)]
        assert not said, said
        assert not self.elsewhere, self.elsewhere

    def heard(self, message: ConsoleMessage) -> None:
        """Writes down a line of the console."""
        if message.type in ("error", "warning"):
            self.said.append(f"{message.type}: {message.text}")

    def failed(self, error: Error) -> None:
        """Writes down what nobody caught."""
        self.said.append(f"uncaught: {error}")

    def requested(self, request: Request) -> None:
        """Writes down an address."""
        self.asked.append(request.url)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The system's Chromium, without a window.

    Raises:
        NoBrowser: there is none.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise NoBrowser("There is no Chromium here: apt-get install chromium-headless-shell")
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []  # as root it refuses to start with one
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=flags)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def watched(
    browser: Browser, origin: str, *, scheme: Scheme = "light", width: int = 1600, height: int = 900, **more: Any
) -> AsyncIterator[Watched]:
    """A page of its own: nothing is kept from others, and nothing is left to them."""
    viewport = {"width": width, "height": height}
    context = await browser.new_context(base_url=origin, color_scheme=scheme, viewport=viewport, **more)  # type: ignore[arg-type]
    try:
        context.set_default_timeout(WAIT_MS)
        page = await context.new_page()
        found = Watched(page, origin)
        page.on("console", found.heard)
        page.on("pageerror", found.failed)
        page.on("request", found.requested)
        yield found
    finally:
        await context.close()
