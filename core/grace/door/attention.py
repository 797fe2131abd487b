"""What needs a person, as one ranked list: each thing with what shows it and the acts it asks for.

    facts_of(lab) ──▶ Facts ──▶ items_of(facts): pure ──▶ [Item, ...] best first

Nothing is kept here. Whoever looks gathers the facts, each at the cost of what there is to show: questions that wait
(by their expiry), patches that nobody has decided about, troubles that nobody has dismissed (`core.troubles`, counted
as they happen), the accounts of live runs, and how the vault, the journal and the machine are. Equal questions are one
item: the same act under the same rule, whoever asks. Its acts name each of them by the digest of what was shown, so
that nothing is approved unseen; a patch has no acts here, for it has to be read first.

An act is what a client posts as it is, below `/api/v1`. One that needs words of a person says so in `asks`. A question
carries what would be approved, part by part as it is (`form`); where that is too long for a list, its act says in
`shows` where all of it is, to be read before.
"""

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from anyio import to_thread
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.coding.telling import warnings
from core.fiedler.escrow import Account
from core.fiedler.money import dollars
from core.grace.door.callers import OPERATOR, caller_of
from core.grace.door.edge import INTEGRAL, Strict, json_of, lab_of
from core.grace.door.routes import Endpoint
from core.grace.door.vault import vault_json
from core.lab import Lab
from core.policy.acts import READING
from core.policy.approvals import Approval
from core.products import PATCH, products
from core.run import Outcome, Run
from core.troubles import OTHERS, Trouble, dismiss, troubles
from protos.errors import Conflict

MOST = 200  # items of each kind that are looked at
PATCHES = 25  # of them, the newest: each is looked up with its evidence
SOON_S = 120.0  # before a question expires
NEAR = 0.8  # of a cap, or of the queue
LITTLE_BYTES = 5 * 1000**3  # free on the disk; a tenth of that is too little
COSTS = "/lab/costs?by=run&days=1"
SHOWN = 7  # places of one item
CHARACTERS = 200  # of what came from elsewhere, in a sentence
FORM_CHARACTERS = 1_500  # of what would be approved, in the list

Kind = Literal["approval", "incident", "patch", "run", "budget", "vault", "journal", "machine"]
RANKS = {  # what can wait least first; the gaps are for what comes later
    "journal sealed": 1000,
    "incident": 900,
    "machine bad": 850,
    "approval soon over": 800,
    "approval": 750,
    "vault damaged": 700,
    "budget spent": 650,
    "queue full": 600,
    "run stuck": 550,
    "patch": 525,  # proved: work that is done and of no use until somebody looks
    "run": 500,
    "patch in doubt": 475,
    "machine weak": 450,
    "budget near": 400,
    "journal lost": 350,
    "vault locked": 300,
    "queue near": 250,
}


@dataclass(frozen=True)
class Evidence:
    """A place of the page where more is to be seen."""

    label: str
    path: str


@dataclass(frozen=True)
class Part:
    """A part of what would be approved, as it is."""

    name: str
    text: str


@dataclass(frozen=True)
class Deed:
    """Something a person can do about it: a request that is sent as it stands."""

    label: str
    method: Literal["POST", "PUT"]
    path: str  # below /api/v1
    body: dict[str, Any] = field(default_factory=dict)
    danger: bool = False  # it cannot be taken back, or lets something out of the lab
    asks: Sequence[str] = ()  # fields of the body that a person fills in
    shows: str = ""  # a path below /api/v1 whose `form` has to be read before: the item has its beginning only


@dataclass(frozen=True)
class Item:
    """One thing that needs a person, since `since` (seconds since the epoch). With a high `rank` it cannot wait."""

    id: str
    kind: Kind
    rank: int
    title: str
    detail: str
    since: float
    count: int
    evidence: Sequence[Evidence]
    acts: Sequence[Deed]
    form: Sequence[Part] = ()  # of a question: what would be approved


@dataclass(frozen=True)
class Resident:
    """A resident that does not run."""

    name: str
    state: str
    error: str
    restarts: int


@dataclass(frozen=True)
class Facts:
    """How things stand."""

    now: float
    started: float  # when the core began
    approvals: Sequence[tuple[Approval, int]] = ()  # with how many acts wait for each
    troubles: Sequence[Trouble] = ()
    patches: Sequence[Run] = ()  # that left one, which waits, the newest first
    live: Sequence[Run] = ()
    accounts: Sequence[Account] = ()  # of live runs, and of the day
    vault: Mapping[str, Any] = field(default_factory=dict)
    sealed: str | None = None
    lost: int = 0
    queued: int = 0
    queue_max: int = 0
    free_bytes: int | None = None
    residents: Sequence[Resident] = ()


