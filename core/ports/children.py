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

    def close(self, run: str, message: str) -> None:
        """Its run is over, or it was not said."""
        if run in self._of:
            self._of[run].discard(message)
            if not self._of[run]:
                del self._of[run]
