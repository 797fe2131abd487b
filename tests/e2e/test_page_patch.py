"""Patches in the page: a person reads one and decides about it; what its author wrote stays text."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from core.lab import Lab
from core.run import Run
from tests.hand import Edits, Hand
from tests.integration.gits import a_repository, said
from tests.integration.test_foreman import FAULTY, MENDED, coded
from tests.labs import a_home, opened
from tests.pages import flaws, live, seen, sideways, signed_in, tabbed_to

EVIL = "<img src=x onerror=alert(1)>"
HOSTILE: Edits = {
    **MENDED,
    f"dir/{EVIL}.py": f"print('{EVIL}')\n</script><script>alert(2)</script>\n\u202e# turned\x1b[31m\n",
    "long/way/down/to/new.py": "".join(f"line_{number} = {number}\n" for number in range(40)),
}


@dataclass
class Desk:
    """A lab with repositories and runs that changed them."""

    lab: Lab
    place: Path
    edits: Edits

    async def coded(self, edits: Edits, goal: str = "add shall add") -> Run:
        """A run that makes these edits."""
        self.edits = edits
        run, _ = await coded(self.lab, self.place, repository=str(self.place / "repo"), goal=goal)
        return run


@pytest.fixture(scope="module")
async def desk(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    place = tmp_path_factory.mktemp("desk")
    a_repository(place / "repo", {name: content.encode() for name, content in FAULTY.items()})
    made: list[Desk] = []

    class Played(Hand):
        def __init__(self) -> None:
            super().__init__(lambda _: made[0].edits)

    with a_home() as home:
        async with opened(home, hopper=Played) as lab:
            made.append(Desk(lab, place, MENDED))
            yield made[0]


@pytest.fixture(scope="module")
async def hostile(desk: Desk) -> Run:
    """A run whose author would have more than text in it."""
    return await desk.coded(HOSTILE, goal=f"{EVIL} and more")


async def test_a_patch_is_read_and_approved_to_a_branch(browser: Browser, desk: Desk) -> None:
    run = await desk.coded(MENDED)
    async with signed_in(browser, desk.lab.home) as found:
        page = found.page
        await page.goto("/patches")
        await page.get_by_role("link", name=run.id).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("add shall add")
        await expect(page.locator("del")).to_have_text("-")
        await expect(page.locator("ins")).to_have_text("+")
        await expect(page.get_by_text("passed on the original tree plus only the patch")).not_to_have_count(0)
        await page.get_by_role("button", name="Approve to a branch").click()
        await expect(page.get_by_label("Repository")).to_have_value(str(desk.place / "repo"))
        await page.get_by_role("textbox", name="Branch").fill("a..b")
        await page.get_by_role("button", name="Make the branch").click()
        await expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("no name for a branch")
        await page.get_by_role("textbox", name="Branch").fill("mended")
        await page.get_by_role("button", name="Make the branch").click()
        await expect(page.get_by_role("heading", name="Approved")).to_be_visible()
        await expect(page.get_by_role("button", name="Approve to a branch")).to_have_count(0)
        assert said(desk.place / "repo", "show", "mended:adder.py").endswith("return a + b")
        await page.reload()
        await live(found)
        await expect(page.get_by_role("heading", name="Approved")).to_be_visible()
        found.quiet(but=["400"])


async def test_a_patch_is_approved_to_a_branch_by_the_keyboard_alone(browser: Browser, desk: Desk) -> None:
    run = await desk.coded(MENDED)
    async with signed_in(browser, desk.lab.home) as found:
        page, keys = found.page, found.page.keyboard
        for key in ("g", "p"):
            await keys.press(key)
        await expect(page.get_by_role("heading", level=1, name="Patches")).to_be_focused()
        await tabbed_to(found, page.get_by_role("link", name=run.id))
        await keys.press("Enter")
        await expect(page.get_by_role("heading", level=1, name="add shall add")).to_be_focused()
        await tabbed_to(found, page.get_by_role("button", name="Approve to a branch"))
        await keys.press("Enter")
        branch = page.get_by_role("textbox", name="Branch")
        await tabbed_to(found, branch)
        await keys.press("Control+a")
        await keys.type("by-keys")
        await tabbed_to(found, page.get_by_role("button", name="Make the branch"))
        await keys.press("Enter")
        await expect(page.get_by_role("heading", name="Approved")).to_be_focused()
        assert said(desk.place / "repo", "show", "by-keys:adder.py").endswith("return a + b")
        found.quiet()


async def test_a_patch_is_sent_back_with_a_remark_and_goes_on_as_another_run(browser: Browser, desk: Desk) -> None:
    run = await desk.coded({"adder.py": "def add(a, b):\n    return b\n"})
    async with signed_in(browser, desk.lab.home) as found:
        page = found.page
        await page.goto(f"/patches/{run.id}")
        await page.get_by_role("button", name="Send back").click()
        desk.edits = MENDED
        await page.get_by_label("What shall be different").fill("add both")
        await page.get_by_role("dialog").get_by_role("button", name="Send back").click()
        await expect(page.get_by_role("heading", name="Sent back")).to_be_visible()
        await page.get_by_role("link", name="foreman-").last.click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("foreman-")
        found.quiet()


async def test_what_is_not_there_any_more_is_told_and_breaks_on_a_small_telephone(browser: Browser, desk: Desk) -> None:
    run = await desk.coded(MENDED)
    await desk.lab.archives.forget(run.conversation)
    async with signed_in(browser, desk.lab.home, width=360, height=780) as found:
        page = found.page
        await page.goto(f"/patches/{run.id}")
        await expect(page.get_by_role("alert")).to_contain_text(f"The conversation of {run.id} was forgotten on 20")
        await page.goto(f"/runs/{run.id}")
        await expect(page.get_by_text("Its conversation was forgotten")).to_be_visible()
        await page.goto(f"/patches/{'w' * 120}")
        await expect(page.get_by_role("alert")).to_contain_text("w" * 40)
        assert await sideways(found) == 0


async def test_what_its_author_wrote_is_text_wherever_it_stands(browser: Browser, desk: Desk, hostile: Run) -> None:
    places = "/patches", f"/patches/{hostile.id}"
    for (width, scheme), some in seen(places, (1600, "light"), (360, "dark")):
        async with signed_in(browser, desk.lab.home, width=width, scheme=scheme) as found:
            page = found.page
            for place in some:
                await page.goto(place)
                await live(found)
                assert await flaws(found) == [], place
                assert await sideways(found) == 0, place
                assert await page.locator("main img, main script, main iframe").count() == 0
            found.quiet()


async def test_the_diff_says_what_it_hides_and_is_walked_by_keys(browser: Browser, desk: Desk, hostile: Run) -> None:
    async with signed_in(browser, desk.lab.home) as found:
        page = found.page
        await page.goto(f"/patches/{hostile.id}")
        await expect(page.get_by_text("⟨U+202E⟩").first).to_be_visible()
        await expect(page.get_by_text("␛[31m").first).to_be_visible()
        await live(found)
        await page.keyboard.press("]")
        await expect(page.locator("summary.diff-head").first).to_be_focused()
        await page.keyboard.press("]")
        await expect(page.locator("summary.diff-head").nth(1)).to_be_focused()
        await page.keyboard.press("[")
        await expect(page.locator("summary.diff-head").first).to_be_focused()
        await page.keyboard.press("n")
        await expect(page.locator(".hunk:focus")).to_have_count(1)
        await page.keyboard.press("s")
        await expect(page.locator(".hunk").first.locator("tr").nth(1).locator("td")).to_have_count(3)
        await page.keyboard.press("w")
        await expect(page.get_by_role("button", name="Ignore blanks")).to_have_attribute("aria-pressed", "true")
        found.quiet()
