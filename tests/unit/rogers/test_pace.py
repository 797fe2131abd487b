"""Where a commit is made follows what commits took."""

from core.rogers.pace import AWAY_S, LONGEST_AWAY_S, Pace

STALL_S = 0.002
SYNC_S, EACH_S = 0.0004, 0.000005  # of a quick disk


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def paced(clock: Clock, commits: int = 50, sync_s: float = SYNC_S) -> Pace:
    pace = Pace(STALL_S, clock)
    for _ in range(commits):
        pace.note(10, sync_s + 10 * EACH_S, sync_s)
    return pace


def test_what_fits_into_the_bound_is_the_loops() -> None:
    room = paced(Clock()).room()
    assert 0.9 * STALL_S / EACH_S < room < 1.1 * STALL_S / EACH_S


def test_a_slower_sync_does_not_cut_a_batch_in_two() -> None:
    assert paced(Clock(), sync_s=0.9 * STALL_S).room() == paced(Clock(), sync_s=0.1 * STALL_S).room()


def test_a_bound_of_nothing_leaves_all_to_the_thread() -> None:
    assert Pace(0).room() == 0


def test_the_first_commits_are_the_loops_to_try() -> None:
    assert Pace(STALL_S).room() > 0


def test_a_slow_disk_is_the_threads_after_a_few_commits() -> None:
    pace, tried = Pace(STALL_S, Clock()), 0
    while pace.room():
        pace.note(10, 0.005, 0.00495)
        tried += 1
    assert tried <= 3


def test_one_sync_far_beyond_its_due_is_enough_and_the_loop_tries_again() -> None:
    clock = Clock()
    pace = paced(clock)
    pace.note(1, 0.1, 0.1)
    assert pace.room() == 0
    clock.now += 0.99 * AWAY_S
    assert pace.room() == 0
    clock.now += 0.02 * AWAY_S
    assert pace.room() > 0


def test_who_is_disappointed_at_once_stays_away_longer_but_not_for_ever() -> None:
    clock = Clock()
    pace = paced(clock)
    stays = []
    for _ in range(10):
        pace.note(1, 0.1, 0.1)
        began = clock.now
        while not pace.room():
            clock.now += 0.5
        stays.append(clock.now - began)
    assert stays[:3] == [AWAY_S, 2 * AWAY_S, 4 * AWAY_S]
    assert stays[-1] == LONGEST_AWAY_S
    clock.now += LONGEST_AWAY_S + 1  # a good time
    pace.note(1, 0.1, 0.1)
    clock.now += AWAY_S
    assert pace.room() > 0
