"""What a run has come to: how its worker's end reads, and how far its worker's word is believed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core.gate import check_evidence
from core.policy.capabilities import Identity
from core.ports.links import may_read
from core.ports.services import Services
from core.run import Outcome, judge
from protos.errors import NotFound
from protos.v1.message_pb2 import Blob
from protos.v1.session_pb2 import FinishRequest
from protos.v1.session_pb2 import Outcome as WireOutcome
from sandbox.engine import Exit

ARTIFACTS = 100  # of one run
GIVE_UP_EXIT = 3  # a worker's own exit code when the core did not answer for a lease


@dataclass
class Ending:
    """How a run ended, before it is written down."""

    outcome: Outcome
    reason: str = ""
    evidence: Mapping[str, object] = field(default_factory=dict)
    artifacts: list[dict[str, object]] = field(default_factory=list)


async def ending_by_word(
    services: Services, identity: Identity, finished: FinishRequest, needed: tuple[str, ...]
) -> Ending:
    """What a worker says it came to, as far as it can be believed."""
    evidence = check_evidence(finished.evidence)
    name = WireOutcome.Name(finished.outcome).removeprefix("OUTCOME_").lower()
    claimed = Outcome(name) if name in set(Outcome) else Outcome.FAILED
    outcome, doubt = (claimed, "") if identity.core else judge(claimed, evidence, needed)
    artifacts, missing = await _kept(services, identity, finished.artifacts[:ARTIFACTS])
    if missing:
        outcome, doubt = Outcome.FAILED, "The worker named an artifact that it never stored."
    return Ending(outcome, doubt or finished.reason, evidence, artifacts)


def ending_by_exit(exit: Exit) -> Ending:
    """What it means that a worker ended before it reported."""
    words = f" Its last words: {said}" if (said := exit.last_words(600)) else ""
    if exit.reason == "out_of_memory":
        return Ending(Outcome.OUT_OF_MEMORY, "It used more memory than its profile allows." + words)
    if exit.reason == "killed":
        return Ending(Outcome.KILLED, "Something outside the lab killed its sandbox." + words)
    if exit.code == GIVE_UP_EXIT:
        return Ending(Outcome.LOST, "The core was away for longer than the worker's lease." + words)
    return Ending(Outcome.FAILED, f"The worker ended with code {exit.code} before it reported." + words)


async def _kept(
    services: Services, identity: Identity, blobs: Sequence[Blob]
) -> tuple[list[dict[str, object]], list[Blob]]:
    """Of the blobs that were named: those that are there and may be read, and the others."""
    kept: list[dict[str, object]] = []
    missing = []
    for each in blobs:
        try:
            await may_read(services, identity, each.digest)
            blob = await services.horace.stat(each.digest)
        except NotFound:
            missing.append(each)
            continue
        about = {"name": each.name[:255], "media_type": each.media_type[:255]}
        kept.append({"digest": blob.digest, "size": blob.size} | about)
    return kept, missing
