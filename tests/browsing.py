"""A lab in which Marco browses, and a small world for him: three servers' names on loopback, and what pages there are.

One server answers by host and path; what has no page is 404. The rules let Marco read `site.test` and `other.test`,
and ask a person before he writes to the first. `evil.test` is where nobody may ever come.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from anyio import create_task_group, create_tcp_listener
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from core.lab import Lab
from core.rogers.entry import Entry
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_CALL, KIND_REPLY, Message
from tests.docker_lab import built
from tests.labs import ROOT, ask, lab_of
from tests.servers.site import GONE, Asked

RULES = """
[[rules]]
name = "marco-reads-here"
kinds = ["web.fetch"]
principals = ["mad:marco"]
hosts = ["site.test:*", "other.test:*"]
methods = ["GET", "HEAD", "OPTIONS"]
verdict = "allow"
limits = { addresses = ["127.0.0.1/32"], requests_per_minute = 100000 }

[[rules]]
name = "marco-writes-here"
kinds = ["web.fetch"]
principals = ["mad:marco"]
hosts = ["site.test:*"]
verdict = "ask"
limits = { addresses = ["127.0.0.1/32"] }
"""
NAMES = ("site.test", "other.test", "evil.test")
WITHIN_S = 240.0  # upper bounds only: nothing is measured


@dataclass(frozen=True)
class Served:
    """What a server says to one address."""

    body: bytes | str = ""
    type: str = "text/html; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class World:
    """The lab, and the server with its pages by "HOST/PATH" or "HOST/PATH?QUERY"."""

    lab: Lab
    port: int
    pages: dict[str, Served]
    asked: list[tuple[str, Asked]] = field(default_factory=list)  # host and path, and how
    calls: int = 0  # made by the operator

    def url(self, place: str) -> str:
        """The address of HOST/PATH."""
        host, _, path = place.partition("/")
        return f"http://{host}:{self.port}/{path}"

    def page(self, place: str, body: str, *, content: bytes = b"", **about: Any) -> str:
        """Puts a page there, in which {SITE}, {OTHER} and {EVIL} stand for the servers; returns its address.

        `content` are the bytes of it instead of a text.
        """
        for name in ("site", "other", "evil"):
            body = body.replace(f"{{{name.upper()}}}", f"http://{name}.test:{self.port}")
        self.pages[place] = Served(content or body, **about)
        return self.url(place)

    async def serve(self, stream: SocketStream) -> None:
        """One connection."""
        buffered = BufferedByteReceiveStream(stream)
        try:
            async with stream:
                while True:
                    head = await buffered.receive_until(b"\r\n\r\n", 1 << 20)
                    asked = Asked(head, b"", ("", 0))
                    body = await buffered.receive_exactly(int(asked.headers.get("content-length", 0)))
                    place = asked.headers["host"].partition(":")[0] + asked.line.split(" ")[1]
                    self.asked.append((place, Asked(head, body, ("", 0))))
                    await stream.send(_bytes(self._found(place)))
        except GONE:
            pass

    def _found(self, place: str) -> Served:
        """The page there; else the one without what follows the question mark."""
        return self.pages.get(place) or self.pages.get(place.partition("?")[0]) or Served("not here", status=404)

    async def call(self, tool: str = "browse", **arguments: Any) -> Message:
        """Calls a tool of Marco's as the operator, and returns the answer."""
        question = Message(id=new_id(), conversation=new_id(), recipient="marco", kind=KIND_CALL, tool=tool)
        question.data = json.dumps(arguments)
        self.calls += 1
        return await ask(self.lab, question, within_s=WITHIN_S)

    async def result(self, tool: str = "browse", **arguments: Any) -> dict[str, Any]:
        """What a call came to, which must be a reply."""
        answer = await self.call(tool, **arguments)
        assert answer.kind == KIND_REPLY, answer.text
        return await self.data(answer)

    async def data(self, answer: Message) -> dict[str, Any]:
        """The data of a reply, from the blob where it is long."""
        text = answer.data
        if not text:
            [blob] = [each for each in answer.blobs if each.name == "result.json"]
            text = (await self.blob(blob.digest)).decode()
        found: dict[str, Any] = json.loads(text)
        return found

    async def blob(self, digest: str) -> bytes:
        """The bytes of a blob."""
        return b"".join([chunk async for chunk in self.lab.horace.get(digest)])

    async def acts(self, act: str) -> list[Mapping[str, Any]]:
        """What the journal says of acts of one kind, oldest first."""
        await self.lab.journal.append(Entry(id=new_id(), kind="act", body=b"{}"))  # behind all that is on its way
        rows = await self.lab.journal.query(
            "SELECT body FROM journal JOIN body USING (sequence) WHERE kind = 'act' ORDER BY sequence"
        )
        return [body for each in rows if (body := json.loads(each[0])).get("act") == act]


@asynccontextmanager
async def a_world(settings: str = "", *, emads: Sequence[Path] = ()) -> AsyncIterator[World]:
    """All of it, in a temporary place, with other eMADs beside Marco."""
    images = ("base", "marco")
    for each in images:
        built(each)
    with TemporaryDirectory(prefix="world") as directory:
        rules = Path(directory) / "policy.toml"
        rules.write_text(RULES)
        names = "\n".join(f'"{name}" = ["127.0.0.1"]' for name in NAMES)
        settings = (
            f"emads = {[str(each) for each in (ROOT / 'periphery/marco', *emads)]}\n"
            f'policy = ["{rules}"]\n{settings}\n'
            f"[egress]\nconnect_s = 5\n[egress.names]\n{names}\n"
        )
        async with (
            await create_tcp_listener(local_host="127.0.0.1") as listener,
            create_task_group() as tasks,
            lab_of(settings, images=images) as lab,
        ):
            world = World(lab, listener.extra(SocketAttribute.local_port), {})
            tasks.start_soon(listener.serve, world.serve)
            yield world
            tasks.cancel_scope.cancel()


def _bytes(served: Served) -> bytes:
    body = served.body.encode() if isinstance(served.body, str) else served.body
    headers = {"Content-Type": served.type, "Content-Length": str(len(body)), **served.headers}
    lines = [f"HTTP/1.1 {served.status} X", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
