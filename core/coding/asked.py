"""What may be asked for: how long a goal may be, in a message or beside it, and who writes, by `--agent`'s names.

Hopper knows the same names on its side of the wall (`periphery/hopper/agent.py`); a test compares.
"""

import json

from protos.errors import InvalidArgument

GOAL_CHARACTERS, REMARK_CHARACTERS = 12_000, 2_000
GOAL_BYTES = 14_000  # as JSON: with what stands around it, it fits a message, which carries 16 KiB
GOAL_BLOB_BYTES = 64 * 1024  # of a goal that is stored: what an agent is given as its first words
OPENING_CHARACTERS = 2_000  # of it, for people
SHORTER = "Put the details into a file of the repository, and name that file in the goal."

DEFAULT_AGENT = "hopper"
OWN_AGENTS = (DEFAULT_AGENT, "small")  # in Hopper's own image
OTHER_AGENTS = ("codex", "mini-swe-agent")  # that others keep
AGENTS = tuple(sorted(OWN_AGENTS + OTHER_AGENTS))
AGENTS_IMAGE = "lab:hopper-agents"  # where the others are


def check_goal(goal: str) -> None:
    """
    Raises:
        InvalidArgument: it is empty, or longer than a message carries.
    """
    if not goal.strip():
        raise InvalidArgument("The goal is empty.", next="Say what shall be reached.")
    if many := too_long(goal):
        raise InvalidArgument(f"The goal has {many} are taken.", next=SHORTER)


def too_long(goal: str) -> str:
    """How far a goal is beyond what a message carries; empty where it fits."""
    if len(goal) > GOAL_CHARACTERS:
        return f"{len(goal):,} characters, and at most {GOAL_CHARACTERS:,}"
    size = len(json.dumps(goal, ensure_ascii=False).encode("utf-8", "replace"))
    return f"{size:,} bytes, and at most {GOAL_BYTES:,}" if size > GOAL_BYTES else ""


def opening_of(goal: str) -> str:
    """How a long goal begins: whole lines, where it has any."""
    begins = goal.strip()[:OPENING_CHARACTERS]
    return f"{begins.rpartition(chr(10))[0].rstrip() or begins} …"


def check_agent(name: str) -> None:
    """
    Raises:
        InvalidArgument: nobody is called so.
    """
    if name not in AGENTS:
        raise InvalidArgument(f"There is no agent {name[:60]!r}.", next=f"There are: {', '.join(AGENTS)}.")


def image_of(agent: str) -> str:
    """The image that an agent needs, as terms name it; empty: Hopper's own."""
    return AGENTS_IMAGE if agent in OTHER_AGENTS else ""
