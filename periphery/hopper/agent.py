"""The seam between Hopper and whoever writes the code: a task goes in, an ending comes out.

An agent works in the files below `task.root` and nowhere else. What changed is found out afterwards by comparing the
tree, so an agent reports nothing of it; what it believes of its own work is a claim, and its tests are run again.

It runs commands through `task.shell`, so that each is bounded, told to people and listed in the evidence, and reaches
models through `task.llm` (a program of its own: through `periphery.doors.open_doors(task.llm, model=task.model)`).
What it used goes into `task.ledger`, as it goes: an agent that is cancelled has no last word.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol

from periphery.hopper.shell import Shell
from periphery.hopper.testing import TestResult
from protos.errors import InvalidArgument
from protos.llm import Llm
from protos.money import total
from protos.tools import Call

OWN = ("hopper", "small")
ADAPTERS = ("codex", "mini-swe-agent")

How = Literal["done", "partial", "failed", "stuck", "out_of_budget"]


@dataclass(frozen=True)
class Ending:
    """How the work ended, as the agent sees it.

    `done`: it believes the goal is met. `partial`: some of it. `failed`: it cannot be done, or not by this agent.
    `stuck`: no progress, or no steps left. `out_of_budget`: the lab's budget or the time is used up.
    """

    how: How
    summary: str  # what was done, in the agent's words, for people
    reason: str = ""  # why it is not done, and what more it needs, in one sentence
    tests: TestResult | None = None  # of the tree just as it is now; None: Hopper runs them


@dataclass
class Ledger:
    """What the work took so far."""

    steps: int = 0  # answers of a model that the agent acted on
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0
    model_seconds: float = 0.0  # spent waiting for models
    model: str = ""  # the name of the model that answered last, as its provider calls it
    small: bool = False  # it is one that nothing may be trusted to

    def book(self, *, tokens_in: int = 0, tokens_out: int = 0, usd: float = 0.0, seconds: float = 0.0) -> None:
        """Adds what one request took."""
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self.usd = total((self.usd, usd))
        self.model_seconds += seconds


@dataclass(frozen=True)
class Task:
    """What an agent is given."""

    goal: str
    root: Path  # the repository: a tree that is the agent's to change
    shell: Shell  # runs commands there, and lists them
    call: Call  # `await call.progress(text, what=KIND, …)` tells people; see the README for the kinds
    llm: Llm
    model: str  # an alias; empty: the lab's default
    test: str  # the command that tests the tree; empty: none is known
    deadline: float  # seconds since the epoch, with the time for handing over already taken off; inf: none
    max_steps: int
    notes: str = ""  # what whoever asks wants it to know beside the goal
    role: str = ""  # planner, developer, reviewer, tester …; empty: all of it
    failing: str = ""  # the tail of the tests before, where they failed
    ledger: Ledger = field(default_factory=Ledger)


class Agent(Protocol):
    """Somebody who writes code."""

    async def work(self, task: Task) -> Ending:
        """Works until it is done or cannot go on. May be cancelled at `task.deadline`, and ends its processes then.

        Raises:
            Exhausted, Unavailable, Denied, InvalidArgument: from `task.llm`; Hopper makes an ending of them.
        """
        ...


def adapter(name: str) -> Agent:
    """An agent that is not ours, imported when it is asked for: `make()` of `periphery.hopper.agents.NAME`.

    Raises:
        InvalidArgument: there is no such agent, or this image lacks it.
    """
    if name not in ADAPTERS:
        raise InvalidArgument(f"There is no agent '{name[:60]}'.", next=f"Take one of {_listed((*OWN, *ADAPTERS))}.")
    try:
        module = import_module(f"periphery.hopper.agents.{name.replace('-', '_')}")
    except ImportError as error:
        raise InvalidArgument(f"This image lacks the agent '{name}': {error}.", next="Take agent=hopper.") from error
    made: Agent = module.make()
    return made


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
