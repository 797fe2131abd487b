"""What can go wrong, told by what the caller can do now.

::

    Error                    never raised itself; has .code, .retryable and .next
    ├─ InvalidArgument       fix the request
    ├─ Unauthenticated       present a session
    ├─ Denied                ask the operator for a grant
    ├─ NotFound              look elsewhere
    ├─ Conflict              look at the state first: it does not allow this now
    ├─ Exhausted   (retry)   wait for budget or capacity
    └─ Unavailable (retry)   try again; the same request may succeed

The codes are gRPC's status names, so the wire needs no second vocabulary. Only the code picks a class: text that
comes from a peer is data, bounded and escaped, and never chooses what is raised.
A result is not an error: a program's exit code or an agent's "I could not" is a value.
"""

from typing import ClassVar


class Error(Exception):
    """The common ancestor.

    `next` says in one sentence what the caller can do; it may be empty.
    """

    code: ClassVar[str]
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, next: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next = next


class InvalidArgument(Error):
    """The request is wrong and will stay wrong: fix it."""

    code = "INVALID_ARGUMENT"


class Unauthenticated(Error):
    """No session, or one that has ended: attach first."""

    code = "UNAUTHENTICATED"


class Denied(Error):
    """Plain code said no: the message names the rule and what would be needed."""

    code = "PERMISSION_DENIED"


class NotFound(Error):
    """There is no such thing, or none that the caller may see."""

    code = "NOT_FOUND"


class Conflict(Error):
    """The thing is there, in a state that does not allow this."""

    code = "FAILED_PRECONDITION"


class Exhausted(Error):
    """A budget, quota or queue is full: wait, or ask for more."""

    code = "RESOURCE_EXHAUSTED"
    retryable = True


class Unavailable(Error):
    """Not now: the same request may succeed later."""

    code = "UNAVAILABLE"
    retryable = True


BY_CODE: dict[str, type[Error]] = {
    each.code: each for each in (InvalidArgument, Unauthenticated, Denied, NotFound, Conflict, Exhausted, Unavailable)
}
