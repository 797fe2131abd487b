"""A small real `Web`: it makes each request itself, of servers on loopback that stand for hosts of the world."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass, field

import httpx2

from protos.errors import Denied, Unavailable
from protos.v1.web_pb2 import Fetched, FetchEvent, Header, RequestHead, ResponseHead
from protos.web import Web


@dataclass
class AWeb(Web):
    """`hosts` maps origins such as "https://shop.test" to where their server is: "http://127.0.0.1:1234"."""

    hosts: Mapping[str, str]
    heads: list[RequestHead] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def fetch(self, head: RequestHead, body: AsyncIterable[bytes] | None = None) -> AsyncIterator[FetchEvent]:
        self.heads.append(head)
        origin = "/".join(head.url.split("/", 3)[:3])
        if origin not in self.hosts:
            raise Denied(f"rule host: {origin} may not be reached.", next="Add a rule.")
        sent = b"".join([chunk async for chunk in body]) if body is not None else b""
        self.bodies.append(sent)
        headers = [(each.name, each.value.decode("latin-1")) for each in head.headers]
        digest, size = hashlib.sha256(), 0
        async with httpx2.AsyncClient(trust_env=False) as client:
            try:
                async with client.stream(
                    head.method, self.hosts[origin] + head.url[len(origin) :], headers=headers, content=sent
                ) as answer:
                    raw = [Header(name=name.decode(), value=value) for name, value in answer.headers.raw]
                    yield FetchEvent(head=ResponseHead(status=answer.status_code, headers=raw))
                    async for chunk in answer.aiter_raw():
                        digest.update(chunk)
                        size += len(chunk)
                        yield FetchEvent(bytes=chunk)
            except httpx2.TransportError as error:
                raise Unavailable(f"The connection to {origin} broke: {error}", next="Try again.") from None
        end = Fetched(bytes_sent=len(sent), bytes_received=size, digest=f"sha256:{digest.hexdigest()}")
        yield FetchEvent(end=end)
