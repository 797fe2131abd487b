"""From a host to its addresses: the lab's own list first, then what the machine asks.

`getaddrinfo` cannot be stopped. Who asks for names whose servers never answer would hold a thread each, so each owner
has a few at once and all together have some more; a thread that was given up on counts until it is really back.
"""

import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from anyio import CapacityLimiter, fail_after, to_thread

from core.egress.addresses import Address, parse
from protos.errors import Denied, Exhausted, Unavailable

ANSWERS = 16  # addresses of one host that are looked at
AT_ONCE = 64
AT_ONCE_EACH = 8

Ask = Callable[[str], Sequence[str]]  # a host's addresses, as text; runs in a thread, raises OSError


def ask_machine(host: str) -> Sequence[str]:
    """What this machine's resolver says, in the order in which it would connect."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def not_reached(host: str) -> Denied:
    """The one answer for a name that nobody knows and for one that leads inside: who may ask for any host must not
    learn from it which names there are in an intranet."""
    return Denied(
        f"rule address: {host} leads to no address that may be reached.",
        next="Check the name. A rule of the policy would have to name an address that is not public in its limits.",
    )


class Names:
    """Resolves hosts. `known` is like a hosts file: what stands there is not asked for."""

    def __init__(self, known: Mapping[str, Sequence[str]], ask: Ask = ask_machine) -> None:
        self._known, self._ask = known, ask
        self._asking: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._limiter = CapacityLimiter(10 * AT_ONCE)  # never the bound: `_asking` is

    async def find(self, host: str, owner: str, seconds: float) -> Sequence[Address]:
        """The addresses of `host`, a name or an address, asked for by `owner`.

        Raises:
            Denied: there is no such host: `not_reached`.
            Exhausted: the owner waits for too many names.
            Unavailable: nobody said anything within `seconds`.
        """
        try:
            return [parse(host)]
        except ValueError:
            pass
        if host in self._known:
            return [parse(each) for each in self._known[host]]
        question = self._counted(host, owner)
        try:
            with fail_after(seconds):
                said = await to_thread.run_sync(question.ask, abandon_on_cancel=True, limiter=self._limiter)
            found = [parse(each.partition("%")[0]) for each in said[:ANSWERS]]
        except TimeoutError:
            raise Unavailable(f"The name {host} was not resolved within {seconds:g} s.", next="Try again.") from None
        except (OSError, UnicodeError, ValueError) as error:
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
                raise Unavailable(f"No name server answers for {host}.", next="Try again.") from None
            raise not_reached(host) from None
        finally:
            question.give_up()
        if not found:
            raise not_reached(host)
        return found

    def _counted(self, host: str, owner: str) -> "_Question":
        with self._lock:
            if self._asking[owner] >= AT_ONCE_EACH or self._asking.total() >= AT_ONCE:
                raise Exhausted("Too many names are asked for at once.", next="Wait for the answers.")
            self._asking[owner] += 1
        return _Question(self._ask, host, partial(self._back, owner))

    def _back(self, owner: str) -> None:
        with self._lock:
            self._asking[owner] -= 1
            if not self._asking[owner]:
                del self._asking[owner]


class _Question:
    """One question in a thread, and whether it is over: when its thread is back, or where it never began."""

    def __init__(self, ask: Ask, host: str, back: Callable[[], None]) -> None:
        self._ask, self._host, self._back = ask, host, back
        self._begun = threading.Lock()  # taken by whoever comes first, for good

    def ask(self) -> Sequence[str]:
        """Runs in the thread."""
        if not self._begun.acquire(blocking=False):
            return ()
        try:
            return self._ask(self._host)
        finally:
            self._back()

    def give_up(self) -> None:
        """Nobody waits any more. A thread that has begun says itself when it is back."""
        if self._begun.acquire(blocking=False):
            self._back()
