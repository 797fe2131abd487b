"""What was large for a moment in a thread is not kept, and what is needed all the time is."""

import subprocess
import sys

import pytest

from tests.labs import ROOT

# Packing needs some tens of MiB for a moment, in two threads that are both still there afterwards. The first round
# teaches glibc how large its blocks may become; without limits it then keeps 17 MiB for each of them.
PROGRAM = """
import ctypes, io, lzma, threading
from core.memory import give_memory_back

if not hasattr(ctypes.CDLL(None), "mallopt"):
    raise SystemExit(77)
give_memory_back()

def held():
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) // 1024

def work():
    for _ in range(2):
        with lzma.open(io.BytesIO(), "wb") as packed:
            packed.write(b"something")
        together.wait()
    together.wait()

together = threading.Barrier(3)
before = held()
for _ in range(2):
    threading.Thread(target=work).start()
together.wait()
together.wait()
print(held() - before)
together.wait()
"""

STREAM = """
import ctypes, resource
from core.memory import give_memory_back

if not hasattr(ctypes.CDLL(None), "mallopt"):
    raise SystemExit(77)
give_memory_back()
for _ in range(200):
    copies = [bytearray(b"x") * (512 * 1024) for _ in range(4)]
    del copies
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt * resource.getpagesize() >> 20)
"""


def test_memory_that_threads_have_used_goes_back_to_the_kernel() -> None:
    assert printed(PROGRAM) < 12  # MiB


def test_what_a_stream_takes_and_frees_all_the_time_is_not_made_anew_by_the_kernel_each_time() -> None:
    assert printed(STREAM) < 100  # MiB, of the 400 that it takes; an interpreter alone is some 20


def printed(program: str) -> int:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode == 77:
        pytest.skip("this C library is not glibc")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
