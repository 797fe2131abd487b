"""The door's routes for whoever watches over the lab: the policy, what waits for a person, what was done."""

import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

from anyio import to_thread
from anyio.lowlevel import checkpoint
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.config import load
from core.egress.addresses import Address
from core.egress.urls import canonical
from core.grace.door import answers
from core.grace.door.answers import Answer
from core.grace.door.callers import caller_of
from core.grace.door.edge import INTEGRAL, Empty, Strict, after_of, json_of, lab_of, number_of, told
from core.grace.door.events import EventStream, Item
from core.grace.door.routes import AFTER, Endpoint, choice, number, text
from core.grace.door.trail import Trail, line_of, merged
from core.lab import Lab
from core.policy.acts import Act, Decision, Kind
from core.policy.approvals import MOST_USES, Approval
from core.policy.backtest import Backtest, recorded
from core.policy.capabilities import Identity, may_reach, may_use
from core.policy.checkpoints import KEY, LINE_BYTES, MOST_LINES, name_of, open_key, read_lines
from core.policy.needed import addresses_in, reached, rule_for, unreached
from core.policy.policy import Policy, load_policy
from core.policy.rules import BUILT_IN, BUILT_IN_NAME, Label, Rule, parse_policy, read_policy
from core.policy.versions import Version, record, versions
from core.ports.acting import denial
from core.turing.principals import NAMED, principal_of
from protos.errors import Denied, InvalidArgument, NotFound

TRIED_AT_ONCE = 200  # decisions between two looks at what else there is to do
MOMENT = re.compile(r"-?[0-9]{1,17}(?:\.[0-9]{1,20})?")
DAYS_S = 30 * 86_400.0  # how far back a policy is tried


class CheckBody(Strict):
    """An act that nobody does."""

    kind: Kind
    target: Annotated[str, Field(max_length=8192)]
    principals: Annotated[list[Annotated[str, Field(max_length=200), told(NAMED)]], Field(min_length=1, max_length=4)]
    details: Annotated[dict[str, str | Annotated[int, INTEGRAL]], Field(max_length=16, default_factory=dict)]
    taint: Annotated[list[Label], Field(max_length=4, default_factory=list)]


class BacktestBody(Strict):
    """A policy to be tried."""

    text: Annotated[str, Field(max_length=200_000)]
    name: Annotated[str, Field(max_length=255)] = "the new policy"
    days: Annotated[float | None, Field(gt=0, le=3660)] = None


class VerifyBody(Strict):
    """Signed checkpoints that were kept elsewhere, and whose they must be."""

    lines: Annotated[list[Annotated[str, Field(max_length=LINE_BYTES)]], Field(max_length=MOST_LINES)]
    key: Annotated[str, Field(max_length=100)] = ""  # the public half; else that of the lab's own key file


class ApproveBody(Strict):
    """How many acts of that form may begin."""

    uses: Annotated[int, Field(ge=1, le=MOST_USES), INTEGRAL] = 1


class PolicyNow(Answer):
    """The policy."""

    version: int
    digest: answers.Digest
    since: answers.Moment
    versions: list[Version]
    files: list[dict[str, Any]]
    rules: list[dict[str, Any]]
    taint: dict[str, str]


class Reloaded(Answer):
    """The policy that holds now."""

    version: int
    digest: answers.Digest
    at: answers.Moment
    rules: int


class Decided(Answer):
    """What the rules say of an act."""

    verdict: Literal["allow", "ask", "deny"]
    rule: str
    file: str
    reason: str
    next: str
    says: str
    limits: dict[str, Any] | None


class AuditLine(Answer):
    """One privileged act."""

    id: str
    sequence: int
    at: answers.Moment
    principal: str
    conversation: str
    act: str
    target: str
    verdict: str
    rule: str
    outcome: str
    ended: answers.Moment | None
    reason: str
    taint: list[str]
    details: dict[str, Any]


class Explained(Answer):
    """Why an act was decided as it was."""

    act: AuditLine
    next: str
    now: Decided | None
    rule: dict[str, Any] | None
    suggestion: str  # the narrowest rule that would allow it; empty where none would
    place: str  # the file for it, at its top


class Backtested(Answer):
    """What another policy would have changed."""

    acts: int
    same: int
    since: answers.Moment
    groups: list[dict[str, Any]]


class ApprovalNow(Answer):
    """A question to a person, and how it stands."""

    id: str
    short: str
    principal: str
    conversation: str
    form: dict[str, Any]
    rule: str
    reason: str
    asked: answers.Moment
    expires: answers.Moment
    state: str
    uses: int
    used: int
    by: str
    decided: answers.Moment
    waiting: int


