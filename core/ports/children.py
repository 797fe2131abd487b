"""How many runs one run may have open: those it has asked for and that are not over, waiting ones included.

What counts is the message, from before it is said until its run is gone: between the two it waits in the journal for
the dispatcher, and a caller in a hurry would be done with its flood before anybody looked.
"""

from protos.errors import Exhausted

MOST = 64


class Children:
    """The open messages of each run, by their ids."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._of: dict[str, set[str]] = {}
        self._last: dict[str, int] = {}

    def open(self, run: str, message: str) -> None:
        """Before `run` says `message`, which starts a run.

        Raises:
            Exhausted: as many as it may have are open.
        """
        if len(self._of.get(run, ())) >= self._most and message not in self._of[run]:
            raise Exhausted(
                f"The run has {self._most} runs open that it asked for.",
                next="Wait for an answer first, or raise runs.children_max.",
            )
        self.count(run, message)

    def count(self, run: str, message: str) -> None:
        """One that is open already, as an earlier core has left it."""
        self._of.setdefault(run, set()).add(message)

    def said(self, run: str, sequence: int) -> None:
        """The message that stands there is the last of those with which `run` has started another."""
        self._last[run] = max(sequence, self._last.get(run, 0))

    def last(self, run: str) -> int:
        """Up to where the journal must be heard to know every run that `run` has started."""
        return self._last.get(run, 0)

    def forget(self, run: str) -> None:
        """It is over, and so are those it started."""
        self._last.pop(run, None)

    def close(self, run: str, message: str) -> None:
        """Its run is over, or it was not said."""
        if run in self._of:
            self._of[run].discard(message)
            if not self._of[run]:
                del self._of[run]
