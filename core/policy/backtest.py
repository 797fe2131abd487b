"""What would have been: recorded decisions, made again under another policy.

Each act that began or was refused left its canonical form in the journal. Here it is decided about once more, and where
the answer differs it is counted, in groups of the same kind, principal, place and rules. What a capability or a grant
refused stays refused whatever a policy says, so it is left out; and so are calls between MADs that were allowed, which
are messages and not acts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from core.policy.acts import Act, Verdict
from core.policy.policy import Policy
from core.policy.targets import address_of

Change = Literal["newly allowed", "newly asked", "newly blocked"]
NO_POLICY = frozenset({"port", "terms", "grant", "secret", "conversation", "answer", "recipient", "approval", "other"})


@dataclass(frozen=True)
class Group:
    """Acts whose decision changes in the same way."""

    change: Change
    kind: str
    principal: str  # without the run: "mad:marco"
    where: str  # a host, or a target
    before: str  # the rule that decided
    after: str  # the rule that would


@dataclass
class Backtest:
    """What another policy would have changed."""

    policy: Policy
    acts: int = 0  # looked at
    same: int = 0
    groups: dict[Group, int] = field(default_factory=dict)
    examples: dict[Group, str] = field(default_factory=dict)  # a target of each

    def try_(self, body: Mapping[str, Any]) -> None:
        """Takes in one recorded decision: the body of an act's *started* or *denied*."""
        act = recorded(body)
        before = str(body.get("rule", "models"))
        denied = body.get("step") == "denied"
        if act is None or (denied and before in NO_POLICY):
            return
        self.acts += 1
        decision = self.policy.decide(act)
        change = _change(denied, body.get("verdict", "allow"), decision.verdict)
        if change is None:
            self.same += 1
            return
        address = address_of(act.target) if act.kind == "web.fetch" else None
        where = address.host if address is not None else act.target
        group = Group(change, act.kind, act.principals[-1], where, before, decision.rule)
        self.groups[group] = self.groups.get(group, 0) + 1
        self.examples.setdefault(group, act.target)


def recorded(body: Mapping[str, Any]) -> Act | None:
    """The act that a journalled body speaks of; None where it tells too little."""
    if str(body.get("act", "")).startswith("llm.") and "principals" not in body:
        run = (f"run:{body['run']}",) if body.get("run") else ()
        return Act("llm.complete", (*run, f"mad:{body.get('mad', '')}"), str(body.get("alias", "")))
    try:
        return Act(
            body["act"], tuple(body["principals"]), body["target"], body["details"], frozenset(body.get("taint", ()))
        )
    except KeyError:
        return None


def _change(denied: bool, verdict: Verdict, now: Verdict) -> Change | None:
    if now == "ask":
        return "newly asked" if verdict != "ask" else None
    if now == "allow":
        return "newly allowed" if denied else None
    return None if denied else "newly blocked"
