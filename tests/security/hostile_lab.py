"""Where the hostile eMAD is let loose: a real lab on one runtime, with things around it that it must not reach."""

import json
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyio import fail_after, sleep

from core.lab import Lab
from core.run import Run, State
from protos.ids import new_id
from protos.serve import answer_id
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, KIND_REPLY, Message
from tests.labs import ECHO, ROOT, lab_of

IMAGES = ("base", "tests/emads/hostile")
EVERY = ("runc", "runsc", "bwrap")  # runtimes
SETTINGS = """
emads = ["{emads}/hostile"]
[sandbox]
runtime = "{runtime}"
[residents.echo]
class = "{echo}"
{more}"""


@dataclass
class Around:
    """What of this machine there is to be found, and whether somebody came."""

    port: int
    abstract: str
    marker: Path
    secret: str
    listeners: tuple[socket.socket, ...]

    def visitors(self) -> int:
        """How many have connected since it was last asked."""
        count = 0
        for each in self.listeners:
            while True:
                try:
                    each.accept()[0].close()
                except BlockingIOError:
                    break
                count += 1
        return count


@contextmanager
def around(folder: Path) -> Iterator[Around]:
    """Listeners on every loopback of the host and a file only the host has."""
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as six,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as hidden,
    ):
        port = four.getsockname()[1]
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        six.bind(("::1", port))
        six.listen()
        abstract = f"madlab-{secrets.token_hex(8)}"
        hidden.bind(f"\0{abstract}")
        hidden.listen()
        for each in (four, six, hidden):
            each.setblocking(False)
        secret = secrets.token_hex(16)
        marker = folder / "marker"
        marker.write_text(secret)
        marker.chmod(0o644)
        yield Around(port, abstract, marker, secret, (four, six, hidden))


@dataclass
class Answered:
    """What became of one act."""

    message: Message
    run: Run
    of: Any  # what the act said, None where it could not


@dataclass
class Site:
    """One lab with the hostile eMAD, on one runtime."""

    lab: Lab
    runtime: str

    async def act(
        self, tool: str, *, id: str = "", conversation: str = "", within_s: float = 240, **given: Any
    ) -> Answered:
        """Lets it act, waits until the run is gone, and returns what it said."""
        asked = Message(
            id=id or new_id(),
            conversation=conversation or new_id(),
            recipient="hostile",
            kind=KIND_CALL,
            tool=tool,
            data=json.dumps(given),
        )
        with fail_after(within_s):
            async with self.lab.rogers.follow(conversation=asked.conversation) as messages:
                await self.lab.rogers.publish(asked, sender="operator")
                async for each in messages:
                    if each.id == answer_id(asked):
                        break
            run = await self.ended(self.lab.runs.id_of("hostile", asked.id))
        return Answered(each, run, await self._said(each))

    async def speak(self, name: str, **given: Any) -> Any:
        """One act on the wire, which must come to an answer."""
        came = await self.act("speak", name=name, given=given)
        assert came.message.kind == KIND_REPLY, f"{name}: {came.message.text}"
        return came.of

    async def explode(self, name: str) -> Any:
        """One act that uses something up, which must come to an answer."""
        came = await self.act("explode", name=name)
        assert came.message.kind == KIND_REPLY, f"{name}: {came.message.text}"
        return came.of

    async def ended(self, run: str) -> Run:
        """The run when nothing is left of it."""
        while (
            not await self.lab.runs.known(run) or (found := await self.lab.runs.get(run)).state is not State.DESTROYED
        ):
            await sleep(0.02)
        return found

    async def _said(self, reply: Message) -> Any:
        if reply.kind != KIND_REPLY:
            return None
        text = reply.data
        if not text:  # it was long, and travelled as a blob
            text = b"".join([chunk async for chunk in self.lab.horace.get(reply.blobs[-1].digest)]).decode()
        said = json.loads(text)
        return said.get("of", said)

    async def secret_of_others(self) -> dict[str, str]:
        """Another conversation with a message and a blob in it that are none of the eMAD's business."""
        private = Message(
            id=new_id(), conversation=new_id(), kind=KIND_PROSE, recipient="operator", text="for the operator only"
        )

        async def content() -> AsyncIterator[bytes]:
            yield b"for the operator only"

        blob = await self.lab.horace.put(content())
        private.blobs.append(blob)
        await self.lab.rogers.publish(private, sender="echo")
        return {"conversation": private.conversation, "foreign_message": private.id, "digest": blob.digest}

    def doors(self) -> list[str]:
        """The socket directories that are open."""
        return sorted(each.name for each in (self.lab.home.runtime / "s").iterdir())

    async def sandboxes(self) -> list[str]:
        """What the engine has of this lab."""
        names = await self.lab.residents._workers.engines[self.runtime].names()
        return [each for each in names if not each.startswith("probe-")]  # the core may be trying its runtimes


@asynccontextmanager
async def site_of(runtime: str, more: str = "") -> AsyncIterator[Site]:
    """A lab on `runtime` with the hostile eMAD and an honest resident."""
    more = more or "[profile.hostile]\ndeadline_s = 120\n"
    settings = SETTINGS.format(emads=ROOT / "tests/emads", runtime=runtime, echo=ECHO, more=more)
    async with lab_of(settings, images=IMAGES, unpacked=runtime == "bwrap") as lab:
        yield Site(lab, runtime)
