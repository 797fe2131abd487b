"""The policy, with time as a number."""

import random
from collections.abc import Sequence

import pytest

from core.fiedler.policy import Breaker, Conduct, Leg, Policy, Rules, Start, Stop, Wait
from core.fiedler.provider import Kind, Trouble
from protos.errors import Denied, Error, Exhausted, InvalidArgument, Unavailable

ONE, TWO = Leg("one", "p/one"), Leg("two", "q/two")
FINAL = [Kind.KEY, Kind.SPENT, Kind.MODEL, Kind.REQUEST]
PASSING = [each for each in Kind if each not in FINAL]


def policy(**changes: float) -> Policy:
    return Policy(**{"failures": 3, "rest_s": 10.0} | changes, chance=lambda: 1.0)  # type: ignore[arg-type]


def conduct(
    policy: Policy,
    route: Sequence[Leg] = (ONE,),
    *,
    attempts: int = 3,
    hedge: float | None = None,
    short: dict[Leg, Error] | None = None,
    deadline: float = 100.0,
) -> Conduct:
    rules = Rules(attempts=attempts, hedge_after_s=hedge)
    return policy.conduct(route, rules, deadline=deadline, shortage=(short or {}).get)


def started(step: object) -> Start:
    assert isinstance(step, Start), step
    return step


def stopped(step: object) -> Error:
    assert isinstance(step, Stop), step
    return step.error


def test_a_passing_trouble_is_tried_again_after_a_pause_that_doubles() -> None:
    tried = conduct(policy())
    tried.failed(started(tried.next(0.0)), Trouble(Kind.BROKEN), 1.0)
    assert tried.next(1.0) == Wait(1.5)
    tried.failed(started(tried.next(1.5)), Trouble(Kind.BROKEN), 2.0)
    assert tried.next(2.0) == Wait(3.0)
    tried.failed(started(tried.next(3.0)), Trouble(Kind.BROKEN, "it burns"), 4.0)
    error = stopped(tried.next(4.0))
    assert isinstance(error, Unavailable)
    assert "it burns" in error.message


@pytest.mark.parametrize("kind", FINAL)
def test_what_will_stay_wrong_is_not_tried_again(kind: Kind) -> None:
    tried = conduct(policy())
    tried.failed(started(tried.next(0.0)), Trouble(kind), 0.0)
    error = stopped(tried.next(0.0))
    expected = {Kind.KEY: Denied, Kind.SPENT: Exhausted, Kind.MODEL: InvalidArgument, Kind.REQUEST: InvalidArgument}
    assert isinstance(error, expected[kind])
    assert tried.attempts == 1


@pytest.mark.parametrize("kind", [Kind.KEY, Kind.SPENT, Kind.MODEL])
def test_a_fallback_is_asked_when_the_first_refuses_us(kind: Kind) -> None:
    tried = conduct(policy(), (ONE, TWO))
    tried.failed(started(tried.next(0.0)), Trouble(kind), 0.0)
    assert started(tried.next(0.0)).leg == TWO


def test_a_wrong_request_is_not_taken_to_a_fallback() -> None:
    tried = conduct(policy(), (ONE, TWO))
    tried.failed(started(tried.next(0.0)), Trouble(Kind.REQUEST), 0.0)
    assert isinstance(stopped(tried.next(0.0)), InvalidArgument)


def test_that_a_fallback_takes_no_such_request_is_not_what_went_wrong() -> None:
    tried = conduct(policy(), (ONE, TWO), attempts=2)
    tried.failed(started(tried.next(0.0)), Trouble(Kind.OVERLOADED, "later"), 0.0)
    tried.failed(started(tried.next(0.0)), Trouble(Kind.REQUEST, "no tools"), 0.0)
    assert "later" in stopped(tried.next(0.0)).message


@pytest.mark.parametrize("kind", PASSING)
def test_a_fallback_is_taken_at_once_rather_than_waiting(kind: Kind) -> None:
    tried = conduct(policy(), (ONE, TWO))
    tried.failed(started(tried.next(0.0)), Trouble(kind), 0.0)
    assert started(tried.next(0.0)).leg == TWO


