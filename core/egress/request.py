"""One request that was decided about, and what goes over the wire for it."""

from dataclasses import dataclass

from core.egress.heads import Headers
from core.egress.limits import USUAL, Limits
from core.egress.urls import Url


@dataclass(frozen=True, slots=True)
class Request:
    """One request that was decided about."""

    owner: str  # whose connections: a run
    method: str
    url: Url
    headers: Headers  # as `core.egress.heads.checked` lets them pass
    length: int | None = None  # of the body; None: it is sent in chunks
    limits: Limits = USUAL
    together: bool = False  # whether the head may wait a moment for the rest of a short answer


@dataclass
class Traffic:
    """What went over the wire for one request, while it goes on."""

    sent: int = 0  # bytes of the body
    received: int = 0
    address: str = ""  # where it went; or where it may not, of several all
    why: str = ""  # it went nowhere: what is not the caller's to know
    is_whole: bool = False  # the answer came as a whole: nothing of it is waited for any more
