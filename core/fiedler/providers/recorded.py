"""Answers from files instead of the network: exchanges that were recorded, or written by hand (`synthetic-*`).

An exchange is one JSON file: `request` (method, path, body) and `response` (status, headers, and the body as text, or
as chunks where it was a stream). It is the HTTP that is kept, not our reading of it, so a replay runs the same SDK and
the same adapter as the network does. No header of a request is kept: there is no key in a recording.

A request is answered by the exchange whose method, path and body are the same; if several are, one after another.
"""

import codecs
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

KEPT_HEADERS = ("content-type", "retry-after", "retry-after-ms")


@dataclass(frozen=True)
class Exchange:
    """One request and its answer."""

    name: str
    method: str
    path: str
    body: Any
    status: int
    headers: dict[str, str]
    chunks: Sequence[bytes]

    @classmethod
    def read(cls, path: Path) -> "Exchange":
        """
        Raises:
            OSError, ValueError: it cannot be read, or is no exchange.
        """
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            request, response = kept["request"], kept["response"]
            body = response["body"]
            chunks = [body] if isinstance(body, str) else body
            return cls(
                name=path.stem,
                method=request["method"],
                path=request["path"],
                body=request.get("body"),
                status=response["status"],
                headers=response.get("headers", {}),
                chunks=[each.encode() for each in chunks],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no recorded exchange: {error!r}") from None

    def write(self, directory: Path) -> None:
        """Keeps it as a file."""
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode  # a chunk may end inside a character
        body = [text for each in self.chunks if (text := decode(each))]
        response = {"status": self.status, "headers": self.headers, "body": body}
        request = {"method": self.method, "path": self.path, "body": self.body}
        kept = json.dumps({"request": request, "response": response}, ensure_ascii=False, indent=1)
        (directory / f"{self.name}.json").write_text(kept + "\n", encoding="utf-8")


class Replay(httpx2.AsyncBaseTransport):
    """A network that has only what was recorded."""

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        self._exchanges = list(exchanges)

    @classmethod
    def read(cls, directory: Path) -> "Replay":
        """All exchanges of a directory.

        Raises:
            OSError, ValueError: there are none, or one cannot be read.
        """
        found = sorted(directory.glob("*.json"))
        if not found:
            raise ValueError(f"{directory} has no recorded exchange")
        return cls([Exchange.read(each) for each in found])

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        content = await request.aread()
        asked = (request.method, request.url.path, json.loads(content) if content else None)
        for index, each in enumerate(self._exchanges):
            if (each.method, each.path, each.body) == asked:
                self._exchanges.append(self._exchanges.pop(index))  # the next of the same request is another one
                return httpx2.Response(each.status, headers=each.headers, stream=_Chunks(each.chunks))
        error = {"type": "invalid_request_error", "message": f"No recorded exchange answers {asked[0]} {asked[1]}."}
        return httpx2.Response(400, json={"error": error})


class Recorder(httpx2.AsyncBaseTransport):
    """A network whose every exchange is kept below `directory`, numbered after `prefix`."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, directory: Path, prefix: str) -> None:
        self._inner, self._directory, self._prefix = inner, directory, prefix
        self._count = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        content = b"".join([each async for each in request.stream])  # type: ignore[union-attr]
        sent = httpx2.Request(request.method, request.url, headers=request.headers, content=content)
        response = await self._inner.handle_async_request(sent)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        chunks = [each async for each in response.stream]
        await response.stream.aclose()
        self._count += 1
        Exchange(
            name=f"{self._prefix}-{self._count:03}",
            method=request.method,
            path=request.url.path,
            body=json.loads(content) if content else None,
            status=response.status_code,
            headers={name: response.headers[name] for name in KEPT_HEADERS if name in response.headers},
            chunks=chunks,
        ).write(self._directory)
        return httpx2.Response(response.status_code, headers=response.headers, stream=_Chunks(chunks))

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Chunks(httpx2.AsyncByteStream):
    def __init__(self, chunks: Sequence[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for each in self._chunks:
            yield each
