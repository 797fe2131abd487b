"""Where a commit is made follows what commits took."""

import random
from pathlib import Path

from anyio import fail_after

from core.rogers.entry import Entry
from core.rogers.journal import Journal
from core.rogers.pace import AWAY, LONGEST_AWAY_S, Pace
from protos.ids import new_id

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


def time_away(pace: Pace, clock: Clock) -> float:
    began = clock.now
    while not pace.room():
        clock.now += 0.01
    return clock.now - began


def test_what_fits_into_the_bound_is_the_loops() -> None:
    assert 0.7 * STALL_S / EACH_S < paced(Clock()).room() < 1.4 * STALL_S / EACH_S


def test_a_slower_sync_does_not_cut_a_batch_in_two() -> None:
    assert paced(Clock(), sync_s=0.7 * STALL_S).room() == paced(Clock(), sync_s=0.1 * STALL_S).room()


def test_a_bound_of_nothing_leaves_all_to_the_thread() -> None:
    assert Pace(0).room() == 0


def test_the_first_commits_are_the_loops_to_try() -> None:
    assert Pace(STALL_S).room() > 0


def test_a_slow_disk_is_the_threads_after_a_few_commits_and_ever_longer() -> None:
    clock = Clock()
    pace, tried = Pace(STALL_S, clock), 0
    for _ in range(6000):  # of a disk that takes 5 ms, for a minute
        if pace.room():
            pace.note(10, 0.00505, 0.005)
            tried += 1
        clock.now += 0.01
    assert 5 < tried < 25


def test_single_slow_syncs_of_a_quick_disk_say_nothing() -> None:
    pace, chance = paced(Clock()), random.Random(5)
    for _ in range(10_000):
        sync_s = 0.01 if chance.random() < 0.1 else SYNC_S
        pace.note(10, sync_s + 10 * EACH_S, sync_s)
        assert pace.room() > 100


def test_one_stall_far_beyond_the_bound_is_enough_and_the_loop_tries_again() -> None:
    clock = Clock()
    pace = paced(clock)
    pace.note(1, 0.1, 0.1)
    assert abs(time_away(pace, clock) - AWAY * 0.1) < 0.02


def test_who_is_disappointed_at_once_stays_away_longer_but_not_for_ever() -> None:
    clock = Clock()
    pace = paced(clock)
    stays = []
    for _ in range(10):
        pace.note(1, 0.1, 0.1)
        stays.append(time_away(pace, clock))
    assert [round(each / stays[0]) for each in stays[:3]] == [1, 2, 4]
    assert abs(stays[-1] - LONGEST_AWAY_S) < 0.02
    pace.note(1, SYNC_S, SYNC_S)  # a good try
    pace.note(1, 0.1, 0.1)
    assert abs(time_away(pace, clock) - stays[0]) < 0.02


def disappointed(clock: Clock, times: int = 8) -> Pace:
    """Whose stays away have grown; the last has just begun."""
    pace = paced(clock)
    for _ in range(times):
        time_away(pace, clock)
        pace.note(1, 0.1, 0.1)
    return pace


def test_quick_syncs_on_the_thread_bring_the_loop_back_however_often_it_was_disappointed() -> None:
    clock = Clock()
    pace = disappointed(clock)
    for _ in range(10):
        pace.heard(SYNC_S)
    assert abs(time_away(pace, clock) - AWAY * 0.1) < 0.02


def test_slow_syncs_on_the_thread_keep_the_loop_away_as_long_as_before() -> None:
    clock = Clock()
    pace = disappointed(clock)
    for _ in range(100):
        pace.heard(0.005)
    pace.heard(SYNC_S)
    assert abs(time_away(pace, clock) - LONGEST_AWAY_S) < 0.02


def test_quick_syncs_from_before_the_last_stall_do_not_count() -> None:
    clock = Clock()
    pace = disappointed(clock, 1)
    for _ in range(100):
        pace.heard(SYNC_S)
    time_away(pace, clock)
    pace.note(1, 0.1, 0.1)
    pace.heard(SYNC_S)
    assert abs(time_away(pace, clock) - 2 * AWAY * 0.1) < 0.02


def test_a_bound_of_nothing_leaves_all_to_the_thread_whatever_that_says() -> None:
    pace = Pace(0)
    for _ in range(100):
        pace.heard(0.0)
    assert pace.room() == 0


async def test_the_journal_tells_what_the_threads_syncs_took(tmp_path: Path) -> None:
    clock = Clock()
    pace = disappointed(clock)
    pace._stall_s = pace._thread_s = 1.0  # whatever this machine's disk takes, it is quick
    with fail_after(60):
        async with Journal(tmp_path / "journal.db", synchronous="OFF") as journal:
            journal._pace = pace
            for _ in range(20):
                await journal.append(Entry(new_id(), "act", b"0", sender="hopper"))
    assert abs(time_away(pace, clock) - AWAY * 0.1) < 0.02
