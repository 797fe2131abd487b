"""Labs to test with: real ones, in a temporary home, with the MADs a test asks for."""

import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anyio import fail_after

from core.app import open_lab
from core.config import load
from core.home import Home
from core.lab import Lab
from protos.ids import new_id
from protos.serve import answer_id
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, Message

ROOT = Path(__file__).parents[1]
ECHO = "tests.emads.echo:Echo"


@asynccontextmanager
async def lab_of(settings: str = "", *, home: Path | None = None) -> AsyncIterator[Lab]:
    """A lab with `settings` as its madlab.toml; without eMADs unless they name some."""
    with tempfile.TemporaryDirectory(prefix="lab") as directory:
        place = home or Path(directory) / "home"
        opened = Home.open(place)
        if settings or not opened.settings.exists():
            opened.settings.write_text(settings if "emads" in settings else f"emads = []\n{settings}")
        try:
            with opened.locked():
                async with open_lab(opened, load(opened, {})) as lab:
                    yield lab
        finally:
            if home is None:
                shutil.rmtree(opened.runtime, ignore_errors=True)


async def call(lab: Lab, mad: str, tool: str, *, conversation: str = "", id: str = "", **arguments: Any) -> Message:
    """Calls a tool as the operator and waits for its one answer."""
    question = Message(
        id=id or new_id(),
        conversation=conversation or new_id(),
        recipient=mad,
        kind=KIND_CALL,
        tool=tool,
        data=json.dumps(arguments),
    )
    return await ask(lab, question)


async def say(lab: Lab, mad: str, text: str) -> Message:
    """Says something as the operator and waits for its one answer."""
    return await ask(lab, Message(id=new_id(), conversation=new_id(), recipient=mad, kind=KIND_PROSE, text=text))


async def ask(lab: Lab, question: Message, *, within_s: float = 30) -> Message:
    """Publishes `question` as the operator and waits for the message that answers it."""
    with fail_after(within_s):
        async with lab.rogers.follow(conversation=question.conversation) as messages:
            await lab.rogers.publish(question, sender="operator")
            async for each in messages:
                if each.id == answer_id(question):
                    return each
    raise AssertionError("the conversation ended without an answer")
