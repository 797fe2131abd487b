"""What the door answers, as types: the nouns that more than one part of it names. Fields are only ever added.

Nothing is made of these: `shapes` and the handlers say what they say, the OpenAPI document is written from here, and a
fuzzer compares the two. A part's own answers stand in that part.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.rogers.bus import DeadLetter
from core.run import Outcome, State

Moment = Annotated[float, Field(description="seconds since the epoch")]
Digest = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]


class Answer(BaseModel):
    """What an answer is. Its schema is made when the document is: the door should open at once."""

    model_config = ConfigDict(defer_build=True)


class Blob(Answer):
    """A blob: what it is called, never what it holds."""

    digest: str
    size: int
    name: str
    media_type: str


class Version(Blob):
    """One version of a named file."""

    version: int
    at: Moment


class Message(Answer):
    """Something that was said. Its text and data may come from a worker or from the web: `taint` says so."""

    id: str
    sequence: Annotated[int, Field(ge=0, description="its place in the journal; 0 while it is not durable")]
    at: Moment
    conversation: str
    sender: str
    recipient: str
    kind: Literal["unspecified", "prose", "call", "reply", "event", "fault"]
    tool: str
    text: str
    data: Any
    in_reply_to: str
    causation: str
    taint: list[str]
    blobs: list[Blob]
    terms: dict[str, float | str | list[str]]


class Run(Answer):
    """One run of an eMAD. Times are null while not reached; `outcome` is null until it has ended."""

    id: str
    mad: str
    state: State
    outcome: Outcome | None
    created: Moment
    started: Moment | None
    ended: Moment | None
    reason: str
    cost: dict[str, Any]
    conversation: str
    parent: str | None
    title: Annotated[str, Field(description="what it is for, in one line: its goal, or the call itself")]
    asker: Annotated[str, Field(description="who asked for it in the end: operator, client:NAME, a resident")]
    place: Annotated[int | None, Field(description="in the queue; null when it does not wait")]


class Mad(Answer):
    """A MAD and how it fares."""

    name: str
    kind: Literal["resident", "emad", "core"]
    version: str
    summary: str
    tools: int
    state: str
    warm: int | None = None
    home: str | None = None
    restarts: int | None = None
    error: str | None = None


class Sandbox(Answer):
    """One sandbox of the lab."""

    name: str
    mad: str
    run: str | None
    state: str


class Vault(Answer):
    """How the vault is. `next` is what to do about it."""

    state: str
    way: str
    wanted: str
    place: str
    secrets: int
    reason: str
    next: str


class JournalState(Answer):
    """The journal in figures."""

    messages: int
    bytes: int
    lost: int
    sealed: str | None


class FilesState(Answer):
    """What the lab's files take."""

    blobs: int
    bytes: int
    quota_bytes: int


class Status(Answer):
    """What the lab is and does."""

    pid: int
    version: str
    lab: str
    ready: bool
    web: Annotated[str | None, Field(description="where the page is")]
    uptime_s: float
    mads: list[Mad]
    runs: dict[str, int]
    sandboxes: list[Sandbox]
    journal: JournalState
    vault: Vault
    incidents: int
    dead_letters: list[DeadLetter]
    approvals: int
    files: FilesState
    memory_bytes: int


class Verified(Answer):
    """What a check of the journal found."""

    ok: bool
    entries: int
    head: str
    chain_intact: bool
    bodies_present: int
    bodies_archived: int
    bodies_removed: int
    bodies_missing: int
    bodies_altered: int
    proofs_broken: int
    tail_intact: bool
    problems: list[str]


class Refusal(Answer):
    """What is wrong, and the next step."""

    code: str
    message: str
    next: str


class Refused(Answer):
    """Every answer of 400 and above."""

    error: Refusal
