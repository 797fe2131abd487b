"""Steps: what a caller has done on a page, in order, before it is looked at.

A run handles one message and keeps nothing, so a caller that wants to go on from where a page was tells the way there
again: the address and the steps. References of the snapshot are made to last for that (`outline.py`).
"""

from collections.abc import Sequence
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from periphery.marco.page import WAIT_S, Page
from protos.errors import InvalidArgument

Verb = Literal["navigate", "click", "type", "wait_for", "scroll", "evaluate", "download"]
SCREENS = 20
_NEEDS: dict[str, tuple[str, ...]] = {
    "navigate": ("url",),
    "click": ("target",),
    "type": ("target", "text"),
    "evaluate": ("script",),
    "download": ("target",),
}


class Step(TypedDict):
    """One step. `target` is a reference of the snapshot, such as `button "Sign in"`, or `css=SELECTOR`."""

    do: Verb
    url: NotRequired[str]
    target: NotRequired[str]
    text: NotRequired[str]
    script: NotRequired[str]
    submit: NotRequired[bool]  # of `type`: press Enter
    seconds: NotRequired[float]  # of `wait_for`: at most
    screens: NotRequired[int]  # of `scroll`


Step.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]  # read where the schema is made


def check_steps(steps: Sequence[Step]) -> None:
    """
    Raises:
        InvalidArgument: a step lacks what it needs.
    """
    for number, step in enumerate(steps, 1):
        if missing := [each for each in _NEEDS.get(step["do"], ()) if not step.get(each)]:
            raise InvalidArgument(f"Step {number} ({step['do']}) has no {missing[0]}.", next="See the tool's schema.")
        if step["do"] == "wait_for" and not (step.get("text") or step.get("target")):
            raise InvalidArgument(f"Step {number} (wait_for) has neither text nor target.")


async def take(page: Page, step: Step) -> str:
    """Takes one step; returns what an evaluated script came to, as JSON, and else nothing.

    Raises:
        NotFound: its target is not on the page.
        InvalidArgument: a script failed, or an address is none.
        Denied, Exhausted, Unavailable: what it led to did not open, or did not come.
    """
    match step["do"]:
        case "navigate":
            await page.navigate(step["url"])
        case "click":
            with page.network.writing():
                await page.click(step["target"])
        case "type":
            with page.network.writing():
                await page.type(step["target"], step["text"], submit=step.get("submit", False))
        case "wait_for":
            seconds = min(step.get("seconds", WAIT_S), WAIT_S)
            await page.wait_for(text=step.get("text", ""), target=step.get("target", ""), within_s=seconds)
        case "scroll":
            await page.scroll(max(1, min(step.get("screens", 1), SCREENS)))
        case "evaluate":
            return await page.evaluate(step["script"])
        case "download":
            before = len(page.network.downloads)
            with page.network.writing():
                await page.click(step["target"])
            if len(page.network.downloads) == before:
                raise InvalidArgument(f"{step['target'][:200]!r} led to no download.", next="See the page it led to.")
    return ""
