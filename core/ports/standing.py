"""Whether a request may still go on: its body comes while it is sent, and its run hears other things meanwhile.

What was decided about was what the run could know then. A piece of the body that comes later may hold what it has read
since, so before each piece the labels are looked at, and where some have come the request is decided about again. What
such a body says is not known beforehand, so nobody can be asked about it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from core.policy.acts import Act, Decision
from core.policy.capabilities import Identity
from core.ports.acting import PRIVATE
from core.ports.services import Services
from protos.errors import Denied

NEXT = "Send at most 64 KiB at once, which is decided about as it is, or read afterwards."


@dataclass
class Standing:
    """What was decided about one request, and what its run has heard since. Make it before the decision."""

    services: Services
    identity: Identity
    acts: Sequence[Act]
    labels: frozenset[str]  # of the run, before the decision
    own: Collection[str]  # labels that the request itself brings its run: they come from where it goes
    _before: dict[str, int] = field(init=False)
    _checked: dict[str, int] | None = field(default=None, init=False)  # what it had heard then; never: None

    def __post_init__(self) -> None:
        self._before = self.services.taints.heard(self.identity)

    def check_unseen(self) -> None:
        """For a body that is not known before it is sent.

        Raises:
            Denied: a person would have to be asked, and cannot see what would be approved.
        """
        for decision in self._decisions(self.labels):
            if decision.verdict == "ask":
                raise Denied(
                    f"rule {decision.rule}: {decision.reason} Nobody can approve a body of more than 64 KiB, because"
                    " nobody sees it beforehand.",
                    next=NEXT,
                )

    def check(self) -> None:
        """
        Raises:
            Denied: with what the run has heard meanwhile, this is not simply allowed.
        """
        heard = self.services.taints.heard(self.identity)
        if heard == self._checked:
            return
        self._checked = heard
        since = {each for each, times in heard.items() if times > self._before.get(each, 0) + (each in self.own)}
        for decision in self._decisions(self.labels | since):
            if decision.verdict != "allow":
                raise Denied(
                    f"rule {decision.rule}: while its body was sent, the run has read what may not leave with it"
                    f" ({', '.join(sorted(since)) or 'or the rules have changed'}).",
                    next=NEXT,
                )

    def _decisions(self, labels: frozenset[str]) -> list[Decision]:
        if any(each.kind == "secret.use" for each in self.acts):
            labels -= {PRIVATE}  # as the first decision did
        return [self.services.policy.decide(replace(each, taint=each.taint | labels)) for each in self.acts]