@dataclass(frozen=True)
class Attention:
    """What needs a person, what can wait least first."""

    items: Sequence[Item]


class DismissBody(Strict):
    """Up to where a person has seen it: the `seen` of its act."""

    seen: Annotated[int, Field(ge=0), INTEGRAL]


class AnswersBody(Strict):
    """Questions that were shown as one, and the one answer to all of them."""

    approvals: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=MOST)]
    answer: Literal["approve", "deny"]


def routes() -> Iterator[Endpoint]:
    """All of them, below `/api/v1`."""
    yield Endpoint(
        *("GET", "/attention", _attention, "What needs a person, what can wait least first."), answer=Attention
    )
    yield Endpoint(
        *("POST", "/attention/{id}/dismiss", _dismiss, "Notes that a person has seen a trouble; journalled."),
        body=DismissBody,
        answer=Attention,
    )
    yield Endpoint(
        *("POST", "/attention/answers", _answers, "Approves or denies questions that were shown as one."),
        body=AnswersBody,
        answer=Attention,
    )


async def _attention(request: Request) -> Response:
    return JSONResponse(await attention_json(lab_of(request)))


async def _dismiss(request: Request) -> Response:
    lab, body = lab_of(request), await json_of(request, DismissBody)
    await dismiss(lab.journal, request.path_params["id"], seen=body.seen, by=caller_of(request).name)
    return JSONResponse(await attention_json(lab))


async def _answers(request: Request) -> Response:
    lab, body, by = lab_of(request), await json_of(request, AnswersBody), caller_of(request).name
    approvals = lab.services.approvals
    there = {each.id for each in await approvals.pending()}
    if gone := [each for each in body.approvals if each not in there]:
        raise Conflict(f"{len(gone)} of these questions wait no more", next="look again at what waits now")
    for each in body.approvals:
        await (approvals.approve(each, by=by) if body.answer == "approve" else approvals.deny(each, by=by))
    return JSONResponse(await attention_json(lab))


async def attention_json(lab: Lab) -> dict[str, Any]:
    """The list as JSON."""
    return asdict(Attention(items_of(await facts_of(lab))))


async def facts_of(lab: Lab) -> Facts:
    """How things stand now."""
    services, statistics = lab.services, lab.journal.statistics()
    pending = list(await services.approvals.pending())[:MOST]
    live = lab.dispatcher.live()
    accounts: list[Account] = []
    if services.fiedler is not None:
        at_hand = services.fiedler.ledger.escrow.accounts
        accounts = [await services.fiedler.ledger.today()]
        accounts += [at_hand[name] for each in live if (name := f"run:{each.id}") in at_hand]
    waiting = [each.run for each in await products(lab.journal, PATCH, limit=PATCHES, state="waiting")]
    left = await lab.runs.some(waiting)
    kept = lab.residents.kept.values()
    free = await to_thread.run_sync(shutil.disk_usage, lab.home.path)
    return Facts(
        now=time.time(),
        started=lab.started,
        approvals=[(each, services.approvals.waiting(each)) for each in pending],
        troubles=await troubles(lab.journal, limit=MOST),
        patches=[left[each] for each in waiting if each in left],
        live=live,
        accounts=accounts,
        vault=vault_json(lab) if services.turing is not None else {},
        sealed=statistics.sealed,
        lost=statistics.lost + lab.rogers.dropped,
        queued=lab.dispatcher.counts()["queued"],
        queue_max=lab.config.runs.queue_max,
        free_bytes=free.free,
        residents=[Resident(each.name, each.state, each.last_error, each.restarts) for each in kept],
    )


# --- pure from here on


def items_of(facts: Facts) -> list[Item]:
    """What needs a person, what can wait least first; among equals the older first."""
    items = [
        *_of_approvals(facts),
        *map(_of_trouble, facts.troubles),
        *_of_patches(facts.patches),
        *_of_budgets(facts),
        *_of_vault(facts),
        *_of_journal(facts),
        *_of_machine(facts),
    ]
    return sorted(items, key=lambda each: (-each.rank, each.since, each.id))


def _of_approvals(facts: Facts) -> Iterator[Item]:
    groups: dict[str, list[tuple[Approval, int]]] = {}
    for approval, waiting in facts.approvals:
        form = json.loads(approval.form)
        form.pop("principals", None)
        same = json.dumps([approval.rule, form], sort_keys=True)
        groups.setdefault(same, []).append((approval, waiting))
    for same, group in groups.items():
        yield _question(f"approval-{_short(same)}", facts, group)


