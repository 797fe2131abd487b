"""The files port: Horace with one caller's permissions and allowance."""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from core.policy.acts import Act
from core.policy.capabilities import Identity, may_use
from core.ports.acting import acting
from core.ports.copies import carried
from core.ports.links import may_read
from core.ports.services import Allowance, Services
from core.ports.watching import watching
from protos.mad import Files
from protos.v1.message_pb2 import Blob


@dataclass
class LocalFiles(Files):
    """Horace with one caller's permissions and allowance."""

    services: Services
    identity: Identity
    allowance: Allowance

    async def put(self, chunks: AsyncIterable[bytes], *, name: str = "", media_type: str = "") -> Blob:
        may_use(self.identity, "files")
        name, media_type = name[:255], media_type[:255]
        act = Act("files.put", self.identity.principals, name)
        self.allowance.take_act(act, times=3)  # as its target, and as its name in both entries
        async with acting(self.services, self.identity, act, name=name) as added:
            with watching(self.services, self.identity, f"the file {name or 'without a name'}"):
                blob = await self.services.horace.put(self._paid(chunks), name=name, media_type=media_type)
            taint = sorted(await self.services.taints.of(self.identity))  # also what was read while it was stored
            added |= {"digest": blob.digest, "size": blob.size, "taint": taint}
        return blob

    async def _paid(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """Counts as it goes: many streams at once share what one could store."""
        async for chunk in chunks:
            self.allowance.take_out(len(chunk))
            yield chunk

    async def get(self, digest: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        may_use(self.identity, "files")
        act = Act("files.get", self.identity.principals, digest)
        self.allowance.take_act(act)
        await may_read(self.services, self.identity, digest)
        before = self.allowance.used_in
        await self.services.taints.add(self.identity, await carried(self.services, self.identity, digest))
        async with (
            acting(self.services, self.identity, act, digest=digest, offset=offset) as added,
            aclosing(self.services.horace.get(digest, offset=offset)) as stream,  # type: ignore[type-var]
        ):
            async for chunk in stream:
                self.allowance.take_in(len(chunk))
                added["size"] = self.allowance.used_in - before
                yield chunk

    async def find(self, name: str) -> Blob:
        may_use(self.identity, f"files:{name[:64]}")
        return await self.services.horace.find(name)
