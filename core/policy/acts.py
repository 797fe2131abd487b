"""An act: one thing somebody wants to do, in the one form that is decided about, asked about and written down."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["web.fetch", "secret.use", "llm.complete", "files.put", "files.get", "bus.call", "run.start"]
Verdict = Literal["allow", "ask", "deny"]

READING = frozenset({"GET", "HEAD", "OPTIONS"})  # methods that ask the other side for something and tell it little


@dataclass(frozen=True, slots=True)
class Act:
    """Who wants to do what to what.

    `principals` are the names of whoever acts, from the narrowest: ("run:ID", "mad:marco"), ("mad:fiedler",),
    ("operator",), ("client:NAME",). They come from the channel, never from a message.
    """

    kind: Kind
    principals: tuple[str, ...]
    target: str  # canonical: a URL, a secret's name, MAD.TOOL, an alias, a digest
    # What else the decision hangs on: `method` and `bytes` (of a body) of a request and of a secret that goes with it,
    # `effects` of a call. What a person should see before approving stands here, too.
    details: Mapping[str, str | int] = field(default_factory=dict)
    taint: frozenset[str] = frozenset()  # where what flows into it has been: "worker", "file", "web", "private"

    @property
    def leaves(self) -> bool:
        """Whether it takes along what the caller knows, out of the lab: a request that writes, a secret with it, a
        call of a tool with outward effects. Of what it does not say, the worst is assumed."""
        if self.kind in ("web.fetch", "secret.use"):
            return self.details.get("method") not in READING or bool(self.details.get("bytes"))
        return self.kind == "bus.call" and self.details.get("effects") == "outward"

    def form(self) -> dict[str, object]:
        """As JSON holds it."""
        return {
            "kind": self.kind,
            "principals": list(self.principals),
            "target": self.target,
            "details": dict(self.details),
            "taint": sorted(self.taint),
        }

    def canonical(self) -> bytes:
        """The exact form a person approves: the same act always has the same bytes."""
        return json.dumps(self.form(), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        """Of the canonical form: what an approval is bound to."""
        return f"sha256:{hashlib.sha256(self.canonical()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an allowed request to the world may take. What a rule does not say stands here."""

    bytes_up: int = 1 << 20  # of a request's body
    bytes_down: int = 256 << 20  # of its answer's
    requests_per_minute: int = 600  # of one run under one rule
    seconds: float = 300.0  # from start to the end of the answer
    addresses: tuple[str, ...] = ()  # networks that may be reached although they are private: "127.0.0.1/32"
    packages: bool = False  # a package index: the broker's package profile


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rules say of an act."""

    verdict: Verdict
    rule: str  # the name of the rule that decided; "default" where none did
    reason: str = ""  # one sentence for people
    next: str = ""  # of a denial or a question: what would be needed
    limits: Limits = Limits()
