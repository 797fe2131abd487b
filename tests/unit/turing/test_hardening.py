"""A process with secrets leaves no core file, and the user's other programs cannot look into it."""

import os
import signal
import subprocess
import sys

PR_GET_DUMPABLE = 3
PROGRAM = f"""
import ctypes, os, resource
from core.turing.hardening import keep_memory_private
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
keep_memory_private()
print(*resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl({PR_GET_DUMPABLE}), flush=True)
os.abort()
"""


def test_a_crash_leaves_no_core_file() -> None:
    died = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, check=False)
    assert died.stdout.split() == [b"0", b"0", b"0"]
    assert died.returncode == -signal.SIGABRT


def test_the_kernel_says_that_nothing_was_dumped() -> None:
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.DEVNULL)
    _, status = os.waitpid(child.pid, 0)
    child.returncode = status
    assert os.WIFSIGNALED(status)
    assert not os.WCOREDUMP(status)
