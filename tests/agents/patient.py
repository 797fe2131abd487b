"""Agents who mean well and take their time, so that something can happen meanwhile: a remark, a kill, the last cent."""

import os
from collections.abc import Iterator, Sequence

from tests.agents import Agent, Step, Until, always, called, run
from tests.agents.bad import EDIT, FINISH, MENDS
from tests.model_server import Play

LONG = f"sleep 3.{os.getpid():07}"  # of this process of tests: another may look for its own
REMARK = "mend it now, and call it an interval"


def patient() -> Iterator[Agent]:
    """All of them."""
    yield Agent("listener", "waits for a remark, then mends it", always(Until(REMARK), *MENDS))
    yield Agent("waiter", "runs something that takes long, then mends it", always(run(LONG), *MENDS))
    speech = Play(text="Let me think. " * 35, calls=[called(EDIT)], pause_s=0.02)
    yield Agent("speaker", "thinks aloud for a while, then mends it", always(speech, *MENDS[1:]))
    note = {"tool": "write", "path": "NOTES.md", "content": "Half of the work is done.\n"}
    looks = [run(f"head -c 6000 /dev/zero | tr '\\0' x; echo {at}") for at in range(50)]
    yield Agent("spender", "does half of the work, then reads on", always(note, *looks), outcome="out_of_budget")
    otherwise = {
        **EDIT,
        "new": "        if merged and merged[-1][1] >= start:\n"
        "            merged[-1] = (merged[-1][0], max(merged[-1][1], end))\n",
    }
    yield Agent("rival", "mends it in other words", always(otherwise, *MENDS[1:]))
    yield Agent("three", "lies, mends it clumsily, mends it well", attempts_of_three, many=True)


def attempts_of_three(attempt: int) -> Sequence[Step | Play]:
    """One lies, one mends it and leaves rubbish, one mends it."""
    rubbish = {"tool": "write", "path": "scratch.txt", "content": "rubbish\n" * 40}
    return ((FINISH,), (rubbish, *MENDS), MENDS)[attempt % 3]