def _question(id: str, facts: Facts, group: Sequence[tuple[Approval, int]]) -> Item:
    first, waiting = group[0]
    form = json.loads(first.form)
    who = sorted({_mad_of(each) for each, _ in group})
    left = min(each.expires for each, _ in group) - facts.now
    details, runs = form.get("details", {}), dict.fromkeys(_run_of(each) for each, _ in group)
    method = f"{details['method']} " if "method" in details else ""
    reads = form["kind"] in ("files.get", "llm.complete") or details.get("effects") == "read"
    danger = not reads and details.get("method", "POST") not in READING
    shown, whole = _shown(form, group)
    shows = "" if whole else f"/approvals/{first.id}"
    if len(group) == 1:
        place = f"/approvals/{first.id}"
        acts = [Deed("Approve", "POST", f"{place}/approve", {"uses": 1}, danger, shows=shows)]
        if waiting > 1:
            said = f"Approve all {waiting}"
            acts.append(Deed(said, "POST", f"{place}/approve", {"uses": waiting}, danger, shows=shows))
        acts.append(Deed("Deny", "POST", f"{place}/deny"))
    else:
        ids = [each.id for each, _ in group]
        answers = "/attention/answers"
        acts = [
            Deed(f"{word} all {len(ids)}", "POST", answers, {"approvals": ids, "answer": answer}, wild, shows=read)
            for word, answer, wild, read in (("Approve", "approve", danger, shows), ("Deny", "deny", False, ""))
        ]
    return Item(
        id=id,
        kind="approval",
        rank=RANKS["approval soon over" if left < SOON_S else "approval"],
        title=f"{', '.join(who)} wants {_wish(form['kind'])} {method}{_cut(form['target'])}",
        detail=f"{first.reason} (rule {first.rule})".strip(),
        since=min(each.asked for each, _ in group),
        count=sum(max(waiting, 1) for _, waiting in group),
        evidence=[
            *(Evidence(run, f"/runs/{run}") for run in [each for each in runs if each][:SHOWN]),
            Evidence("The rule", _path("/lab/policy", rule=first.rule)),
        ],
        acts=acts,
        form=shown,
    )


def _shown(form: Mapping[str, Any], group: Sequence[tuple[Approval, int]]) -> tuple[list[Part], bool]:
    """What would be approved, part by part, and whether that is all of it: nothing is approved unseen."""
    who = dict.fromkeys(" for ".join(reversed(json.loads(each.form)["principals"])) for each, _ in group)
    parts = [Part("act", str(form["kind"])), Part("who", "\n".join(who))]
    rest = {"target": form["target"], **form.get("details", {}), "taint": ", ".join(form.get("taint", ()))}
    left = FORM_CHARACTERS
    for name, value in rest.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if some := text[: max(left, 0)]:
            parts.append(Part(name, some))
        left -= len(text)
    return parts, left >= 0


def _of_trouble(trouble: Trouble) -> Item:
    times = f" ({trouble.count} times)" if trouble.count > 1 else ""
    seen = Deed("Dismiss", "POST", f"/attention/{trouble.id}/dismiss", {"seen": trouble.sequence})
    run = [Evidence(f"Run {trouble.run}", f"/runs/{trouble.run}")] if trouble.run else []
    if trouble.kind == "incident":
        return Item(
            id=trouble.id,
            kind="incident",
            rank=RANKS["incident"],
            title=f"{trouble.mad or 'Somebody'} showed {_cut(trouble.what)}{times}",
            detail=trouble.detail,
            since=trouble.since,
            count=trouble.count,
            evidence=[*run, Evidence("Incidents", _path("/lab/incidents", mad=trouble.mad))],
            acts=[seen],
        )
    bad = "run stuck" if trouble.what in ("stuck", "lost", "killed") else "run"
    whose = f" for {trouble.asker}" if trouble.asker.startswith("client:") else ""
    if trouble.what == OTHERS:
        title = f"{trouble.mad}{whose}: {trouble.count:,} more runs went wrong, each in its own way"
        acts, alike = [seen], [Evidence("Runs", _path("/runs", mad=trouble.mad))]
    else:
        title = f"{trouble.mad} {_ended(trouble.what)}{whose}{times}" + (f": {trouble.title}" if trouble.title else "")
        acts = [_again(trouble), seen] if trouble.count == 1 else [seen]
        alike = [Evidence(f"All {trouble.count}", _path("/runs", mad=trouble.mad, outcome=trouble.what))]
        alike = alike if trouble.count > 1 else []
    return Item(
        id=trouble.id,
        kind="run",
        rank=RANKS[bad],
        title=title,
        detail=trouble.detail,
        since=trouble.since,
        count=trouble.count,
        evidence=run + alike,
        acts=acts,
    )


