"""Waiting for what only looking can tell."""

from collections.abc import Callable

from anyio import sleep


async def seen(condition: Callable[[], bool]) -> None:
    """Returns as soon as it holds; whoever calls says for how long to look."""
    while not condition():
        await sleep(0.005)
