"""How the C library keeps memory that nobody uses: little of it, since the core runs for months.

glibc lets every thread have an arena of its own, and raises what it takes from the kernel piece by piece to as much as
was ever given back at once, up to 32 MiB; from then on such blocks come from the arenas too, which keep them. So one
archive packed in one thread (xz holds some tens of MiB for a moment) and the next in another are memory that the core
holds for good. Named limits end both: what is large comes from the kernel and goes back to it.

The end of a heap may keep a little more: a stream takes and frees some blocks of half a MiB all the time, and were each
page of them the kernel's to make anew, that would take as long as all else that is done with them.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
LARGE = 1 << 20  # bytes of a block that is the kernel's
KEPT = 4 << 20  # bytes of free memory at the end of a heap; more goes back
ARENAS = 2


def give_memory_back() -> None:
    """Sets the limits; called once, before there are threads. Other C libraries than glibc have their own ways."""
    libc = ctypes.CDLL(None)
    if (set_limit := getattr(libc, "mallopt", None)) is not None:
        set_limit(M_ARENA_MAX, ARENAS)
        set_limit(M_MMAP_THRESHOLD, LARGE)
        set_limit(M_TRIM_THRESHOLD, KEPT)