def test_retry_after_is_the_least_pause_for_everyone() -> None:
    shared = policy()
    tried, other = conduct(shared), conduct(shared)
    tried.failed(started(tried.next(0.0)), Trouble(Kind.BUSY, retry_after_s=20.0), 1.0)
    assert tried.next(1.0) == Wait(21.0)
    assert other.next(1.0) == Wait(21.0)
    assert started(tried.next(21.0)).leg == ONE


def test_retry_after_beyond_the_deadline_is_told_instead_of_waited_for() -> None:
    tried = conduct(policy(), deadline=10.0)
    tried.failed(started(tried.next(0.0)), Trouble(Kind.BUSY, retry_after_s=20.0), 1.0)
    assert stopped(tried.next(1.0)).next == "Ask again in 20 s, or use another model."


def test_the_deadline_ends_everything() -> None:
    tried = conduct(policy(), deadline=5.0)
    started(tried.next(0.0))
    assert tried.next(1.0) == Wait(5.0)
    assert isinstance(stopped(tried.next(5.0)), Unavailable)


def open_breaker(shared: Policy, now: float = 0.0) -> None:
    for _ in range(3):
        tried = conduct(shared)
        tried.failed(started(tried.next(now)), Trouble(Kind.BROKEN), now)


def test_a_model_that_fails_in_a_row_rests() -> None:
    shared = policy()
    open_breaker(shared)
    assert stopped(conduct(shared).next(1.0)).next == "Ask again in 9 s, or another model."
    assert started(conduct(shared, (ONE, TWO)).next(1.0)).leg == TWO


def test_a_half_open_breaker_lets_exactly_one_through() -> None:
    shared = policy()
    open_breaker(shared)
    requests = [conduct(shared) for _ in range(50)]
    steps = [each.next(10.0) for each in requests]
    assert sum(isinstance(each, Start) for each in steps) == 1
    probe = next(each for each in steps if isinstance(each, Start))
    assert probe.probes
    requests[steps.index(probe)].spoke(probe)
    assert isinstance(conduct(shared).next(10.0), Start)
    assert isinstance(conduct(shared).next(10.0), Start)


def test_a_failed_probe_rests_longer() -> None:
    shared = policy()
    open_breaker(shared)
    tried = conduct(shared)
    tried.failed(started(tried.next(10.0)), Trouble(Kind.BROKEN), 11.0)
    assert isinstance(conduct(shared).next(30.9), Stop)
    assert started(conduct(shared).next(31.0)).probes


def test_a_probe_that_was_given_up_makes_room_for_another() -> None:
    shared = policy()
    open_breaker(shared)
    tried = conduct(shared)
    tried.abandoned(started(tried.next(10.0)))
    assert started(conduct(shared).next(10.0)).probes


def test_what_began_before_a_breaker_opened_does_not_end_its_probe() -> None:
    shared = policy()
    late = conduct(shared)
    straggler = started(late.next(0.0))
    open_breaker(shared)
    probe = started(conduct(shared).next(10.0))
    late.failed(straggler, Trouble(Kind.BROKEN), 10.0)
    assert probe.probes
    assert isinstance(conduct(shared).next(10.0), Stop)


@pytest.mark.parametrize("kind", [*FINAL, Kind.BUSY])
def test_what_says_nothing_of_health_opens_no_breaker(kind: Kind) -> None:
    shared = policy()
    for _ in range(10):
        tried = conduct(shared)
        tried.failed(started(tried.next(0.0)), Trouble(kind), 0.0)
    assert not shared.breaker("p/one").is_open


def test_a_hedge_starts_when_the_first_is_silent_and_only_once() -> None:
    tried = conduct(policy(), (ONE, TWO), hedge=2.0)
    assert started(tried.next(0.0)).leg == ONE
    assert tried.next(0.5) == Wait(2.0)
    assert started(tried.next(2.0)).leg == TWO
    assert tried.next(9.0) == Wait(100.0)


