"""Looking at a lab as its page does: requests, and one stream of events, over the lab's own socket."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from core.home import Home

BASE = "http://localhost/api/v1"


@dataclass(frozen=True)
class Told:
    """One event. `id` is 0 where it has none."""

    name: str
    data: Any
    id: int


@dataclass
class Stream:
    """An open stream, and what it has told."""

    pieces: AsyncIterator[str]
    told: list[Told] = field(default_factory=list)
    _text: str = ""

    async def next(self) -> Told:
        """The next event; StopAsyncIteration where there is none any more."""
        while True:
            while "\n\n" not in self._text:
                self._text += await anext(self.pieces)
            block, _, self._text = self._text.partition("\n\n")
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            if "data" in fields:
                self.told.append(Told(fields["event"], json.loads(fields["data"]), int(fields.get("id", 0))))
                return self.told[-1]

    async def until(self, name: str, **wanted: Any) -> Told:
        """The next event of that name whose data has these fields."""
        while True:
            told = await self.next()
            if told.name == name and all(told.data.get(key) == value for key, value in wanted.items()):
                return told


@dataclass
class Looker:
    """Somebody at the door."""

    client: httpx2.AsyncClient

    async def get(self, path: str, **params: Any) -> Any:
        """What a good answer says."""
        answer = await self.client.get(BASE + path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The status and what is said."""
        answer = await self.client.request(method, BASE + path, json=body)
        return answer.status_code, answer.json()

    @asynccontextmanager
    async def following(self, *topics: str, last: int | None = None) -> AsyncIterator[Stream]:
        """An open stream, from now on or behind the event `last`; its first event was `open`."""
        headers = {} if last is None else {"last-event-id": str(last)}
        async with self.client.stream(
            "GET", BASE + "/events", params={"topics": ",".join(topics)}, headers=headers
        ) as answer:
            assert answer.status_code == 200, await answer.aread()
            stream = Stream(answer.aiter_text())
            assert (await stream.next()).name == "open"
            yield stream


@asynccontextmanager
async def looking(home: Home) -> AsyncIterator[Looker]:
    """Somebody who looks at the lab of `home`."""
    transport = httpx2.AsyncHTTPTransport(uds=str(home.api_socket))
    async with httpx2.AsyncClient(transport=transport, timeout=60, trust_env=False) as client:
        yield Looker(client)
