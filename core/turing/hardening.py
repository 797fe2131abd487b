"""What a process that holds secrets asks of the kernel: no core dumps, and no looking into it by others."""

import ctypes
import resource
import sys

import structlog

PR_SET_DUMPABLE = 4

logger = structlog.get_logger()


def keep_memory_private() -> None:
    """No core file when the process dies, and none of the user's other processes may trace it or read its memory.

    Root may all the same, and the kernel may write memory to swap: encrypt the swap, or have none. Called once, at the
    start. Programs that this process starts keep the first and lose the second, since `exec` resets it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            logger.warning("the memory of the core can be read by this user's programs", errno=ctypes.get_errno())
