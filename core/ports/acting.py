"""Every act of a port is in the journal: *started* before it, *outcome* after it."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.policy.capabilities import Identity
from core.rogers.entry import Entry
from core.rogers.journal import Journal
from protos.errors import Error
from protos.ids import new_id


@asynccontextmanager
async def acting(journal: Journal, identity: Identity, act: str, **fields: object) -> AsyncIterator[dict[str, object]]:
    """Journals an act: *started* is durable before the body, *outcome* after it. What the body adds is written too."""
    id = new_id()
    added: dict[str, object] = {}

    def entry(step: str, **more: object) -> Entry:
        body = {"act": act, "step": step, **fields, **added, **more}
        return Entry(
            id=f"act:{id}:{step}",
            kind="act",
            body=json.dumps(body, ensure_ascii=False).encode(),
            conversation=identity.conversation,
            sender=identity.principal,
            at=time.time(),
        )

    await journal.append(entry("started"))
    try:
        yield added
    except BaseException as error:
        added.pop("digest", None)
        journal.append_soon(entry("outcome", failed=error.code if isinstance(error, Error) else type(error).__name__))
        raise
    await journal.append(entry("outcome"))
