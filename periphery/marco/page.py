"""One page of the browser: goes somewhere, waits until it is there, acts on it as a person would, and looks.

Each page is a target of its own, closed when it is left. What a page can do to keep us is bounded here: dialogs are
dismissed, windows it opens never open, a page that keeps its thread is given up after `STUCK_S`, and one that leads on
and on stops where the network's books say so.
"""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from anyio import CancelScope, Event, current_time, move_on_after, sleep

from periphery.marco.chromium import HEIGHT, WIDTH
from periphery.marco.extract import STYLES
from periphery.marco.network import Network
from periphery.marco.outline import Element, Outline, outline
from periphery.marco.pipe import BrowserError, Pipe
from protos.errors import InvalidArgument, NotFound, Unavailable

LOAD_S = 30.0  # until a page counts as loaded, whatever it still wants
IDLE_S = 5.0  # after that, until its scripts have fetched what they show
ACT_S = 5.0  # for what a click set going
STUCK_S = 15.0  # for an answer of the page's own thread
WAIT_S = 30.0
NODES = 60_000  # of a document; what comes after is cut off before it is looked at
TALL = 8000  # CSS pixels of a screenshot
TOLD = 10  # dialogs, and windows, that are told; the rest is counted
TOLD_CHARACTERS = 300
RESULT_CHARACTERS = 64 * 1024
FRAMES = 30  # whose elements are listed
_CUT = f"""(() => {{
  const walk = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_ALL);
  let count = 0;
  while (walk.nextNode()) if (++count > {NODES}) break;
  if (count <= {NODES}) return 0;
  const range = document.createRange();
  range.setStartBefore(walk.currentNode);
  range.setEndAfter(document.documentElement.lastChild);
  range.deleteContents();
  return 1;
}})()"""
_CHOOSE = """function(wanted) {
  if (this.tagName === 'SELECT') {
    const found = [...this.options].find(each => each.label === wanted || each.value === wanted);
    if (!found) return 'none';
    found.selected = true;
    for (const name of ['input', 'change']) this.dispatchEvent(new Event(name, {bubbles: true}));
    return 'chosen';
  }
  this.focus();
  if (this.select) this.select(); else document.getSelection().selectAllChildren(this);
  return 'selected';
}"""


@dataclass(frozen=True)
class Dialog:
    """What a page said in a window of its own. Nobody answered."""

    kind: str
    text: str