class Approvals(Answer):
    """Questions to a person."""

    approvals: list[ApprovalNow]


class Audit(Answer):
    """Privileged acts, the oldest first."""

    acts: list[AuditLine]


class VerifiedWith(answers.Verified):
    """What a check of the journal found, with whose checkpoints were looked for."""

    key: str


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint("GET", "/policy", _policy, "The rules that hold, in their order.", answer=PolicyNow)
    yield Endpoint(
        "POST", "/policy/check", _check, "What the rules say of an act that nobody does.",
        body=CheckBody, answer=Decided,
    )  # fmt: skip
    yield Endpoint(
        "POST", "/policy/reload", _reload, "Reads the files of rules again.", body=Empty, answer=Reloaded,
    )  # fmt: skip
    yield Endpoint(
        "GET", "/policy/explain/{id:path}", _explain, "Why an act was decided as it was, and what holds today.",
        answer=Explained,
    )  # fmt: skip
    yield Endpoint(
        "POST", "/policy/backtest", _backtest, "Which recorded acts another policy would have decided otherwise.",
        body=BacktestBody, answer=Backtested,
    )  # fmt: skip
    yield Endpoint(
        "GET", "/approvals", _approvals, "Acts that wait for a person.",
        query=(
            choice("all", "also those that are decided or expired", "0", "1"),
            number("limit", "at most so many of all", default=50),
            AFTER,
        ),
        answer=Approvals, events=ApprovalNow,
    )  # fmt: skip
    yield Endpoint("GET", "/approvals/{id}", _approval, "An act that waits for a person, whole.", answer=ApprovalNow)
    yield Endpoint(
        "POST", "/approvals/{id}/approve", _approve, "Lets an act begin, so many times.",
        body=ApproveBody, answer=ApprovalNow,
    )  # fmt: skip
    yield Endpoint("POST", "/approvals/{id}/deny", _deny, "Says no to an act.", body=Empty, answer=ApprovalNow)
    yield Endpoint(
        "GET", "/audit", _audit, "Privileged acts with intent, decision and outcome.",
        query=(
            text("principal", "of this one only", longest=200),
            text("since", "seconds since the epoch", longest=40, pattern=MOMENT),
            number("limit", "at most so many", default=200),
            AFTER,
        ),
        answer=Audit, events=AuditLine,
    )  # fmt: skip
    yield Endpoint(
        "POST", "/journal/verify", _verify, "Checks the journal, and that it holds what checkpoints know of it.",
        body=VerifyBody, answer=VerifiedWith,
    )  # fmt: skip


# --- the policy


async def _policy(request: Request) -> Response:
    lab = lab_of(request)
    policy, history = lab.services.policy, await versions(lab.journal)
    return JSONResponse(
        {
            "version": history[0].version,
            "digest": policy.digest,
            "since": history[0].at,
            "versions": [asdict(each) for each in history],
            "files": [{"name": each.name, "rules": len(each.table.rules)} for each in policy.files],
            "rules": [_rule_json(policy, each) for each in policy.rules],
            "taint": dict(policy.taint),
        }
    )


async def _reload(request: Request) -> Response:
    """Reads the files again. What they say holds from the next decision on; where one is wrong, nothing changes."""
    lab = lab_of(request)
    await json_of(request, Empty)
    policy = load_policy(load(lab.home).policy)
    version = await record(lab.journal, policy)
    lab.services.policy = policy
    return JSONResponse(asdict(version) | {"rules": len(policy.rules)})


async def _check(request: Request) -> Response:
    lab, body = lab_of(request), await json_of(request, CheckBody)
    act = Act(body.kind, await _principals(lab, body.principals), body.target, body.details, frozenset(body.taint))
    if act.kind == "web.fetch":
        try:
            act = replace(act, target=str(canonical(act.target)))
        except InvalidArgument as error:
            return JSONResponse(_decision_json(lab.services.policy, act, _unaddressed(error)))
    return JSONResponse(_decision_json(lab.services.policy, act, _decided(lab, act)))


def _decided(lab: Lab, act: Act) -> Decision:
    """What would come of an act today: what its manifest, the rules, the grants and the broker say, in their order."""
    refusal = _capable(lab, act)
    if refusal is not None:
        return refusal
    decision = lab.services.policy.decide(act)
    if act.kind == "secret.use" and decision.verdict != "deny":
        return _ungranted(lab, act) or decision
    return reached(act, decision)


