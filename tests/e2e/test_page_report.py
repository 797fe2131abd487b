"""Reports in the page: what a scan found, compared, taken along and accepted; what it read stays text."""

import json
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, expect

from tests.pages import flaws, live, seen, sideways, signed_in
from tests.reporting import EVIL, Scans, a_finding, scans


@pytest.fixture(scope="module")
async def at(anyio_backend: str) -> AsyncIterator[Scans]:
    async with scans() as found:
        yield found


async def test_a_report_is_read_compared_and_taken_along(browser: Browser, at: Scans) -> None:
    await at.scan(a_finding(1), a_finding(7, path="old.py"), name="shop")
    code = "".join(f"line {number}\n" for number in range(1, 12))
    found_now = a_finding(1), a_finding(2, severity="critical", rule="key", path="key.py", line=4)
    run = await at.scan(*found_now, name="shop", tree={"app.py": code.encode(), "key.py": code.encode()})
    async with signed_in(browser, at.lab.home, accept_downloads=True) as found:
        page = found.page
        await page.goto("/reports")
        await page.get_by_role("link", name=run.id).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Scan of shop")
        await expect(page.get_by_role("img", name="1 critical, 1 high, 0 medium, 0 low")).to_be_visible()
        await expect(page.locator(".finding .tag", has_text="new")).to_have_count(1)
        await expect(page.get_by_text("Gone since")).to_be_visible()
        await page.locator(".finding", has_text="key.py:4").get_by_role("button", name="Show around it").click()
        await expect(page.locator(".source .marked")).to_contain_text("line 4")
        await page.get_by_role("button", name="critical").click()
        await expect(page.locator(".finding")).to_have_count(1)
        for kind in ("HTML", "SARIF", "JSON", "CSV"):
            async with page.expect_download() as saved:
                await page.get_by_role("button", name=kind, exact=True).click()
            assert (await saved.value).suggested_filename == f"report-{run.id}.{kind.lower()}"
        assert await flaws(found) == []
        found.quiet()


async def test_a_finding_is_accepted_into_a_baseline(browser: Browser, at: Scans) -> None:
    run = await at.scan(a_finding(1), a_finding(2, path="b.py"))
    async with signed_in(browser, at.lab.home, accept_downloads=True) as found:
        page = found.page
        await page.goto(f"/reports/{run.id}")
        await page.locator(".finding", has_text="b.py").get_by_role("button", name="Accept…").click()
        await page.get_by_label("Why").fill("only a fixture")
        await page.get_by_role("dialog").get_by_role("button", name="Accept").click()
        await expect(page.locator(".finding.accepted")).to_have_count(1)
        async with page.expect_download() as saved:
            await page.get_by_role("button", name="Take the baseline along").click()
        baseline = json.loads((await (await saved.value).path()).read_text())
        assert [each["id"] for each in baseline["accepted"]] == ["mcn-2"]
        assert baseline["accepted"][0]["reason"] == "only a fixture"
        found.quiet()


async def test_what_a_scan_read_is_text_wherever_it_stands(browser: Browser, at: Scans) -> None:
    evil = dict.fromkeys(("rule", "path", "snippet", "message", "fix", "cwe", "id"), f"{EVIL}\u202e")
    at.skipped = [{"path": f"{EVIL}/{'x' * 200}", "reason": EVIL}]
    run = await at.scan(a_finding(1, **evil, scanners=[EVIL]), name=EVIL)
    for (width, scheme), places in seen(("/reports", f"/reports/{run.id}"), (1600, "dark"), (360, "light")):
        async with signed_in(browser, at.lab.home, width=width, scheme=scheme) as found:
            page = found.page
            for place in places:
                await page.goto(place)
                await live(found)
                assert await page.locator("main img, main script").count() == 0
                assert await flaws(found) == [], place
                assert await sideways(found) == 0, place
            found.quiet()
