"""What may be asked for: goals of a length that a message carries, and who writes, by the name that `--agent` takes.

Hopper knows the same names on its side of the wall (`periphery/hopper/agent.py`); a test compares.
"""

import json

from protos.errors import InvalidArgument

GOAL_CHARACTERS, REMARK_CHARACTERS = 12_000, 2_000
GOAL_BYTES = 14_000  # as JSON: with what stands around it, it fits a message, which carries 16 KiB
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
    if len(goal) > GOAL_CHARACTERS:
        many = f"{len(goal):,} characters, and at most {GOAL_CHARACTERS:,}"
    elif (size := len(json.dumps(goal, ensure_ascii=False).encode("utf-8", "replace"))) > GOAL_BYTES:
        many = f"{size:,} bytes, and at most {GOAL_BYTES:,}"
    else:
        return
    raise InvalidArgument(f"The goal has {many} are taken.", next=SHORTER)


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