@dataclass
class Page:
    """A page. Its tasks are the network's; leaving `open_page` closes it."""

    pipe: Pipe
    network: Network
    target: str
    session: str
    dialogs: list[Dialog] = field(default_factory=list)
    dialogs_seen: int = 0
    windows: list[str] = field(default_factory=list)  # addresses that it wanted to open in windows of their own
    windows_seen: int = 0
    notes: list[str] = field(default_factory=list)  # what was cut short, for people
    crashed: bool = False
    _loaded: Event = field(default_factory=Event)
    _wanted: str = ""  # what the last click would have opened in a window

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Asks the page for something that takes no time unless it is stuck.

        Raises:
            Unavailable: it is stuck, or crashed.
            BrowserError: it says no.
        """
        with move_on_after(STUCK_S):
            if not self.crashed:
                return await self.pipe.call(method, self.session, **parameters)
        raise Unavailable("The page crashed." if self.crashed else f"The page has been busy for {STUCK_S:.0f} s.")

    async def navigate(self, url: str) -> None:
        """Goes to `url` and waits until it is there, or has waited long enough.

        Raises:
            InvalidArgument: not an address of the web.
            Denied, Exhausted, Unavailable: as the core answered; or no page came.
        """
        check_address(url)
        self._loaded = Event()
        downloads = len(self.network.downloads)
        answer: dict[str, Any] = {}
        with move_on_after(LOAD_S):
            answer = await self.pipe.call("Page.navigate", self.session, url=url)
        if (problem := answer.get("errorText")) or not answer:
            if len(self.network.downloads) > downloads:
                return
            mine = [each for each in self.network.requests if each.kind == "Document" and each.frame == self.target]
            if mine and mine[-1].error is not None:
                raise mine[-1].error
            raise Unavailable(f"{url[:200]} did not open: {problem or f'no answer for {LOAD_S:.0f} s'}.")
        if "loaderId" in answer:  # else it is another place on the same page
            with move_on_after(LOAD_S) as limit:
                await self._loaded.wait()
            if limit.cancelled_caught:
                self.notes.append(f"It had not finished loading after {LOAD_S:.0f} s.")
                await self.call("Page.stopLoading")
        await self.settle(IDLE_S)

    async def settle(self, within_s: float = ACT_S) -> None:
        """Waits until the page asks for nothing any more."""
        if not await self.network.settled(within_s):
            self.notes.append(f"It was still asking for things after {within_s:.0f} s.")

    async def address(self) -> str:
        """Where it is now."""
        history = await self.call("Page.getNavigationHistory")
        return str(history["entries"][history["currentIndex"]]["url"])

    async def title(self) -> str:
        """What it is called, by itself."""
        history = await self.call("Page.getNavigationHistory")
        return str(history["entries"][history["currentIndex"]]["title"])

    async def look(self) -> dict[str, Any]:
        """Chromium's snapshot of what is on the page as it is laid out, with all its frames."""
        with suppress(BrowserError):
            if (await self._isolated(_CUT)).get("value"):
                self.notes.append(f"It has over {NODES:,} nodes: the rest was left out.")
        styles = list(STYLES)
        return await self.call(
            "DOMSnapshot.captureSnapshot", computedStyles=styles, includeBlendedBackgroundColors=True
        )

    async def outline(self) -> Outline:
        """What a person could act on or find their way by, each with a reference that is good for this page."""
        trees = []
        for frame in _frames((await self.call("Page.getFrameTree"))["frameTree"])[:FRAMES]:
            with suppress(BrowserError):  # a frame may go while it is looked at
                trees.append((await self.call("Accessibility.getFullAXTree", frameId=frame))["nodes"])
        return outline(trees)

    async def find(self, target: str) -> Element:
        """What `target` names: a reference as the outline has it, or `css=SELECTOR`.

        Raises:
            NotFound: nothing on the page.
        """
        if target.startswith("css="):
            document = await self.call("DOM.getDocument", depth=0)
            try:
                node = await self.call(
                    "DOM.querySelector", nodeId=document["root"]["nodeId"], selector=target.removeprefix("css=")
                )
                described = await self.call("DOM.describeNode", nodeId=node["nodeId"])
            except BrowserError:
                raise NotFound(f"Nothing on the page is {target[:200]!r}.", next="See its snapshot.") from None
            return Element(target, int(described["node"]["backendNodeId"]))
        there = await self.outline()
        found = there.elements.get(target.strip())
        if found is None:
            some = ", ".join(list(there.elements)[:10]) or "nothing"
            raise NotFound(f"Nothing on the page is {target[:200]!r}.", next=f"There is: {some}."[:1000])
        return found

    async def click(self, target: str) -> None:
        """Clicks what `target` names, in its middle, and waits for what comes of it."""
        element = await self.find(target)
        self._wanted = ""
        place = await self._place(element)
        if place is None:
            await self._run_on(element, "function() { this.click(); }")
        else:
            x, y = place
            mouse = {"x": x, "y": y, "button": "left", "clickCount": 1}
            await self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
            await self.call("Input.dispatchMouseEvent", type="mousePressed", **mouse)
            await self.call("Input.dispatchMouseEvent", type="mouseReleased", **mouse)
        await self.settle()
        if self._wanted:  # there is one window: what wants another comes into it
            await self.navigate(self._wanted)

    async def type(self, target: str, text: str, *, submit: bool = False) -> None:
        """Types into a field, in place of what is there, or chooses from a list; then Enter, where asked."""
        element = await self.find(target)
        chosen = await self._run_on(element, _CHOOSE, text)
        if chosen == "none":
            raise NotFound(f"{target[:200]!r} has no choice {text[:100]!r}.")
        if chosen != "chosen":
            await self.call("DOM.focus", backendNodeId=element.node)
            await self.call("Input.insertText", text=text)
        if submit:
            enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
            await self.call("Input.dispatchKeyEvent", type="keyDown", text="\r", **enter)
            await self.call("Input.dispatchKeyEvent", type="keyUp", **enter)
        await self.settle()

    async def scroll(self, screens: int) -> None:
        """Scrolls down, one screen at a time, so that what loads on sight loads."""
        for _ in range(screens):
            await self._isolated(f"window.scrollBy(0, {HEIGHT})")
            await self.settle(ACT_S)

    async def wait_for(self, *, text: str = "", target: str = "", within_s: float = WAIT_S) -> None:
        """Waits until `text` stands on the page, or `target` is there.

        Raises:
            Unavailable: neither came.
        """
        expression = f"(document.body?.innerText ?? '').includes({json.dumps(text)})"
        until = current_time() + within_s
        while current_time() < until:
            try:
                if text and (await self._isolated(expression)).get("value"):
                    return
                if target:
                    await self.find(target)
                    return
            except (BrowserError, NotFound):
                pass  # not yet, or on its way to another page
            await sleep(0.2)
        raise Unavailable(f"{(text or target)[:200]!r} did not come within {within_s:.0f} s.")

    async def evaluate(self, script: str) -> str:
        """Runs the caller's script in the page and returns its value as JSON, at most 64 KiB of it.

        Raises:
            InvalidArgument: the script failed.
        """
        answer = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, timeout=STUCK_S * 900
        )
        if "exceptionDetails" in answer:
            thrown = answer["exceptionDetails"]
            said = thrown.get("exception", {}).get("description") or thrown.get("text", "")
            raise InvalidArgument(f"The script failed: {said[:500]}")
        return json.dumps(answer["result"].get("value"), ensure_ascii=False)[:RESULT_CHARACTERS]

    async def screenshot(self) -> bytes:
        """The page as PNG, from its top, as far down as it goes or as is sensible."""
        size = (await self.call("Page.getLayoutMetrics"))["cssContentSize"]
        height = max(HEIGHT, min(int(size["height"]), TALL))
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])

    async def _place(self, element: Element) -> tuple[float, float] | None:
        """The middle of an element in the window; None where it has no place there."""
        try:
            await self.call("DOM.scrollIntoViewIfNeeded", backendNodeId=element.node)
            quads = (await self.call("DOM.getContentQuads", backendNodeId=element.node))["quads"]
        except BrowserError:
            return None
        if not quads:
            return None
        x, y = sum(quads[0][0::2]) / 4, sum(quads[0][1::2]) / 4
        return (x, y) if 0 <= x < WIDTH and 0 <= y < HEIGHT else None

    async def _run_on(self, element: Element, function: str, *arguments: str) -> Any:
        object = (await self.call("DOM.resolveNode", backendNodeId=element.node))["object"]
        answer = await self.call(
            "Runtime.callFunctionOn",
            functionDeclaration=function,
            objectId=object["objectId"],
            arguments=[{"value": each} for each in arguments],
            returnByValue=True,
            userGesture=True,
        )
        return answer["result"].get("value")

    async def _isolated(self, expression: str) -> dict[str, Any]:
        """Evaluates an expression of ours where the page's own scripts cannot have changed what words mean."""
        frame = (await self.call("Page.getFrameTree"))["frameTree"]["frame"]["id"]
        world = await self.call("Page.createIsolatedWorld", frameId=frame, worldName="marco")
        context = world["executionContextId"]
        answer = await self.call("Runtime.evaluate", expression=expression, contextId=context, returnByValue=True)
        result: dict[str, Any] = answer["result"]
        return result

    def hear(self, method: str, parameters: dict[str, Any], session: str) -> None:
        """Takes an event of the browser."""
        if method == "Browser.downloadWillBegin" and not parameters["url"].startswith(("http:", "https:")):
            self.notes.append("A file that the page itself had made was not kept.")
        if session != self.session:
            return
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Inspector.targetCrashed":
            self.crashed = True
            self._loaded.set()
        elif method == "Page.javascriptDialogOpening":
            self.dialogs_seen += 1
            if len(self.dialogs) < TOLD:
                self.dialogs.append(Dialog(parameters["type"], parameters["message"][:TOLD_CHARACTERS]))
            self.network.tasks.start_soon(self._dismiss, parameters["type"] == "beforeunload")
        elif method == "Page.windowOpen":
            self.windows_seen += 1
            if len(self.windows) < TOLD:
                self.windows.append(parameters["url"][:TOLD_CHARACTERS])
            if parameters.get("userGesture") and urlsplit(parameters["url"]).scheme in ("http", "https"):
                self._wanted = parameters["url"]

    async def _dismiss(self, accept: bool) -> None:
        with suppress(BrowserError):  # closed by itself
            await self.pipe.call("Page.handleJavaScriptDialog", self.session, accept=accept)