def _again(trouble: Trouble) -> Deed:
    """Words of somebody else are named as theirs, and asked about: said again they are the operator's."""
    theirs = trouble.asker not in ("", OPERATOR)
    label = f"Run the words of {_cut(trouble.asker)} again" if theirs else "Run it again"
    return Deed(label, "POST", f"/runs/{trouble.run}/retry", danger=theirs)


def _of_patches(patches: Sequence[Run]) -> Iterator[Item]:
    """Those for one goal in one tree are one item, the best first: a person takes one of them."""
    goals: dict[str, list[Run]] = {}
    for each in patches:
        goals.setdefault(f"{each.title} {each.evidence.get('source', each.id)}", []).append(each)
    for same, runs in goals.items():
        runs.sort(key=lambda each: (not _proved(each), -each.ended))
        first = runs[0]
        said = f"{len(runs)} patches wait for you" if len(runs) > 1 else "A patch waits for you"
        yield Item(
            id=f"patch-{_short(same)}",
            kind="patch",
            rank=RANKS["patch" if _proved(first) else "patch in doubt"],
            title=f"{said}: {first.title.removeprefix('code: ')}",
            detail=_worth(first),
            since=min(each.ended for each in runs),
            count=len(runs),
            evidence=[Evidence("Look at it" if len(runs) == 1 else "Look at the best", f"/patches/{first.id}")]
            + [Evidence(each.id, f"/patches/{each.id}") for each in runs[1:SHOWN]],
            acts=[],
        )


def _proved(run: Run) -> bool:
    """Whether the tests pass on the original tree plus only the patch, and can fail."""
    return run.evidence.get("clean_room") is True and run.outcome is Outcome.SUCCEEDED


def _worth(run: Run) -> str:
    """What a patch is, and what speaks for it, in a sentence."""
    patch = run.evidence.get("patch")
    size: Mapping[str, Any] = patch if isinstance(patch, Mapping) else {}
    files, added, removed = (int(size.get(each) or 0) for each in ("files", "added", "removed"))
    proof = "proved in a clean sandbox" if _proved(run) else _cut(run.reason) or "not proved"
    seen = sum(1 for _ in warnings(run.evidence))
    warned = f"; {seen} {'warning' if seen == 1 else 'warnings'}" if seen else ""
    return f"{files} {'file' if files == 1 else 'files'}, +{added} -{removed}; {proof}{warned}"


def _of_budgets(facts: Facts) -> Iterator[Item]:
    live = {f"run:{each.id}": each for each in facts.live}
    for account in facts.accounts:
        share = _share(account)
        run = live.get(account.name)
        if share < NEAR or (run is None and not account.name.startswith("day:")):
            continue
        spent = (
            [] if account.cap_usd is None else [f"${dollars(account.spent.usd):.2f} of ${dollars(account.cap_usd):.2f}"]
        )
        if account.cap_tokens is not None:
            spent.append(f"{account.spent.tokens:,} of {account.cap_tokens:,} tokens")
        whose = "The day" if run is None else f"{run.mad} ({run.id})"
        yield Item(
            id=f"budget-{_short(account.name)}",
            kind="budget",
            rank=RANKS["budget spent" if share >= 1 else "budget near"],
            title=f"{whose} has spent {'all' if share >= 1 else f'{share:.0%}'} of its budget",
            detail=", ".join(spent),
            since=facts.started if run is None else run.started or run.created,
            count=1,
            evidence=[Evidence("Costs", COSTS) if run is None else Evidence(f"Run {run.id}", f"/runs/{run.id}")],
            acts=[] if run is None else [Deed("Cancel the run", "POST", f"/runs/{run.id}/cancel", danger=True)],
        )


def _of_vault(facts: Facts) -> Iterator[Item]:
    state = facts.vault.get("state")
    if state not in ("locked", "damaged"):
        return
    passphrase = facts.vault.get("way") == "passphrase"
    asks = ("passphrase",) if passphrase else ()
    yield Item(
        id="vault",
        kind="vault",
        rank=RANKS[f"vault {state}"],
        title=f"The vault is {state}: no secret can be used",
        detail=f"{facts.vault.get('reason', '')} {facts.vault.get('next', '')}".strip(),
        since=facts.started,
        count=1,
        evidence=[Evidence("Secrets", "/lab/secrets")],
        acts=[Deed("Unlock", "POST", "/vault/unlock", asks=asks)] if state == "locked" else [],
    )


