"""One Chromium for all tests here; where there is none they are skipped, and say so."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, expect

from tests.browser import WAIT_MS, NoBrowser, chromium


@pytest.fixture(scope="session")
async def browser(anyio_backend: str) -> AsyncIterator[Browser]:
    """The browser."""
    expect.set_options(timeout=WAIT_MS)
    try:
        async with chromium() as found:
            yield found
    except NoBrowser as error:
        pytest.skip(str(error))
