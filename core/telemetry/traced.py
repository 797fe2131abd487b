"""How a request came to the door: kept beside the message it became, so that its trace is known after a restart, too.

A W3C `traceparent` goes on in the lab where the operator sent it: the caller's span becomes the parent, and one trace
leads from the caller's program to the last call in a sandbox. From a client, which is a stranger with a token, the
trace begins anew and the caller's is a link: nobody outside shall be able to write into the operator's traces. So it
is, too, where the caller does not record its own span (the flag "sampled" is 0): the parent would be missing for ever.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Self

from core.rogers.entry import Entry

KIND = "trace"
TRACEPARENT = re.compile("([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class Traced:
    """One request."""

    at: float  # when it came, in seconds since the epoch
    route: str
    trace: bytes = b""  # of the caller, to be gone on with
    parent: bytes = b""
    linked: tuple[bytes, bytes] | None = None  # the caller's trace and span, to be pointed at

    @classmethod
    def by(cls, header: str, *, route: str, at: float, is_operator: bool) -> Self:
        """What a request with this `traceparent` is; one that is missing or damaged is none."""
        found = TRACEPARENT.fullmatch(header.strip())
        if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
            return cls(at, route)
        trace, span, flags = bytes.fromhex(found[2]), bytes.fromhex(found[3]), int(found[4], 16)
        if not any(trace) or not any(span):
            return cls(at, route)
        if is_operator and flags & 1:
            return cls(at, route, trace, span)
        return cls(at, route, linked=(trace, span))

    @classmethod
    def of(cls, body: dict[str, Any]) -> Self:
        """What its entry says."""
        linked = body.get("linked")
        return cls(
            body["at"],
            body["route"],
            bytes.fromhex(body.get("trace", "")),
            bytes.fromhex(body.get("parent", "")),
            (bytes.fromhex(linked[0]), bytes.fromhex(linked[1])) if linked else None,
        )

    def entry(self, message: str, conversation: str, sender: str) -> Entry:
        """What is journalled with the message: in its transaction, once."""
        body: dict[str, Any] = {"at": self.at, "route": self.route}
        if self.trace:
            body |= {"trace": self.trace.hex(), "parent": self.parent.hex()}
        if self.linked:
            body["linked"] = [each.hex() for each in self.linked]
        return Entry(f"trace:{message}", KIND, json.dumps(body).encode(), conversation, sender)
