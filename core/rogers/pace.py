"""How much may be committed in the event loop itself, told by how long it took of late.

Handing a commit to a thread and coming back costs as much as a quick disk's sync, and several times that while the
loop is busy: each step of SQLite's gives the interpreter's lock away and waits for it again. So where the disk is
quick, the loop commits, and everything else in the core waits so long: `stall_s` at most for the sync, and as long
again for the work before it, of which no more is taken than fits. (The sync comes once, however many share it: to cut
a batch because the sync is slow would make two of them.)

What is typical is followed like a median, a step up or down with each commit, so that single outliers say nothing.
Where the typical sync takes longer than `stall_s`, or one commit took ten times that, commits go to the thread for
twenty times what it took; then the loop tries again, and if it is disappointed at once, it stays away twice as long.
So a disk that became slow is felt as a stall of one or a few syncs, ever more rarely, and not with each message.

A thread's commit that took long may have waited for the loop as well as for the disk, and says nothing. One that was
quick says that the disk is. So where the thread's are, the loop comes back: no sooner than after the twenty times, and
however often it was disappointed before. Who was busy with the disk for a while does not leave it slow for everybody.
"""

import time
from collections.abc import Callable

STALL_S = 0.002  # for so long a typical sync may keep the loop, and so long the work before it
STEP = 1.2  # from one commit to the next, in what is typical
OUTLIER = 10  # times `stall_s`: such a stall must not come often
AWAY = 20  # times what it took
LONGEST_AWAY_S = 16.0
QUICK = 0.5  # of `stall_s`: what the thread's syncs take, typically, where the loop may come back


class Pace:
    """What commits of late allow the next one to be."""

    def __init__(self, stall_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_s = stall_s
        self._clock = clock
        self._sync_s = stall_s / 4  # guesses, until some were made
        self._each_s = stall_s / 400
        self._away_s = 0.0  # how long the loop stayed away, if it has not seen a quick commit since
        self._until = 0.0 if stall_s else float("inf")  # commits are the thread's
        self._at_least_until = self._until  # and however quick it is
        self._thread_s = stall_s  # what is typical of its syncs

    def room(self) -> int:
        """How much (entries and KiB) may be committed in the loop now; 0: the commit is the thread's."""
        if self._until and self._clock() < self._until:
            return 0
        return int(self._stall_s / self._each_s)

    def note(self, weight: int, seconds: float, sync_s: float) -> None:
        """What a commit in the loop took, `sync_s` of it until the disk had it."""
        each_s = (seconds - sync_s) / weight
        self._each_s *= STEP if each_s > self._each_s else 1 / STEP
        self._sync_s *= STEP if sync_s > self._sync_s else 1 / STEP
        if seconds > OUTLIER * self._stall_s or self._sync_s > self._stall_s:
            self._away_s = min(max(2 * self._away_s, AWAY * seconds), LONGEST_AWAY_S)
            self._until = self._clock() + self._away_s
            self._at_least_until = self._clock() + min(AWAY * seconds, LONGEST_AWAY_S)
            self._thread_s = self._stall_s
            self._sync_s = min(self._sync_s, self._stall_s)
        elif sync_s <= self._stall_s:
            self._away_s = 0.0

    def heard(self, sync_s: float) -> None:
        """What a commit on the thread took until the disk had it."""
        self._thread_s *= STEP if sync_s > self._thread_s else 1 / STEP
        self._thread_s = min(self._thread_s, self._stall_s)
        if self._thread_s < QUICK * self._stall_s:
            self._until = min(self._until, self._at_least_until)
