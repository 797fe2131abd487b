"""The one object that decides: whom to ask, when to ask again, whom to ask instead or as well, and when to give up.

It is pure. It has no clock, no task and no money of its own: the time comes with every call, and whether a leg can be
paid is a function it is given. The conductor (`core.fiedler.fiedler`) asks `next`, does what it says, and tells what
came of it.

A request has a *route*: its model, then the fallbacks, each a *leg*. Four rules decide, in this order:

  1. *The deadline* ends everything. What cannot begin before it is not begun.
  2. *After the first output nothing is asked again.* Somebody has read it.
  3. *The first leg of the route that is ready is taken*; if none is, the one that is ready first is waited for. A leg
     is ready when it can be paid, its breaker lets it through, and its last trouble is over: a pause that doubles,
     and never less than the provider's Retry-After. So a fallback is taken at once rather than waiting, and waiting
     is what is left when there is none. An open breaker is not waited for: the caller is told when to come again.
     A leg whose key, quota or model was refused is not asked again.
  4. *A hedge* is one more attempt while the first is silent. It is a luxury: it waits for nothing, probes nothing and
     is left out when it cannot be paid.

The breaker of a model opens after some failures in a row, rests, and then is half open: exactly one attempt, the probe,
goes through. If it works the breaker is closed, if not it rests again, longer. Only failures that say something of the
model's health count: a wrong request or a refused key says that it is well.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from core.fiedler.provider import Kind, Trouble
from protos.errors import Denied, Error, Exhausted, InvalidArgument, Unavailable

FIRST_PAUSE_S, LAST_PAUSE_S = 0.5, 16.0
LONGEST_REST_S = 600.0
UNWELL = frozenset({Kind.OVERLOADED, Kind.BROKEN, Kind.UNREACHABLE, Kind.SLOW, Kind.CUT, Kind.NONSENSE})
FINAL = frozenset({Kind.KEY, Kind.SPENT, Kind.MODEL, Kind.REQUEST})  # for this leg and this request


@dataclass(frozen=True)
class Leg:
    """One model of a route."""

    alias: str
    target: str  # "provider/model": what a breaker belongs to


@dataclass(frozen=True)
class Rules:
    """How much patience one request has; times in seconds."""

    attempts: int = 3
    hedge_after_s: float | None = None


@dataclass(frozen=True)
class Start:
    """Ask `leg` now; this is attempt `number`."""

    leg: Leg
    number: int
    probes: bool


@dataclass(frozen=True)
class Wait:
    """Nothing to do before `until`, unless something happens."""

    until: float


@dataclass(frozen=True)
class Stop:
    """Give up, with what to tell the caller."""

    error: Error


@dataclass
class Breaker:
    """What is known of the health of one model."""

    failures: int = 0  # in a row
    open_until: float = 0.0
    rests: int = 0  # in a row
    probing: bool = False
    not_before: float = 0.0  # by the provider's Retry-After

    @property
    def is_open(self) -> bool:
        """Whether it rests or is probed."""
        return self.rests > 0

    def rests_until(self) -> float:
        """When an attempt may begin; infinity while the probe is out, 0 where it does not rest."""
        if not self.is_open:
            return 0.0
        return math.inf if self.probing else self.open_until

    def worked(self) -> None:
        """It answered."""
        self.failures = self.rests = 0
        self.probing = False

    def failed(self, now: float, limit: int, rest_s: float, *, probes: bool) -> None:
        """It did not. What began before the breaker opened says nothing new while it is open."""
        if self.is_open and not probes:
            return
        self.failures += 1
        if self.is_open or self.failures >= limit:
            self.probing = False
            self.open_until = now + min(rest_s * 2**self.rests, LONGEST_REST_S)
            self.rests += 1


class Policy:
    """What is known of all models, shared by all requests."""

    def __init__(self, *, failures: int = 5, rest_s: float = 30.0, chance: Callable[[], float] = random.random) -> None:
        self._failures, self._rest_s, self._chance = failures, rest_s, chance
        self._breakers: dict[str, Breaker] = {}

    def breaker(self, target: str) -> Breaker:
        """The breaker of a model."""
        return self._breakers.setdefault(target, Breaker())

    def conduct(
        self, route: Sequence[Leg], rules: Rules, *, deadline: float, shortage: Callable[[Leg], Error | None]
    ) -> "Conduct":
        """Begins one request. `shortage` says why a leg cannot be paid now, None if it can."""
        return Conduct(self, route, rules, deadline, shortage)

    def pause_s(self, troubles: int) -> float:
        """How long to leave a leg alone after so many troubles with it."""
        return min(FIRST_PAUSE_S * 2.0 ** (troubles - 1), LAST_PAUSE_S) * (0.5 + self._chance() / 2)

    def judge(self, start: "Start", trouble: Trouble, now: float) -> None:
        """Learns from a trouble with an attempt."""
        breaker = self.breaker(start.leg.target)
        if trouble.retry_after_s is not None:
            breaker.not_before = max(breaker.not_before, now + trouble.retry_after_s)
        if trouble.kind in UNWELL:
            breaker.failed(now, self._failures, self._rest_s, probes=start.probes)
        elif trouble.kind is Kind.BUSY:
            breaker.probing = breaker.probing and not start.probes  # it lives; the next one probes
        else:
            breaker.worked()


@dataclass
class _Progress:
    """How one leg fares within one request."""

    troubles: int = 0
    ready_at: float = 0.0
    over: bool = False


@dataclass
class Conduct:
    """One request on its way."""

    policy: Policy
    route: Sequence[Leg]
    rules: Rules
    deadline: float
    shortage: Callable[[Leg], Error | None]
    attempts: int = 0
    _live: dict[int, tuple[Start, float]] = field(default_factory=dict)
    _progress: dict[Leg, _Progress] = field(default_factory=dict)
    _hedged: bool = False
    _last: tuple[Leg, Trouble] | None = None

    def next(self, now: float) -> Start | Wait | Stop:
        """What to do now. Whatever it says to start counts as started."""
        if now >= self.deadline:
            return Stop(self._too_late())
        if self._live:
            return self._beside(now)
        return self._begin(now)

    def failed(self, start: Start, trouble: Trouble, now: float) -> None:
        """An attempt ended without output."""
        self._live.pop(start.number, None)
        leg = start.leg
        progress = self._of(leg)
        progress.troubles += 1
        self.policy.judge(start, trouble, now)
        pause = self.policy.pause_s(progress.troubles)
        progress.ready_at = now + max(pause, trouble.retry_after_s or 0.0)
        progress.over = trouble.kind in FINAL
        if self._last is None or trouble.kind is not Kind.REQUEST or leg == self.route[0]:
            self._last = leg, trouble  # that a fallback does not take the request is not what went wrong

    def spoke(self, start: Start) -> None:
        """The first output of an attempt has come, and it is the one that counts."""
        self.policy.breaker(start.leg.target).worked()
        self._live.pop(start.number, None)

    def broke(self, start: Start, trouble: Trouble, now: float) -> Error:
        """The attempt that counted broke after its first output: what to tell the caller."""
        self.policy.judge(start, trouble, now)
        return Unavailable(
            f"The answer of {start.leg.alias} broke off after its beginning: {_sentence(trouble)}",
            next="What came stands. Ask again, with a new id, for what is missing.",
        )

    def abandoned(self, start: Start) -> None:
        """An attempt was ended by us, which says nothing of the model."""
        self._live.pop(start.number, None)
        if start.probes:
            self.policy.breaker(start.leg.target).probing = False

    def _begin(self, now: float) -> Start | Wait | Stop:
        first = self._progress.get(self.route[0])
        refused = first is not None and first.over and self._last is not None and self._last[1].kind is Kind.REQUEST
        if refused or self.attempts >= self.rules.attempts:
            return Stop(self._give_up())
        ready: list[float] = []
        resting: list[float] = []
        short: Error | None = None
        for leg in self.route:
            if self._of(leg).over:
                continue
            missing = self.shortage(leg)
            if missing is not None:
                short = short or missing
                continue
            breaker = self.policy.breaker(leg.target)
            if breaker.rests_until() > now:
                resting.append(breaker.rests_until())
                continue
            at = max(self._of(leg).ready_at, breaker.not_before)
            if at <= now:
                return self._start(leg, now)
            ready.append(at)
        if ready and min(ready) < self.deadline:
            return Wait(min(ready))
        if ready or resting:
            return Stop(self._not_now(min([*ready, *resting]) - now))
        return Stop(short or self._give_up())

    def _beside(self, now: float) -> Start | Wait:
        hedge_after = self.rules.hedge_after_s
        if hedge_after is None or self._hedged or self.attempts >= self.rules.attempts:
            return Wait(self.deadline)
        busy, since = next(iter(self._live.values()))
        if now < since + hedge_after:
            return Wait(min(since + hedge_after, self.deadline))
        self._hedged = True
        for leg in sorted(self.route, key=lambda each: each == busy.leg):  # another model first
            breaker = self.policy.breaker(leg.target)
            ready = not breaker.is_open and max(self._of(leg).ready_at, breaker.not_before) <= now
            if ready and not self._of(leg).over and self.shortage(leg) is None:
                return self._start(leg, now)
        return Wait(self.deadline)

    def _start(self, leg: Leg, now: float) -> Start:
        breaker = self.policy.breaker(leg.target)
        if breaker.is_open:
            breaker.probing = True
        self.attempts += 1
        start = Start(leg, self.attempts, probes=breaker.is_open)
        self._live[start.number] = start, now
        return start

    def _of(self, leg: Leg) -> _Progress:
        return self._progress.setdefault(leg, _Progress())

    def _too_late(self) -> Error:
        if self._last is not None:
            return self._give_up("The deadline passed. ")
        return Unavailable("The deadline passed before there was any output.", next="Give it more time.")

    def _not_now(self, wait_s: float) -> Error:
        when = f"in {math.ceil(wait_s)} s" if math.isfinite(wait_s) else "in a moment"
        if self._last is not None:
            error = self._give_up()
            error.next = f"Ask again {when}, or use another model."
            return error
        names = ", ".join(leg.alias for leg in self.route)
        return Unavailable(f"{names}: not now, after too many troubles.", next=f"Ask again {when}, or another model.")

    def _give_up(self, why: str = "") -> Error:
        if self._last is None:
            return Unavailable(f"{self.route[0].alias} did not come to an answer.", next="Ask again.")
        leg, trouble = self._last
        return error_of(leg.alias, trouble, why)


def error_of(alias: str, trouble: Trouble, why: str = "") -> Error:
    """What the caller is told of a trouble that could not be helped."""
    said = _sentence(trouble)
    match trouble.kind:
        case Kind.KEY:
            return Denied(f"{why}The provider of {alias} refuses the lab's key: {said}", next="Give it a valid key.")
        case Kind.SPENT:
            return Exhausted(
                f"{why}The account behind {alias} is spent: {said}", next="Top it up, or use another model."
            )
        case Kind.REQUEST:
            return InvalidArgument(f"{why}{alias} does not take this request: {said}", next="Mend the request.")
        case Kind.MODEL:
            return InvalidArgument(
                f"{why}The provider of {alias} has no such model: {said}", next=f"Correct [models.{alias}]."
            )
        case Kind.BUSY | Kind.OVERLOADED:
            return Unavailable(f"{why}{alias} has too much to do: {said}", next="Ask again later.")
        case _:
            return Unavailable(f"{why}{alias} did not answer: {said}", next="Ask again, or use another model.")


def _sentence(trouble: Trouble) -> str:
    """What a provider said, as data: on one line and without what a terminal would obey."""
    said = "".join(each if each.isprintable() else " " for each in trouble.text).strip()
    status = f"HTTP {trouble.status}" if trouble.status else str(trouble.kind)
    return f"{status}: {said}" if said else f"{status}."
