"""How much of the lab's files a client has, and may: a quarter each, and the last quarter is the operator's.

A client has what it stored, and what is linked in its conversations, as its runs do. What it stores is counted while it
comes, however many streams there are; what its runs store is seen when the next run is asked for, so they go beyond
the share by what those at work may store. What is removed is seen within a second.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import current_time

from core.grace.door.belongings import blobs_of
from core.lab import Lab
from protos.errors import Exhausted

PARTS = 4  # as many as there are shares of the whole
LOOK_S = 1.0  # at least, between two looks at what one client has


class Shares:
    """What each client has."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._had: dict[str, tuple[float, int]] = {}  # bytes that were found by the last look, and when that was
        self._coming: Counter[str] = Counter()  # bytes that are being stored
        self._came: Counter[str] = Counter()  # bytes that were stored since the core began

    async def check(self, client: str) -> None:
        """Whether a client may have anything more.

        Raises:
            Exhausted: it has its share, or all clients have what is theirs.
        """
        await self._look(client)
        await self._check(client, 1)

    @asynccontextmanager
    async def storing(self, client: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
        """What is to be stored, counted. Its end, if it is a good one, is when the lab knows whose it is.

        Raises:
            Exhausted: as `check`; also from what is given, where it grows too large.
        """
        size = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size
            async for chunk in chunks:
                await self._check(client, len(chunk))
                size += len(chunk)
                self._coming[client] += len(chunk)
                yield chunk

        await self._check(client, 1)
        try:
            yield counted()
            self._came[client] += size
            at, had = self._had[client]
            self._had[client] = at, had + size
        finally:
            self._coming[client] -= size

    async def _check(self, client: str, more: int) -> None:
        if client not in self._had or self._is_over(client, more):
            await self._look(client)
        if (reason := self._is_over(client, more)) is not None:
            raise Exhausted(
                reason,
                next="store less; what nothing uses goes after files.keep_days, and the operator can make room"
                " (madlab forget) or raise files.quota_gb",
            )

    def _is_over(self, client: str, more: int) -> str | None:
        """Why there is no room for so many bytes; None where there is."""
        usage = self._lab.horace.usage()
        share = usage.quota_bytes // PARTS
        has = self._had[client][1] + self._coming[client]
        if has + more > share:
            return f"your files take {has:,} of the {share:,} bytes that one client may have"
        if usage.bytes + more > usage.quota_bytes - share:
            return f"the lab's files take {usage.bytes:,} bytes, and the last {share:,} are the operator's"
        return None

    async def _look(self, client: str) -> None:
        """Counts what is there; what is stored meanwhile counts on top."""
        now = current_time()
        if now - self._had.get(client, (-LOOK_S, 0))[0] < LOOK_S:
            return
        came = self._came[client]
        found = await self._lab.horace.held(await blobs_of(self._lab.journal, client))
        self._had[client] = now, found + self._came[client] - came
