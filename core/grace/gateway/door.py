"""The lab's HTTP door, as the gateway uses it: an async client of `/api/v1` like any other.

Over the unix socket it outlives the core, as the command line does: what it says carries an id that was chosen here,
so saying it again is saying it once; a stream goes on after the last sequence it has seen. It waits for a core that
went away as long as the lab's lease, which each answer names. Within the core (`inside`) there is nothing to wait for.
"""

import json
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar, cast
from urllib.parse import quote

import httpx2
from anyio import sleep

from protos.errors import BY_CODE, Error, InvalidArgument, Unavailable

API = "/api/v1"
ORIGIN = "http://localhost"  # what the unix socket is called
ANSWER_S = 600.0  # the longest that the door may think about an answer: a person may have to approve it
SILENCE_S = 60.0  # the longest that a stream may be silent; it has a heartbeat every few seconds
PAUSE_S = 0.1  # between two tries
LEASE_HEADER = "madlab-lease-seconds"

T = TypeVar("T")


class Broken(Error):
    """The core made a mistake: what it said is in its log."""

    code = "INTERNAL"


class Away(Unavailable):
    """No core answers."""


class Door:
    """One caller of one lab."""

    def __init__(
        self,
        http: httpx2.AsyncClient,
        *,
        waits: bool,
        origin: str = ORIGIN,
        whose: str = "",
        last: "Door | None" = None,
    ) -> None:
        """`waits`: the core may go away and come back, and its client waits for it. `origin`: how it is addressed.
        `whose`: one caller among several of a gateway.

        `last` is the way on which a caller whose rights have ended may still end what it began; None: this one.
        """
        self._http, self._api = http, origin + API
        self.whose, self.last = whose, last or self
        self._waits = waits
        self._lease_s = 0.0  # no patience with a lab that was never there

    async def get(self, path: str, **query: object) -> Any:
        """The JSON at `path`, below /api/v1.

        Raises:
            Error: what the lab says.
            Away: no core answers.
        """
        params = {name: str(value) for name, value in query.items()}
        return await self._patiently(lambda: self._exchange("GET", path, params=params))

    async def post(self, path: str, body: Mapping[str, object]) -> Any:
        """Sends JSON to a place where sending it twice does no harm; raises what `get` raises."""
        return await self._patiently(lambda: self._exchange("POST", path, json=body))

    async def upload(self, chunks: Callable[[], AsyncIterable[bytes]], *, name: str, media_type: str) -> dict[str, Any]:
        """Stores a stream of bytes as a blob. `chunks` is asked again if the core ends in the middle."""
        params = {"name": name, "media_type": media_type}
        return cast(
            dict[str, Any],
            await self._patiently(lambda: self._exchange("POST", "/blobs", params=params, content=chunks())),
        )

    async def read(self, digest: str, *, offset: int = 0, limit: int) -> tuple[bytes, int]:
        """At most `limit` bytes of a blob from `offset` on, and how many it has in all; raises what `get` raises."""
        return await self._patiently(lambda: self._part(digest, offset, limit))

    @asynccontextmanager
    async def follow(self, path: str, *, after: int = 0) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """A stream of server-sent events, past and then live, through restarts of the core; ends when the lab says so.

        An event that was given before it was durable may come once more.

        Raises:
            Error: what the lab says, when the stream is read.
        """
        stream = self._events(path, after)
        try:
            yield stream
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    async def _events(self, path: str, after: int) -> AsyncIterator[dict[str, Any]]:
        last, ended = after, False
        while not ended:
            answer = await self._patiently(partial(self._opened, path, last))
            try:
                async for sequence, event in _parsed(answer):
                    if event is None:
                        ended = True
                        break
                    last = sequence or last
                    yield event
            except httpx2.TransportError:
                pass  # it went away: come back for what is left
            finally:
                await answer.aclose()
            if not ended:
                await sleep(PAUSE_S)

    async def _opened(self, path: str, after: int) -> httpx2.Response:
        """The head of a stream; what the lab refuses is raised."""
        headers = {"accept": "text/event-stream", "last-event-id": str(after)}
        request = self._http.build_request("GET", self._api + path, headers=headers, timeout=_within(SILENCE_S))
        answer = await self._http.send(request, stream=True)
        await self._check(answer)
        return answer

    async def _part(self, digest: str, offset: int, limit: int) -> tuple[bytes, int]:
        place, part = f"{self._api}/blobs/{quoted(digest)}", {"range": f"bytes={offset}-{offset + limit - 1}"}
        async with self._http.stream("GET", place, headers=part, timeout=_within(ANSWER_S)) as answer:
            await self._check(answer)
            content = await answer.aread()
            return content, int(answer.headers.get("content-range", f"/{len(content)}").rpartition("/")[2])

    async def _exchange(self, method: str, path: str, **what: Any) -> Any:
        answer = await self._http.request(method, self._api + path, timeout=_within(ANSWER_S), **what)
        await self._check(answer)
        return answer.json()

    async def _check(self, answer: httpx2.Response) -> None:
        self._lease_s = float(answer.headers.get(LEASE_HEADER) or self._lease_s)
        if answer.status_code >= 400:
            raise _error(answer.status_code, await answer.aread())

    async def _patiently(self, act: Callable[[], Awaitable[T]]) -> T:
        """Does it; if the core is away, waits for the next one, at most a lease."""
        deadline: float | None = None
        while True:
            try:
                return await act()
            except httpx2.TransportError as error:
                if deadline is None:
                    deadline = time.monotonic() + (self._lease_s if self._waits else 0.0)
                if time.monotonic() >= deadline:
                    raise Away(
                        f"the lab does not answer ({type(error).__name__})", next="start it with: madlab up"
                    ) from None
                await sleep(PAUSE_S)


def quoted(part: str) -> str:
    """A name as one part of a path."""
    return quote(part, safe="")


async def _parsed(answer: httpx2.Response) -> AsyncIterator[tuple[int, dict[str, Any] | None]]:
    """The events of one connection, with their sequences; `event: end` comes as None."""
    sequence, data = 0, ""
    async for line in answer.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "id":
            sequence = int(value)
        elif field == "data":
            data += value
        elif field == "event" and value == "end":
            yield 0, None
        elif not line and data:
            yield sequence, json.loads(data)
            sequence, data = 0, ""


def _within(seconds: float) -> httpx2.Timeout:
    return httpx2.Timeout(seconds, connect=SILENCE_S)


def _error(status: int, content: bytes) -> Error:
    """The lab's refusal as the exception that its code names."""
    try:
        said = json.loads(content)["error"]
        kind = (BY_CODE | {Broken.code: Broken})[said["code"]]
    except (ValueError, KeyError, TypeError):
        return InvalidArgument(f"the door answered {status} in words this gateway does not know", next="update madlab")
    return kind(str(said["message"]), next=str(said["next"]))