def test_a_hedge_without_a_fallback_asks_the_same_model() -> None:
    tried = conduct(policy(), hedge=2.0)
    started(tried.next(0.0))
    assert started(tried.next(2.0)).leg == ONE


def test_a_hedge_that_cannot_be_paid_or_would_probe_is_left_out() -> None:
    poor = conduct(policy(), (ONE, TWO), hedge=2.0, short={TWO: Exhausted("no")}, attempts=2)
    started(poor.next(0.0))
    assert started(poor.next(2.0)).leg == ONE
    shared = policy()
    for _ in range(3):
        tried = conduct(shared, (TWO,))
        tried.failed(started(tried.next(0.0)), Trouble(Kind.BROKEN), 0.0)
    careful = conduct(shared, (ONE, TWO), hedge=2.0)
    started(careful.next(20.0))
    assert started(careful.next(22.0)).leg == ONE


def test_what_cannot_be_paid_is_not_begun() -> None:
    short = Exhausted("needs $1 more")
    assert stopped(conduct(policy(), short={ONE: short}).next(0.0)) is short
    assert started(conduct(policy(), (ONE, TWO), short={ONE: short}).next(0.0)).leg == TWO


def test_after_the_first_output_nothing_is_asked_again() -> None:
    shared = policy()
    tried = conduct(shared)
    start = started(tried.next(0.0))
    tried.spoke(start)
    error = tried.broke(start, Trouble(Kind.CUT, "gone"), 1.0)
    assert isinstance(error, Unavailable)
    assert "new id" in error.next
    assert shared.breaker("p/one").failures == 1


def test_what_a_provider_says_is_data() -> None:
    tried = conduct(policy(), attempts=1)
    tried.failed(started(tried.next(0.0)), Trouble(Kind.BROKEN, "\x1b[2Jboo\nnext line"), 0.0)
    message = stopped(tried.next(0.0)).message
    assert "\x1b" not in message
    assert "\n" not in message


def test_a_breaker_rests_ten_minutes_at_most() -> None:
    breaker, now = Breaker(), 0.0
    for _ in range(40):
        breaker.probing = True
        breaker.failed(now, 1, 30.0, probes=True)
        assert breaker.open_until - now <= 600.0
        now = breaker.open_until


def test_whatever_happens_the_policy_keeps_its_word() -> None:
    """A thousand random lives: never too many attempts, never two probes, never a start after the end."""
    for seed in range(1000):
        chance = random.Random(seed)
        shared = Policy(failures=2, rest_s=5.0, chance=chance.random)
        lives = [
            conduct(shared, chance.choice([(ONE,), (ONE, TWO)]), hedge=chance.choice([None, 1.0]), deadline=60.0)
            for _ in range(4)
        ]
        live: list[tuple[Conduct, Start]] = []
        over: set[int] = set()
        now = 0.0
        for _ in range(60):
            now += chance.random() * 3
            if live and chance.random() < 0.5:
                owner, start = live.pop(chance.randrange(len(live)))
                match chance.randrange(3):
                    case 0:
                        owner.spoke(start)
                        over.add(id(owner))
                        for each in [each for each in live if each[0] is owner]:
                            owner.abandoned(each[1])
                            live.remove(each)
                    case 1:
                        owner.abandoned(start)
                    case _:
                        after = chance.choice([None, 4.0])
                        owner.failed(start, Trouble(chance.choice(list(Kind)), retry_after_s=after), now)
            owner = chance.choice(lives)
            if id(owner) in over:
                continue
            step = owner.next(now)
            if isinstance(step, Start):
                assert now < 60.0
                live.append((owner, step))
            elif isinstance(step, Wait):
                assert step.until > now
            else:
                over.add(id(owner))
                for each in [each for each in live if each[0] is owner]:
                    owner.abandoned(each[1])
                    live.remove(each)
            assert owner.attempts <= 3
            for target in ("p/one", "q/two"):
                assert sum(each.probes and each.leg.target == target for _, each in live) <= 1
