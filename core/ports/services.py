"""What the ports stand on, and how much one run may move through them."""

from dataclasses import dataclass, field

from core.egress.broker import Broker
from core.fiedler.fiedler import Fiedler
from core.horace.store import Horace
from core.policy.acts import Act
from core.policy.approvals import EXPIRE_S, Approvals
from core.policy.policy import Policy, load_policy
from core.policy.taint import Taints
from core.ports.children import MOST, Children
from core.redaction.canaries import Canaries
from core.redaction.redactor import Redactor
from core.registry import Registry
from core.rogers.bus import Rogers
from core.rogers.journal import Journal
from core.turing.turing import Turing
from protos.errors import Exhausted

ACT_BYTES = 1280  # what an act takes in the journal beside its form: two headers, the decision, the outcome


@dataclass
class Services:
    """What the ports stand on."""

    journal: Journal
    rogers: Rogers
    horace: Horace
    registry: Registry
    fiedler: Fiedler | None = None
    egress: Broker | None = None
    turing: Turing | None = None
    redactor: Redactor = field(default_factory=Redactor)  # what must not be written; empty where none is given
    policy: Policy = field(default_factory=lambda: load_policy([]))
    approval_s: float = EXPIRE_S  # how long an act waits for a person
    children_max: int = MOST  # runs that one run may have open
    canary_key: bytes | None = None  # what the decoys of runs are made of; None: no run has any
    canaries: Canaries = field(init=False)
    approvals: Approvals = field(init=False)  # enter it, and who waits hears of answers
    taints: Taints = field(init=False)
    children: Children = field(init=False)

    def __post_init__(self) -> None:
        self.canaries = Canaries(self.redactor, self.journal, self.canary_key)
        self.approvals = Approvals(self.journal, expire_s=self.approval_s)
        self.taints = Taints(self.journal)
        self.children = Children(self.children_max)


@dataclass
class Allowance:
    """What one run may still move, in bytes, and what it has moved."""

    bytes_in: int
    bytes_out: int
    bytes_said: int
    used_in: int = 0
    used_out: int = 0
    used_said: int = 0
    dropped: int = 0  # events over the allowance

    def take_in(self, size: int) -> None:
        """
        Raises:
            Exhausted: the run has read its share.
        """
        self.used_in += size
        if self.used_in > self.bytes_in:
            raise Exhausted(f"The run has read its {self.bytes_in} bytes.", next="Raise budget.bytes_in.")

    def take_out(self, size: int) -> None:
        """
        Raises:
            Exhausted: the run has stored its share, in one stream or in many.
        """
        self.used_out += size
        if self.used_out > self.bytes_out:
            raise Exhausted(f"The run has stored its {self.bytes_out} bytes.", next="Raise budget.bytes_out.")

    def take_act(self, act: Act, *, paid: Act | None = None, times: int = 1) -> None:
        """Pays for an act before anything of it is written, whatever is decided; for what is more in it than in `paid`.

        `times`: how often what is long in it is written.

        Raises:
            Exhausted: the run has said, in acts too, what the journal will hold of it.
        """
        size = times * len(act.canonical()) - (len(paid.canonical()) if paid is not None else -ACT_BYTES)
        if not self.take_said(max(0, size)):
            raise Exhausted(f"The run has said its {self.bytes_said} bytes.", next="Raise budget.bytes_said.")

    def take_said(self, size: int) -> bool:
        """Whether so much more may be said."""
        if self.used_said + size > self.bytes_said:
            return False
        self.used_said += size
        return True


def unlimited() -> Allowance:
    """For residents."""
    return Allowance(bytes_in=2**62, bytes_out=2**62, bytes_said=2**62)
