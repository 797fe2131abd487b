"""The one gate: every act of everybody passes it, in one order.

    capability ─▶ policy ─▶ taint ─▶ approval, where one is needed ─▶ journal *started* ─▶ act ─▶ journal *outcome*

Schemas were checked before, budgets are the port's own (a request that no budget covers is not asked about), and what
would be denied anyway is never asked. What was approved is used up in the transaction that makes *started* durable,
and so is whatever else stands or falls with the act (`also`: a grant's use). A denial is one entry, typed, says its
rule and what would be needed, and looks the same on every path.

`acting` is for acts with a body. Messages and requests to models are journalled by whoever carries them: they ask
`permitted` and put the entries that come with the permission into their own transaction.
"""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TypeVar

from core.policy.acts import Act, Decision, Limits
from core.policy.approvals import Approval, Spent
from core.policy.capabilities import Identity, may_reach
from core.ports.services import Services
from core.rogers.entry import Entry
from protos.errors import Denied, Error
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_EVENT, Message

PRIVATE = "private"  # the label of a run that has seen what a secret opened
TARGET_CHARACTERS = 200  # of a target, in a sentence
DENIED_CHARACTERS = 512  # of each text in what was denied, in the journal

T = TypeVar("T")


@dataclass(frozen=True)
class Permit:
    """An act that may begin, as it was decided about."""

    id: str  # of the act, in the journal
    act: Act
    decision: Decision
    uses: tuple[Entry, ...] = ()  # of approvals: to be appended with what starts the act
    approvals: tuple[str, ...] = ()  # their ids

    @property
    def intent(self) -> dict[str, object]:
        """The act and its decision, as the journal remembers them: what a later policy can be tried with."""
        approved = {"approved": ",".join(self.approvals)} if self.approvals else {}
        return _intent(self.act, self.decision) | approved


class Added(dict[str, object]):
    """What a body adds to its act's outcome; and under which decision it acts."""

    def __init__(self, permit: Permit, append: Callable[[str, dict[str, object]], Awaitable[object]]) -> None:
        super().__init__()
        self.id = permit.id
        self.decision = permit.decision
        self._append = append

    @property
    def limits(self) -> Limits:
        """What the rule that allows it says of its size, time and rate."""
        return self.decision.limits

    async def note(self, step: str, **facts: object) -> None:
        """Makes durable what others build on before the act is over."""
        await self._append(step, facts)


@asynccontextmanager
async def acting(
    services: Services,
    identity: Identity,
    act: Act,
    *,
    also: Sequence[Entry] = (),
    needs: Sequence[Act] = (),
    waits: bool = True,
    **fields: object,
) -> AsyncIterator[Added]:
    """Decides and journals an act: *started* is durable before the body, *outcome* after it.

    Where nobody builds on the outcome it need not be waited for (`waits=False`): it rides in the next commit.

    `also` are entries that stand or fall with *started*. `needs` are further acts that it cannot be done without (the
    use of a secret): all are decided about before any is asked about. `fields`, and what the body adds, are written
    down too.

    Raises:
        Denied: a capability, a rule or a person says no; "rule NAME: ...". Journalled.
        Exhausted: too many acts of this caller wait for a person already.
        Unavailable: the journal is sealed; nothing was begun.
    """

    def entry(permit: Permit, step: str, body: dict[str, object]) -> Entry:
        return _entry(permit.id, step, identity, {"act": act.kind, "step": step, **body})

    async def start(permit: Permit) -> Permit:
        await services.journal.append(*permit.uses, *also, entry(permit, "started", {**permit.intent, **fields}))
        return permit

    permit = await under_policy(services, identity, act, start, needs=needs)
    if act.kind == "web.fetch":
        opened = any(each.kind == "secret.use" for each in needs)
        await services.taints.add(identity, ("web", PRIVATE) if opened else ("web",))
    added = Added(permit, lambda step, facts: services.journal.append(entry(permit, step, facts)))
    try:
        yield added
    except BaseException as error:
        added.pop("digest", None)
        failed = error.code if isinstance(error, Error) else type(error).__name__
        services.journal.append_soon(entry(permit, "outcome", {**fields, **added, "failed": failed}))
        raise
    outcome = entry(permit, "outcome", {**fields, **added})
    if waits:
        await services.journal.append(outcome)
    else:
        services.journal.append_soon(outcome)


async def under_policy(
    services: Services,
    identity: Identity,
    act: Act,
    start: Callable[[Permit], Awaitable[T]],
    *,
    needs: Sequence[Act] = (),
) -> T:
    """Has `start` begin the act, once it may. `start` appends `permit.uses` in the transaction that begins it.

    Raises:
        as `acting`, and what `start` does.
    """
    while True:
        permit = await permitted(services, identity, act, needs=needs)
        try:
            return await start(permit)
        except Spent:
            continue  # another act of the same form took the last use: this one is asked about anew
        except Denied as error:  # what stands or falls with it has fallen: a grant that is used up
            if not error.message.startswith("rule "):
                raise
            await _note_denial(services, identity, permit.id, permit.act, _said(error))
            raise


