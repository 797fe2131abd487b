"""The nouns of the lab as JSON: what every client of the door sees. Fields are only ever added."""

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core import VERSION
from core.dispatcher import terms_of
from core.grace.door.vault import vault_json
from core.horace.store import Version
from core.lab import Lab
from core.ports.packages import installed
from core.redaction.canaries import count_of
from core.registry import RegisteredMad
from core.run import Run
from core.strict import strict_json
from protos.v1.message_pb2 import Blob, Kind, Message, Taint

DEAD_LETTERS = 10  # the newest, as the status shows them


def message_json(message: Message) -> dict[str, Any]:
    """One message. `at` is seconds since the epoch; `sequence` is 0 while it is not durable."""
    return {
        "id": message.id,
        "sequence": message.sequence,
        "at": message.at,
        "conversation": message.conversation,
        "sender": message.sender,
        "recipient": message.recipient,
        "kind": Kind.Name(message.kind).removeprefix("KIND_").lower(),
        "tool": message.tool,
        "text": message.text,
        "data": _parsed(message.data),
        "in_reply_to": message.in_reply_to,
        "causation": message.causation,
        "taint": [Taint.Name(each).removeprefix("TAINT_").lower() for each in message.taint],
        "blobs": [blob_json(each) for each in message.blobs],
        "terms": terms_of(message),
    }


def blob_json(blob: Blob) -> dict[str, Any]:
    """One blob: what it is called, never what it holds."""
    return {"digest": blob.digest, "size": blob.size, "name": blob.name, "media_type": blob.media_type}


def version_json(version: Version) -> dict[str, Any]:
    """One version of a named file."""
    return blob_json(version.blob) | {"version": version.version, "at": version.at}


def run_json(lab: Lab, run: Run) -> dict[str, Any]:
    """One run in a list. Times are seconds since the epoch, null while not reached; `outcome` is null until it ended.

    `place` is its place in the queue, null when it does not wait.
    """
    return {
        "id": run.id,
        "mad": run.mad,
        "state": str(run.state),
        "outcome": None if run.live or run.outcome is None else str(run.outcome),
        "created": run.created,
        "started": run.started or None,
        "ended": run.ended or None,
        "reason": run.reason,
        "cost": run.cost,
        "conversation": run.conversation,
        "parent": run.parent or None,
        "title": run.title,
        "asker": run.asker,
        "place": lab.dispatcher.place(run.id),
    }


async def status_json(lab: Lab) -> dict[str, Any]:
    """What the lab is and does."""
    dead = await lab.rogers.dead_letters(limit=DEAD_LETTERS)
    journal = lab.journal.statistics()
    files = lab.horace.usage()
    return {
        "pid": os.getpid(),
        "version": VERSION,
        "lab": lab.home.lab,
        "ready": lab.ready,
        "web": lab.web or None,
        "uptime_s": round(time.time() - lab.started, 3),
        "mads": mads_json(lab),
        "runs": lab.dispatcher.counts(),
        "sandboxes": lab.dispatcher.sandboxes(),
        "journal": {
            "messages": journal.messages,
            "bytes": journal.bytes,
            "lost": journal.lost,
            "sealed": journal.sealed,
        },
        "vault": vault_json(lab),
        "incidents": await count_of(lab.journal),
        "dead_letters": [asdict(each) for each in dead],
        "approvals": len(await lab.services.approvals.pending()),
        "files": {"blobs": files.blobs, "bytes": files.bytes, "quota_bytes": files.quota_bytes},
        "memory_bytes": _memory_bytes(),
    }


def mads_json(lab: Lab) -> list[dict[str, Any]]:
    """Every MAD and how it fares."""
    return [_mad_json(lab, each) for each in lab.registry.mads.values()]


def _mad_json(lab: Lab, mad: RegisteredMad) -> dict[str, Any]:
    known = {
        "name": mad.name,
        "kind": mad.kind,
        "version": mad.version,
        "summary": mad.summary,
        "tools": len(mad.tools),
    }
    kept = lab.residents.kept.get(mad.name)
    if kept is None:
        pool = lab.pools.get(mad.name)
        return known | {"state": "on demand", "warm": pool.statistics().ready if pool else 0}
    return known | {"state": kept.state, "home": kept.setting.home, "restarts": kept.restarts, "error": kept.last_error}


def _memory_bytes() -> int:
    """What of this process is in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _parsed(data: str) -> Any:
    """A worker may have said anything: what is no JSON is shown as the text it is."""
    if not data:
        return None
    value = strict_json(data)
    return data if value is None and data.strip() != "null" else value


async def packages_json(lab: Lab, run: str) -> list[dict[str, Any]]:
    """What a run has fetched from package indexes."""
    return [asdict(each) for each in await installed(lab.journal, run)]
