"""Labs to test with: real ones, in a temporary home, with the MADs a test asks for."""

import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
from anyio import fail_after

from core.app import open_lab
from core.cast import OWN_EMADS
from core.config import load
from core.home import Home
from core.lab import Lab
from core.turing.locks import default_key_file
from protos.errors import Unavailable
from protos.ids import new_id
from protos.serve import answer_id
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, Message
from sandbox.engines.docker.images import Images
from sandbox.images.build import Workshop, default_cache, read
from sandbox.images.unpack import Unpacker
from sandbox.images.unpacked import Images as Unpacked

ROOT = Path(__file__).parents[1]
ECHO, RELAY = "tests.emads.echo:Echo", "tests.emads.echo:Relay"
CHORUS = "tests.emads.chorus:Chorus"  # Echo, several messages at once


EMADS = f'emads = ["{ROOT / "tests/emads/echo"}"]\n'


@contextmanager
def a_home(settings: str = "", *, images: Sequence[str] = (), unpacked: bool = False) -> Iterator[Home]:
    """A temporary home with `settings` as its madlab.toml, without eMADs unless they name some, and with `images`.

    `unpacked`: the images are for bubblewrap, and Docker is not asked for anything.
    """
    with tempfile.TemporaryDirectory(prefix="lab") as directory:
        home = Home.open(Path(directory) / "home")
        home.settings.write_text(settings if "emads =" in settings else f"emads = []\n{settings}")
        if images:
            build(home.lab, images, unpacked=unpacked)
        try:
            yield home
        finally:
            shutil.rmtree(home.runtime, ignore_errors=True)
            with suppress(Unavailable):  # a test may take the place away where keys are kept
                default_key_file(home.lab).unlink(missing_ok=True)
            if images and unpacked:
                Unpacked(home.lab, default_cache()).forget()
            elif images:
                forget_images(home.lab)


def build(lab: str, images: Sequence[str], *, unpacked: bool = False) -> None:
    """Gives a lab its images and the base, which runtimes are tried with; what was built before is only tagged."""
    cache, quiet = default_cache(), lambda _: None
    workshop = Unpacker(lab, cache, quiet) if unpacked else Workshop(Images(lab), cache, quiet)
    for each in dict.fromkeys(("base", *images)):
        workshop.build(read(each))


def forget_images(lab: str) -> None:
    """Drops the tags of a lab that is gone; the images stay for the next."""
    api = docker.APIClient(version="auto")
    api.trust_env = False
    try:
        for image in api.images():
            for tag in image["RepoTags"] or ():
                if tag.startswith(f"madlab-{lab}/"):
                    api.remove_image(tag, noprune=True)
    finally:
        api.close()


@asynccontextmanager
async def opened(home: Home, **own: Callable[[], Any]) -> AsyncIterator[Lab]:
    """The lab of a home, in this process, with `own` MADs of the core beside the usual."""
    with home.locked():
        async with open_lab(home, load(home, {}), own=OWN_EMADS | own) as lab:
            yield lab


@asynccontextmanager
async def lab_of(settings: str = "", *, images: Sequence[str] = (), unpacked: bool = False) -> AsyncIterator[Lab]:
    """A lab in a temporary home: see `a_home`."""
    with a_home(settings, images=images, unpacked=unpacked) as home:
        async with opened(home) as lab:
            yield lab


@asynccontextmanager
async def lab_of_own(settings: str = "", **own: Callable[[], Any]) -> AsyncIterator[Lab]:
    """A lab in a temporary home whose runs are `own` MADs of the core: real runs, without a sandbox to wait for."""
    with a_home(settings) as home:
        async with opened(home, **own) as lab:
            yield lab


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


async def ask(lab: Lab, question: Message, *, within_s: float = 90) -> Message:
    """Publishes `question` as the operator and waits for the message that answers it."""
    with fail_after(within_s):
        async with lab.rogers.follow(conversation=question.conversation) as messages:
            await lab.rogers.publish(question, sender="operator")
            async for each in messages:
                if each.id == answer_id(question):
                    return each
    raise AssertionError("the conversation ended without an answer")
