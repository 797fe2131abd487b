"""The page of a lab, as a person gets to it: by a ticket of `madlab open`, in a browser of their own."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from anyio import to_thread
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import Browser, Locator, expect

from core.grace.cli.client import Client
from core.home import Home
from core.lab import Lab
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_CALL, Message
from tests.browser import Scheme, Watched, watched
from tests.labs import ask
from tests.sizes import full

# What a checker must not find, of any weight: our own pages have no excuse.
GRAVE = ("serious", "critical")
CHECKER: str = Axe().axe_script

STOPS = 120  # of Tab, on the way to anything
FOCUS = """() => {
  const at = document.activeElement, box = at.getBoundingClientRect();
  const within = box.width > 0 && box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth;
  let ringed = false;
  for (let each = at; each; each = each.parentElement) {
    const {outlineStyle, outlineWidth} = getComputedStyle(each);
    ringed ||= outlineStyle !== "none" && parseFloat(outlineWidth) > 0;
  }
  return {html: at.outerHTML.slice(0, 160), seen: at === document.body || (within && ringed)};
}"""

Look = tuple[int, Scheme]  # how wide, and in which colours


def ticket(home: Home) -> str:
    """An address that opens the page of a running lab, once."""
    found: str = Client(home).post("/api/v1/tickets", {})["url"]
    return found


@asynccontextmanager
async def signed_in(browser: Browser, home: Home, **look: Any) -> AsyncIterator[Watched]:
    """A page of the lab, past the door and live. What must not happen in it has not, at the end."""
    url = await to_thread.run_sync(ticket, home)
    async with watched(browser, url.partition("/#")[0], **look) as found:
        await found.page.goto(url)
        await live(found)
        yield found


async def live(found: Watched) -> None:
    """Waits until the stream of events is open and a view is shown."""
    await found.page.locator(".live[data-state=live]").wait_for()
    await found.page.locator("main h1").wait_for()


async def flaws(found: Watched) -> list[str]:
    """What axe finds serious or critical, in words."""
    await found.page.evaluate(CHECKER)
    violations: list[dict[str, Any]] = await found.page.evaluate(
        "axe.run({resultTypes: ['violations']}).then((found) => found.violations)"  # the rest is long, and has its way
    )
    return [
        f"{each['id']}: {each['help']}: {[node['html'][:160] for node in each['nodes'][:3]]}"
        for each in violations
        if each["impact"] in GRAVE
    ]


def seen(places: Sequence[str], *looks: Look) -> Iterator[tuple[Look, Sequence[str]]]:
    """Which of the places to see in which look: each once, looks in turn; with MADLAB_FULL=1 each in every look."""
    for turn, look in enumerate(looks):
        yield look, places if full() else places[turn :: len(looks)]


async def tabbed_to(found: Watched, wanted: Locator) -> None:
    """Presses Tab until the focus is there. At each stop on the way whoever looks sees where it is."""
    await expect(wanted).to_be_visible()
    for _ in range(STOPS):
        await found.page.keyboard.press("Tab")
        stop: dict[str, Any] = await found.page.evaluate(FOCUS)
        assert stop["seen"], stop["html"]
        if await wanted.evaluate("(wanted) => wanted === document.activeElement"):
            return
    raise AssertionError(f"{STOPS} times Tab, and not there; now at {stop['html']}")


async def sideways(found: Watched) -> int:
    """How many pixels the page is wider than its window."""
    wide: int = await found.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return wide


async def run_of(lab: Lab, mad: str, tool: str, arguments: str) -> str:
    """Has a tool called as the operator, and tells which run answered it."""
    id = new_id()
    question = Message(id=id, conversation=new_id(), recipient=mad, kind=KIND_CALL, tool=tool, data=arguments)
    await ask(lab, question)
    return lab.runs.id_of(mad, id)
