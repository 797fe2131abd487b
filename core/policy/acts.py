"""An act: one thing somebody wants to do, in the one form that is decided about, asked about and written down."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["web.fetch", "secret.use", "llm.complete", "files.put", "files.get", "bus.call", "run.start"]
Verdict = Literal["allow", "ask", "deny"]


@dataclass(frozen=True, slots=True)
class Act:
    """Who wants to do what to what.

    `principals` are the names of whoever acts, from the narrowest: ("run:ID", "mad:marco"), ("mad:fiedler",),
    ("operator",), ("client:NAME",). They come from the channel, never from a message.
    """

    kind: Kind
    principals: tuple[str, ...]
    target: str  # canonical: a URL, a secret's name, MAD.TOOL, an alias, a digest
    details: Mapping[str, str | int] = field(default_factory=dict)  # what else the decision hangs on: method, bytes
    taint: frozenset[str] = frozenset()  # where what flows into it has been: "worker", "file", "web"

    def canonical(self) -> bytes:
        """The exact form a person approves: the same act always has the same bytes."""
        form = {
            "kind": self.kind,
            "principals": list(self.principals),
            "target": self.target,
            "details": dict(self.details),
            "taint": sorted(self.taint),
        }
        return json.dumps(form, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        """Of the canonical form: what an approval is bound to."""
        return f"sha256:{hashlib.sha256(self.canonical()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rules say of an act."""

    verdict: Verdict
    rule: str  # the name of the rule that decided; "default" where none did
    reason: str = ""  # one sentence for people
    next: str = ""  # of a denial or a question: what would be needed