def _frames(tree: Mapping[str, Any]) -> list[str]:
    """The ids of a tree of frames, the page's first."""
    return [tree["frame"]["id"], *(each for child in tree.get("childFrames", ()) for each in _frames(child))]


@asynccontextmanager
async def open_page(pipe: Pipe, network: Network) -> AsyncIterator[Page]:
    """An empty page, which shares nothing with another: neither cookies nor storage, caches nor workers.

    Leaving closes it, and ends whatever it has left running.

    Raises:
        BrowserError: the browser makes none.
    """
    world = (await pipe.call("Target.createBrowserContext", disposeOnDetach=True))["browserContextId"]
    await pipe.call("Browser.setDownloadBehavior", behavior="deny", browserContextId=world, eventsEnabled=True)
    target = (await pipe.call("Target.createTarget", url="about:blank", browserContextId=world))["targetId"]
    session = (await pipe.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
    page = Page(pipe, network, target, session)
    pipe.listen(page.hear)
    try:
        await pipe.call("Page.enable", session)
        await pipe.call("Inspector.enable", session)
        await pipe.call("Page.setInterceptFileChooserDialog", session, enabled=True)
        await pipe.call("Emulation.setFocusEmulationEnabled", session, enabled=True)
        yield page
    finally:
        pipe.ignore(page.hear)
        with CancelScope(shield=True), move_on_after(STUCK_S), suppress(BrowserError):
            await pipe.call("Target.disposeBrowserContext", browserContextId=world)


def check_address(url: str) -> None:
    """
    Raises:
        InvalidArgument: no address of the web.
    """
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise InvalidArgument(f"{url[:200]!r} is no address of the web.", next="Give one with http:// or https://.")
