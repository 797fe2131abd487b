"""Doors: in the sandbox, an OpenAI- and an Anthropic-compatible server on loopback in front of `ctx.llm`."""

from periphery.doors.exchange import Usage
from periphery.doors.opening import Doors, open_doors

__all__ = ["Doors", "Usage", "open_doors"]
