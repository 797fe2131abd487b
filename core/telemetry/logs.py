"""The core's own log lines, for a collector: what happened and to what, without what was said about it.

A step in structlog's chain copies what may be told of a line into a bounded queue, while somebody takes from it. What
the queue cannot hold is dropped and counted. Of a line's fields are told: numbers, truths, and the words in `NAMES`,
which are ids and names that the lab or its operator gave. Reasons, paths and whatever else a worker or a library had a
part in stay in `core.log`; of an exception its type is told.
"""

import re
import sys
import time
from collections import deque
from collections.abc import MutableMapping
from typing import Any

from core.telemetry.otlp import LogLine, Value

MOST = 2048  # lines that wait
NAMES = frozenset({"run", "mad", "message", "request", "lab", "policy", "provider", "alias", "engine", "id"})
WORD = re.compile(r"[\w.:/@+-]{1,128}")


class Lines:
    """A structlog processor that keeps what is to be told, while `open`."""

    def __init__(self) -> None:
        self.open = False
        self.dropped = 0
        self._waiting: deque[LogLine] = deque()

    def __call__(self, logger: Any, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Takes note of a line and passes it on as it is."""
        if self.open:
            if len(self._waiting) < MOST:
                self._waiting.append(told(line, method))
            else:
                self.dropped += 1
        return line

    def take(self, most: int) -> list[LogLine]:
        """The oldest of what waits."""
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def __len__(self) -> int:
        return len(self._waiting)


LINES = Lines()  # structlog has one configuration in a process, and so it has one tap


def told(line: MutableMapping[str, Any], method: str) -> LogLine:
    """What may be told of a line."""
    about: dict[str, Value] = {}
    for name, value in line.items():
        if name in ("event", "level", "timestamp", "exc_info", "exception"):
            continue
        if isinstance(value, bool | int | float) or (
            name in NAMES and isinstance(value, str) and WORD.fullmatch(value) is not None
        ):
            about[name] = value
    if (raised := line.get("exc_info")) is not None:
        error = sys.exc_info()[1] if raised is True else raised[1] if isinstance(raised, tuple) else raised
        about["exception.type"] = type(error).__name__ if isinstance(error, BaseException) else "unknown"
    level = str(line.get("level", method))
    return LogLine(time.time(), level, str(line.get("event", "")), about)