def _of_journal(facts: Facts) -> Iterator[Item]:
    if facts.sealed is not None:
        yield Item(
            id="journal-sealed",
            kind="journal",
            rank=RANKS["journal sealed"],
            title="The journal is sealed: nothing more can be done until the lab is restarted",
            detail=f"{facts.sealed}. Mend or free the disk, then restart the lab; what was acknowledged is safe.",
            since=facts.started,
            count=1,
            evidence=[Evidence("Doctor", "/lab/doctor")],
            acts=[],
        )
    if facts.lost:
        yield Item(
            id="journal-lost",
            kind="journal",
            rank=RANKS["journal lost"],
            title=f"{facts.lost:,} events were lost since the lab was started",
            detail="Log and progress lines came faster than they could be kept. Messages and acts are never dropped.",
            since=facts.started,
            count=facts.lost,
            evidence=[Evidence("The lab", "/lab")],
            acts=[],
        )


def _of_machine(facts: Facts) -> Iterator[Item]:
    doctor = [Evidence("Doctor", "/lab/doctor")]
    if facts.free_bytes is not None and facts.free_bytes < LITTLE_BYTES:
        bad = facts.free_bytes < LITTLE_BYTES / 10
        yield Item(
            id="machine-disk",
            kind="machine",
            rank=RANKS["machine bad" if bad else "machine weak"],
            title=f"The disk has {facts.free_bytes / 1e9:.1f} GB left",
            detail="A full disk seals the journal. Free some space, or move the lab's home.",
            since=facts.started,
            count=1,
            evidence=doctor,
            acts=[],
        )
    for each in facts.residents:
        if each.state == "waiting":
            yield Item(
                id=f"machine-resident-{each.name}",
                kind="machine",
                rank=RANKS["machine weak"],
                title=f"{each.name} died and is started again ({each.restarts} times)",
                detail=_cut(each.error),
                since=facts.started,
                count=each.restarts,
                evidence=[Evidence(each.name, _path("/lab/mads", mad=each.name))],
                acts=[],
            )
    if facts.queue_max and facts.queued >= NEAR * facts.queue_max:
        full = facts.queued >= facts.queue_max
        waiting = [each.created for each in facts.live if each.state == "requested"]
        yield Item(
            id="machine-queue",
            kind="machine",
            rank=RANKS["queue full" if full else "queue near"],
            title=f"{facts.queued:,} runs wait" + (": one more is refused" if full else ""),
            detail=f"runs.queue_max is {facts.queue_max:,}.",
            since=min(waiting, default=facts.now),
            count=facts.queued,
            evidence=[Evidence("Waiting runs", _path("/runs", state="requested"))],
            acts=[],
        )


def _path(path: str, **query: str) -> str:
    """A place of the page; what is empty is left out of its query."""
    told = urlencode({name: each for name, each in query.items() if each})
    return f"{path}?{told}" if told else path


def _share(account: Account) -> float:
    """How much of its narrowest cap an account has spent."""
    caps = ((account.spent.usd, account.cap_usd), (account.spent.tokens, account.cap_tokens))
    return max((spent / cap if cap else 1.0 for spent, cap in caps if cap is not None), default=0.0)


def _mad_of(approval: Approval) -> str:
    """Who asks, as people say it."""
    return str(json.loads(approval.form)["principals"][-1]).removeprefix("mad:")


def _run_of(approval: Approval) -> str:
    first = str(json.loads(approval.form)["principals"][0])
    return first.removeprefix("run:") if first.startswith("run:") else ""


def _wish(kind: str) -> str:
    wishes = {
        "web.fetch": "to send",
        "secret.use": "to use the secret",
        "llm.complete": "to ask the model",
        "files.put": "to store",
        "files.get": "to read",
        "bus.call": "to call",
        "run.start": "to start",
    }
    return wishes.get(kind, f"to do {kind}")


def _ended(outcome: str) -> str:
    sentences = {
        "failed": "failed",
        "timed_out": "ran out of time",
        "out_of_budget": "ran out of budget",
        "out_of_memory": "ran out of memory",
        "out_of_disk": "ran out of disk",
        "stuck": "got stuck",
        "lost": "was lost",
        "killed": "was killed",
    }
    return sentences.get(outcome, outcome)


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else f"{text[: CHARACTERS - 1]}…"


def _short(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]