async def _principals(lab: Lab, named: list[str]) -> tuple[str, ...]:
    """Who acts, with the MAD of a run that is named alone; a bare name is a MAD, as in a grant.

    Raises:
        InvalidArgument: a name is no principal, of which the policy would say what holds for nobody.
    """
    named = [principal_of(each) for each in named]
    if len(named) == 1 and named[0].startswith("run:"):
        run = await lab.runs.get(named[0].removeprefix("run:"))
        return (named[0], f"mad:{run.mad}")
    return tuple(named)


def _capable(lab: Lab, act: Act) -> Decision | None:
    """The denial that the manifest of a MAD gives, before any rule; None where it asks for what the act needs."""
    name = act.principals[-1].removeprefix("mad:")
    mad = lab.registry.mads.get(name)
    if mad is None or mad.manifest is None or not act.principals[-1].startswith("mad:"):
        return None
    identity = Identity(name, frozenset(mad.manifest.ports))
    try:
        match act.kind:
            case "web.fetch":
                may_reach(identity, act.target)
            case "bus.call" | "run.start":
                may_use(identity, f"call:{act.target.partition('.')[0]}")
            case "llm.complete" if "llm" not in identity.ports:
                may_use(identity, f"llm:{act.target}")
            case "files.put" | "files.get":
                may_use(identity, "files")
    except Denied as error:
        return _said(error)
    return None


def _ungranted(lab: Lab, act: Act) -> Decision | None:
    """The denial of a secret that nobody who acts was granted; None where somebody was."""
    if lab.services.turing is None:
        return None
    details = {name: str(act.details.get(name, "")) for name in ("method", "url")}
    try:
        lab.services.turing.check_use(act.principals, act.target, **details)
    except InvalidArgument as error:
        return _unaddressed(error)
    except Denied as error:
        return _said(error)
    return None


def _unaddressed(error: InvalidArgument) -> Decision:
    """What is no address, as the denial of an act."""
    return Decision("deny", "address", error.message.removesuffix("."), error.next)


def _said(error: Denied) -> Decision:
    """A denial as a decision."""
    rule, _, reason = error.message.removeprefix("rule ").partition(": ")
    return Decision("deny", rule, reason.removesuffix("."), error.next)


async def _explain(request: Request) -> Response:
    lab, id = lab_of(request), request.path_params["id"].removeprefix("act:")
    rows = await _trail(request).entries_of(id)
    lines = [line for row in rows if (line := line_of(row)) is not None]
    if not lines:
        raise NotFound(f"The journal has no act {id[:64]!r}.", next="See: madlab audit")
    line = lines[0]
    for each in lines[1:]:
        line = merged(line, each)
    body = json.loads(rows[0].body or b"{}")
    act = recorded(json.loads(body["form"]) | {"act": json.loads(body["form"])["kind"]} if "form" in body else body)
    policy = lab.services.policy
    told: dict[str, Any] = {"act": line, "next": body.get("next", ""), "now": None, "rule": None, "suggestion": ""}
    rule = next((each for each in policy.rules if each.name == line["rule"]), None)
    if rule is not None:
        told["rule"] = _rule_json(policy, rule)
    why, addresses = str(line["details"].get("why", "")), list[Address]()
    if why and line["outcome"].startswith("failed"):
        addresses = addresses_in(str(line["details"].get("address", "")))
        told["next"] = unreached(why, addresses)
    if act is not None:
        told["now"] = _decision_json(policy, act, _decided(lab, act))
        if _capable(lab, act) is None:
            refused_by = line["rule"] if line["outcome"] == "denied" else ""
            if "target" in body.get("cut", {}):  # its last segment is a part of one
                act = replace(act, target=act.target.rpartition("/")[0] + "/")
            told["suggestion"] = rule_for(policy, act, refused_by=refused_by, addresses=addresses)
    told["place"] = _place(lab) if told["suggestion"] else ""
    return JSONResponse(told)


def _place(lab: Lab) -> str:
    """The file at whose top a rule stands before all others."""
    own = [each.name for each in lab.services.policy.files if each.name != BUILT_IN_NAME]
    return own[0] if own else str(lab.home.path / "policy.toml")


