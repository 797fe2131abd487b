"""How much the world may take of the door: connections, bytes, time, and guesses.

The lab's own socket is the operator's, who may be a program that is stopped for an hour: only heads are bounded there.
Over TCP nobody is known before the token is, so a *stranger* (a connection that has not shown a good token) never has
a place for certain: the newest one pushes out the one that has waited longest. So whoever holds connections open and
says nothing takes them from himself, and an honest client always finds a place. Of those that are known, clients have
no more than a part, so that the operator's page has the rest for certain; where no place is left, a connection that
lies idle makes one, of whoever has the most.
"""

import time
from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

HEAD_BYTES = 16 * 1024  # of a request's line and headers
HEADERS = 64  # lines
ACCEPTED = 64  # connections in one go, before anything else is done
WAITING = 1024  # that are not accepted yet


@dataclass(frozen=True)
class Limits:
    """Of one listener. Times are seconds."""

    head_s: float = 10.0  # from the first moment to the last header
    body_s: float = 20.0  # of a body, before it must have come at `body_rate`
    body_rate: float = 8192.0  # bytes a second, on the average from then on
    reader_s: float | None = 30.0  # to take what is ready for it; None: as long as it likes
    idle_s: float = 30.0  # of a connection between two requests
    strangers: int = 256  # connections without a good token: more than are accepted in one go (`ACCEPTED`)
    known: int = 512  # and with one
    clients: int = 320  # of them, by all clients together
    known_each: int = 320  # of one token


OWN_SOCKET = Limits(head_s=60.0, body_s=600.0, body_rate=0.0, reader_s=None, strangers=1024)
WEB = Limits()


class Wire(Protocol):
    """One connection, as the crowd sees it."""

    @property
    def is_served(self) -> bool:
        """Whether the lab is at work for it, and it has not to be waited for."""

    def hang_up(self) -> None:
        """Ends it, whatever is in progress."""


@dataclass
class Crowd:
    """All connections of one listener."""

    limits: Limits
    _strangers: dict[Wire, None] = field(default_factory=dict)  # the longest here first
    _known: dict[Wire, str] = field(default_factory=dict)  # by whose token
    _each: Counter[str] = field(default_factory=Counter)
    _clients: set[str] = field(default_factory=set)  # the tokens of those that are clients'

    def enter(self, wire: Wire) -> None:
        """A new connection; the stranger that has been waited for longest makes place for it."""
        if len(self._strangers) >= self.limits.strangers:
            oldest = next((each for each in self._strangers if not each.is_served), next(iter(self._strangers)))
            self.leave(oldest)
            oldest.hang_up()
        self._strangers[wire] = None

    def know(self, wire: Wire, token: str, *, client: bool) -> bool:
        """Notes whose it is, a client's or the operator's; whether there is a place for it."""
        if self._known.get(wire) == token:
            return True
        if self._each[token] >= self.limits.known_each:
            full = {token}
        elif client and sum(self._each[each] for each in self._clients) >= self.limits.clients:
            full = self._clients
        else:
            full = {*self._each} if len(self._known) >= self.limits.known else set()
        if full and not self._push_out(full):
            return False
        self.leave(wire)
        self._known[wire] = token
        self._each[token] += 1
        if client:
            self._clients.add(token)
        return True

    def _push_out(self, tokens: AbstractSet[str]) -> bool:
        """Ends the oldest connection that lies idle, of the one among these that has the most; whether there is any."""
        newest_first = reversed(self._known.items())
        idle = {whose: wire for wire, whose in newest_first if whose in tokens and not wire.is_served}
        if not idle:
            return False
        wire = idle[max(idle, key=self._each.__getitem__)]
        self.leave(wire)
        wire.hang_up()
        return True

    def leave(self, wire: Wire) -> None:
        """It is gone, or becomes another's."""
        self._strangers.pop(wire, None)
        if (token := self._known.pop(wire, None)) is not None:
            self._each[token] -= 1
            if not self._each[token]:
                del self._each[token]
                self._clients.discard(token)


@dataclass
class Bucket:
    """So many a second, and so many at once."""

    rate: float
    burst: float
    _left: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._left, self._at = self.burst, time.monotonic()

    def take(self) -> bool:
        """Whether there is one more."""
        now = time.monotonic()
        self._left = min(self.burst, self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