async def permitted(services: Services, identity: Identity, act: Act, *, needs: Sequence[Act] = ()) -> Permit:
    """Decides about an act, waiting for a person where the policy says so.

    Raises:
        Denied: as `acting`; journalled.
        Exhausted: too many acts of this caller wait for a person already.
    """
    id = new_id()
    if secrets := ",".join(each.target for each in needs if each.kind == "secret.use"):
        act = replace(act, details={**act.details, "secrets": secrets})
    try:
        if act.kind == "web.fetch":
            may_reach(identity, act.target)
    except Denied as error:
        await _note_denial(services, identity, id, act, _said(error))
        raise
    approved: dict[str, Approval] = {}  # by digest
    while True:  # an answer takes a while: then there may be another policy, and more labels, which make it another act
        labels = await services.taints.of(identity)
        if secrets:
            labels -= {PRIVATE}  # it goes where a secret was granted for: what that opens came from there
        acts = [replace(each, taint=each.taint | labels) if labels else each for each in (act, *needs)]
        decisions = await _decided(services, identity, id, acts)
        asked = [(each, to) for each, to in zip(acts, decisions, strict=True) if to.verdict == "ask"]
        if all(each.digest in approved for each, _ in asked):
            break
        for each, decision in asked:
            if each.digest in approved:
                continue
            try:
                approved[each.digest] = await _approved(services, identity, each, decision)
            except Denied as error:
                await _note_denial(services, identity, id, each, replace(_said(error), rule=decision.rule))
                raise
    used = [approved[each.digest] for each, _ in asked]
    uses = [services.approvals.use(yes, f"{id}:{each.kind}") for yes, (each, _) in zip(used, asked, strict=True)]
    return Permit(id, acts[0], decisions[0], tuple(uses), tuple(each.id for each in used))


async def _decided(services: Services, identity: Identity, id: str, acts: Sequence[Act]) -> list[Decision]:
    """What the rules say of an act and of what it cannot be done without.

    Raises:
        Denied: no to one of them; journalled.
    """
    decisions = [services.policy.decide(each) for each in acts]
    for each, decision in zip(acts, decisions, strict=True):
        if decision.verdict == "deny":
            await _note_denial(services, identity, id, each, decision)
            raise denial(each, decision, id)
    return decisions


@asynccontextmanager
async def denying(services: Services, identity: Identity, act: Act) -> AsyncIterator[None]:
    """Journals what the body refuses before the act is decided about: a capability, a grant."""
    try:
        yield
    except Denied as error:
        await _note_denial(services, identity, new_id(), act, _said(error))
        raise


def denial(act: Act, decision: Decision, id: str) -> Denied:
    """What whoever is refused hears."""
    who, target = act.principals[-1], act.target[:TARGET_CHARACTERS]
    return Denied(
        f"rule {decision.rule}: {decision.reason} ({who}: {act.kind} {target}).",
        next=f"{decision.next} See: madlab policy explain {id}".strip(),
    )


async def _approved(services: Services, identity: Identity, act: Act, decision: Decision) -> Approval:
    async def tell(approval: Approval) -> None:
        if identity.conversation:
            await services.rogers.report([_waits(identity, approval)], sender=identity.participant)

    return await services.approvals.obtain(
        act, decision, conversation=identity.conversation, principal=identity.principal, tell=tell
    )


def _waits(identity: Identity, approval: Approval) -> Message:
    """What those who watch the run see."""
    act = json.loads(approval.form)
    return Message(
        id=new_id(),
        conversation=identity.conversation,
        kind=KIND_EVENT,
        tool="progress",
        text=f"waits for approval {approval.short} ({act['kind']} {act['target'][:TARGET_CHARACTERS]}):"
        f" madlab approve {approval.short}",
        data=json.dumps({"approval": approval.id, "rule": approval.rule, "expires": approval.expires}),
    )


def _said(error: Denied) -> Decision:
    """A denial that was raised, as a decision."""
    rule, colon, reason = error.message.removeprefix("rule ").partition(": ")
    return Decision("deny", rule if colon else "other", reason or error.message, error.next)


async def _note_denial(services: Services, identity: Identity, id: str, act: Act, decision: Decision) -> None:
    """Writes a denial down, of what is long in it the beginning and a digest: nobody shall fill the journal by asking.

    Values are taken out before, or a part of one would stand at the end and not be known again.
    """
    cut: dict[str, str] = {}

    def shortened(name: str, text: str) -> str:
        clean = services.redactor.redact_text(text) if len(text) > DENIED_CHARACTERS else text
        if len(clean) > DENIED_CHARACTERS:
            cut[name] = f"sha256:{sha256(clean.encode()).hexdigest()}"
        return clean[:DENIED_CHARACTERS]

    details = {key: shortened(key, each) if isinstance(each, str) else each for key, each in act.details.items()}
    short = replace(act, target=shortened("target", act.target), details=details)
    why = {"reason": shortened("reason", decision.reason), "next": shortened("next", decision.next)}
    body = {"act": act.kind, "step": "denied", **_intent(short, decision), **why}
    await services.journal.append(_entry(id, "denied", identity, body | ({"cut": cut} if cut else {})))


def _intent(act: Act, decision: Decision) -> dict[str, object]:
    form = act.form()
    del form["kind"]  # it is what the entry calls `act`
    return {**form, "rule": decision.rule, "verdict": decision.verdict}


def _entry(id: str, step: str, identity: Identity, body: dict[str, object]) -> Entry:
    return Entry(
        id=f"act:{id}:{step}",
        kind="act",
        body=json.dumps(body, ensure_ascii=False).encode(),
        conversation=identity.conversation,
        sender=identity.principal,
        at=time.time(),
    )