async def _backtest(request: Request) -> Response:
    body = await json_of(request, BacktestBody)
    policy = Policy([parse_policy(body.text, body.name), read_policy(BUILT_IN)])
    since = time.time() - (body.days * 86_400 if body.days else DAYS_S)
    found = Backtest(policy)
    async with aclosing(_trail(request).acts(since=since)) as acts:
        async for each in acts:
            found.try_(each)
            if found.acts % TRIED_AT_ONCE == 0:
                await checkpoint()
    groups = sorted(found.groups.items(), key=lambda item: (item[0].change, -item[1], item[0].where))
    return JSONResponse(
        {
            "acts": found.acts,
            "same": found.same,
            "since": since,
            "groups": [asdict(group) | {"count": count, "example": found.examples[group]} for group, count in groups],
        }
    )


def _rule_json(policy: Policy, rule: Rule) -> dict[str, Any]:
    return {"file": policy.file_of(rule.name), **rule.model_dump(mode="json", exclude_defaults=True)}


def _decision_json(policy: Policy, act: Act, decision: Decision) -> dict[str, Any]:
    limits = asdict(decision.limits) if act.kind == "web.fetch" and decision.verdict != "deny" else None
    said = denial(act, decision, "").message if decision.verdict == "deny" else ""
    return {
        "verdict": decision.verdict,
        "rule": decision.rule,
        "file": policy.file_of(decision.rule),
        "reason": decision.reason,
        "next": decision.next,
        "says": said,
        "limits": limits,
    }


# --- approvals


async def _approvals(request: Request) -> Response | EventStream:
    lab = lab_of(request)
    approvals, trail = lab.services.approvals, _trail(request)
    if "text/event-stream" in request.headers.get("accept", ""):

        @asynccontextmanager
        async def source() -> AsyncIterator[AsyncIterator[Item]]:
            async with aclosing(trail.approvals(after_of(request))) as items:
                yield ((sequence, _approval_json(lab, await approvals.get(id))) async for sequence, id in items)

        return EventStream(source, request.app.state.closing)
    every = request.query_params.get("all") == "1"
    found = await (approvals.newest(number_of(request, "limit", 50, 1000)) if every else approvals.pending())
    return JSONResponse({"approvals": [_approval_json(lab, each) for each in found]})


async def _approval(request: Request) -> Response:
    lab = lab_of(request)
    return JSONResponse(_approval_json(lab, await lab.services.approvals.get(request.path_params["id"])))


async def _approve(request: Request) -> Response:
    lab, body = lab_of(request), await json_of(request, ApproveBody)
    found = await lab.services.approvals.approve(request.path_params["id"], by=caller_of(request).name, uses=body.uses)
    return JSONResponse(_approval_json(lab, found))


async def _deny(request: Request) -> Response:
    lab = lab_of(request)
    await json_of(request, Empty)
    return JSONResponse(
        _approval_json(lab, await lab.services.approvals.deny(request.path_params["id"], by=caller_of(request).name))
    )


def _approval_json(lab: Lab, approval: Approval) -> dict[str, Any]:
    return asdict(approval) | {
        "short": approval.short,
        "form": json.loads(approval.form),
        "state": approval.said(time.time()),
        "waiting": lab.services.approvals.waiting(approval),
    }


# --- the audit


async def _audit(request: Request) -> Response | EventStream:
    trail, principal = _trail(request), request.query_params.get("principal", "")
    if "text/event-stream" in request.headers.get("accept", ""):

        @asynccontextmanager
        async def source() -> AsyncIterator[AsyncIterator[Item]]:
            async with aclosing(trail.follow(principal=principal, after=after_of(request))) as lines:
                yield lines

        return EventStream(source, request.app.state.closing)
    since = _moment(request.query_params.get("since", "0"))
    lines = await trail.lines(principal=principal, since=since, limit=number_of(request, "limit", 200, 10_000, least=1))
    return JSONResponse({"acts": lines})


async def _verify(request: Request) -> Response:
    """Checks the journal, and that it still holds what checkpoints from elsewhere know of it."""
    lab, body = lab_of(request), await json_of(request, VerifyBody)
    key = body.key or name_of(await to_thread.run_sync(open_key, lab.home.path / KEY))
    kept = [each.head for each in read_lines(body.lines, lab.home.lab, key)]
    found = await lab.journal.verify(kept)
    return JSONResponse({"ok": found.ok} | asdict(found) | {"key": key})


def _moment(text: str) -> float:
    if not MOMENT.fullmatch(text):
        raise InvalidArgument(f"since: {text[:40]!r} is no moment", next="give seconds since the epoch")
    return float(text)


def _trail(request: Request) -> Trail:
    trail: Trail = request.app.state.trail
    return trail
