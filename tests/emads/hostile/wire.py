"""Acts against the gate: what a worker can say that it should not, in gRPC, in HTTP/2 frames, and in plain bytes.

Each act opens a connection of its own beside the honest one, does its worst, and says the codes that came back. The
credential is the worker's own, found in its memory: nothing keeps a hostile MAD from having it.
"""

import json
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from anyio import create_task_group, fail_after, move_on_after, sleep, to_thread

from protos.ids import new_id
from protos.remote.bus import RemoteBus
from protos.tools import Call
from protos.v1.bus_pb2 import (
    AcknowledgeReply,
    AcknowledgeRequest,
    Delivery,
    HistoryReply,
    HistoryRequest,
    PublishReply,
    PublishRequest,
    ReportReply,
    ReportRequest,
    SubscribeRequest,
)
from protos.v1.files_pb2 import Chunk, FindRequest, GetRequest, PutRequest
from protos.v1.message_pb2 import KIND_CALL, KIND_EVENT, KIND_PROSE, KIND_REPLY, KIND_UNSPECIFIED, Blob, Kind, Message
from protos.v1.session_pb2 import AttachRequest, Directive, FinishReply, FinishRequest, HeartbeatReply, HeartbeatRequest

GATE = "/run/madlab/gate.sock"
PATIENCE_S = 30.0
CHUNK = b"x" * (256 * 1024)
Metadata = Sequence[tuple[str, str]]
UNBOUNDED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


def raw(request: Any) -> bytes:
    """A message as it is; bytes as they are."""
    return request if isinstance(request, bytes) else bytes(request.SerializeToString())


class Wire:
    """What a worker has, without the manners of its library."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.assignment = call.ctx.assignment
        bus = call.ctx.bus
        assert isinstance(bus, RemoteBus)
        self.token = bus._session._token
        self.credential = bus._session._credential

    @property
    def proof(self) -> Metadata:
        return (("authorization", f"Bearer {self.credential}"),)

    def message(self, kind: Kind.ValueType, **fields: Any) -> Message:
        """One that would be allowed, but for what `fields` change."""
        message: dict[str, Any] = {"id": new_id(), "conversation": self.assignment.conversation, "kind": kind}
        return Message(**message | fields)

    def prose(self, text: str, **fields: Any) -> Message:
        return self.message(KIND_PROSE, text=text, **fields)

    @asynccontextmanager
    async def channel(self, *options: tuple[str, Any]) -> AsyncIterator[grpc.aio.Channel]:
        # A pool of its own, else two channels to one address are one connection.
        own = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0), *UNBOUNDED, *options)
        async with grpc.aio.insecure_channel(f"unix:{GATE}", options=own) as channel:
            yield channel

    async def ask(
        self,
        method: str,
        request: Any,
        reply: Any,
        *,
        proof: Metadata | None = None,
        on: grpc.aio.Channel | None = None,
    ) -> str:
        """Makes one call; the code that came back, and the sentence with it."""
        if on is None:
            async with self.channel() as channel:
                return await self.ask(method, request, reply, proof=proof, on=channel)
        make = on.unary_unary(f"/madlab.v1.{method}", request_serializer=raw, response_deserializer=reply.FromString)
        return await code_of(make(request, metadata=self.proof if proof is None else proof, timeout=PATIENCE_S))

    async def publish(self, message: Any, **more: Any) -> str:
        request = message if isinstance(message, bytes) else PublishRequest(message=message)
        return await self.ask("Bus/Publish", request, PublishReply, **more)

    async def history(self, conversation: str, **more: Any) -> str:
        return await self.ask("Bus/History", HistoryRequest(conversation=conversation), HistoryReply, **more)

    async def heartbeat(self, **more: Any) -> str:
        return await self.ask("Session/Heartbeat", HeartbeatRequest(), HeartbeatReply, **more)

    async def finish(self, **fields: Any) -> str:
        return await self.ask("Session/Finish", FinishRequest(**fields), FinishReply)

    async def report(self, *events: Message, **more: Any) -> str:
        async def requests() -> AsyncIterator[ReportRequest]:
            yield ReportRequest(events=events)

        return await self.stream_in("Bus/Report", requests(), ReportReply, **more)

    async def stream_in(
        self, method: str, requests: AsyncIterator[Any], reply: Any, *, on: grpc.aio.Channel | None = None
    ) -> str:
        if on is None:
            async with self.channel() as channel:
                return await self.stream_in(method, requests, reply, on=channel)
        make = on.stream_unary(f"/madlab.v1.{method}", request_serializer=raw, response_deserializer=reply.FromString)
        return await code_of(make(requests, metadata=self.proof, timeout=PATIENCE_S))

    async def stream_out(
        self, method: str, request: Any, reply: Any, *, most: int = 1, proof: Metadata | None = None
    ) -> str:
        """How a stream begins: its first messages, or the code it ended with."""
        async with self.channel() as channel:
            make = channel.unary_stream(
                f"/madlab.v1.{method}", request_serializer=raw, response_deserializer=reply.FromString
            )
            stream = make(request, metadata=self.proof if proof is None else proof, timeout=PATIENCE_S)
            seen = 0
            try:
                async for _ in stream:
                    seen += 1
                    if seen >= most:
                        return f"OK {seen}"
            except grpc.aio.AioRpcError as error:
                return f"{error.code().name}: {error.details()}"
            return f"END {seen}"

    async def get(self, digest: str) -> str:
        return await self.stream_out("Files/Get", GetRequest(digest=digest), Chunk)

    async def put(self, *parts: PutRequest) -> str:
        async def requests() -> AsyncIterator[PutRequest]:
            for each in parts:
                yield each

        return await self.stream_in("Files/Put", requests(), Blob)

    async def store(self, content: bytes) -> str:
        """The digest of something honestly stored."""

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(content), len(CHUNK)):
                yield content[start : start + len(CHUNK)]

        return (await self.call.ctx.files.put(chunks())).digest


async def code_of(call: Awaitable[Any]) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "OK"


# --- who it is


async def identities(wire: Wire, given: dict[str, Any]) -> Any:
    """Every way not to be who one says."""
    mine = wire.assignment.conversation

    def bearer(word: str) -> Metadata:
        return (("authorization", f"Bearer {word}"),)

    return {
        "no credential": await wire.history(mine, proof=()),
        "an empty credential": await wire.history(mine, proof=bearer("")),
        "a wrong credential": await wire.history(mine, proof=bearer("x" * 43)),
        "its hash": await wire.history(mine, proof=bearer(given["credential_hash"])),
        "the credential of another run": await wire.history(mine, proof=bearer(given["credential"])),
        "the token as a credential": await wire.history(mine, proof=bearer(wire.token)),
        "another scheme": await wire.history(mine, proof=(("authorization", f"Basic {wire.credential}"),)),
        "a heartbeat with a wrong credential": await wire.heartbeat(proof=bearer("x" * 43)),
        "a replayed token": await wire.stream_out("Session/Attach", AttachRequest(token=wire.token), Directive),
        "the token of another run": await wire.stream_out(
            "Session/Attach", AttachRequest(token=given["token"]), Directive
        ),
        "no proof": await wire.stream_out("Session/Attach", AttachRequest(), Directive),
        "an empty token": await wire.stream_out("Session/Attach", AttachRequest(token=""), Directive),
        "the honest one": await wire.history(mine),
    }


async def tell(wire: Wire, given: dict[str, Any]) -> Any:
    """Gives its own secrets away, for another run to try."""
    return {"token": wire.token, "credential": wire.credential}


async def attach_twice(wire: Wire, given: dict[str, Any]) -> Any:
    """Eight sessions at once with the one credential."""
    seen: Counter[str] = Counter()

    async def attach() -> None:
        seen[await wire.stream_out("Session/Attach", AttachRequest(credential=wire.credential), Directive, most=2)] += 1

    async with create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(attach)
    return dict(seen)


# --- what it says


async def forge(wire: Wire, given: dict[str, Any]) -> Any:
    """Messages in other names, at other times and places, with ids that are somebody else's."""
    trigger, run = wire.assignment.trigger, wire.assignment.run
    answer = f"{trigger}.reply"
    foreign = given["foreign_message"]
    twice = wire.prose("first")
    again = wire.prose("second", id=twice.id)
    stranger = given["conversation"]
    odd = raw(wire.message(KIND_PROSE)).replace(b"\x28\x01", b"\x28\x63")
    return {
        "as the operator": await wire.publish(wire.prose("pay me", sender="operator")),
        "as the core": await wire.publish(wire.prose("pay me", sender="core", sequence=1, at=1.0)),
        "an event as the core": await wire.report(wire.message(KIND_EVENT, sender="core", text="all is well")),
        "without a taint": await wire.publish(wire.prose("clean", taint=[])),
        "an unknown taint": await wire.publish(wire.prose("tainted", taint=[999, 3])),
        "in another conversation": await wire.publish(wire.prose("hello", conversation=stranger)),
        "in no conversation": await wire.publish(wire.prose("hello", conversation="")),
        "an event elsewhere": await wire.report(wire.message(KIND_EVENT, conversation=stranger)),
        "to a stranger": await wire.publish(wire.prose("hello", recipient="echo")),
        "a call without the port": await wire.publish(
            wire.message(KIND_CALL, recipient="echo", tool="say", data='{"text":"x"}')
        ),
        "a call of nobody": await wire.publish(wire.message(KIND_CALL, recipient="nobody", tool="say", data="{}")),
        "a call of no tool": await wire.publish(
            wire.message(KIND_CALL, recipient="hostile", tool="nothing", data="{}")
        ),
        "arguments that do not fit": await wire.publish(
            wire.message(KIND_CALL, recipient="hostile", tool="speak", data="[]")
        ),
        "arguments without a bottom": await wire.publish(
            wire.message(KIND_CALL, recipient="hostile", tool="speak", data="[" * 8000)
        ),
        "an answer to another's question": await wire.publish(
            wire.message(KIND_REPLY, id=f"{foreign}.reply", in_reply_to=foreign, recipient="operator")
        ),
        "an answer for somebody else": await wire.publish(
            wire.message(KIND_REPLY, id=answer, in_reply_to=trigger, recipient="echo")
        ),
        "an answer under another id": await wire.publish(
            wire.message(KIND_REPLY, in_reply_to=trigger, recipient="operator")
        ),
        "an answer to nothing": await wire.publish(wire.message(KIND_REPLY)),
        "prose in the answer's place": await wire.publish(wire.prose("squat", id=answer)),
        "an event in the answer's place": await wire.report(wire.message(KIND_EVENT, id=answer)),
        "an event in a file's place": await wire.report(wire.message(KIND_EVENT, id="file:advisories:1")),
        "an event in a run's place": await wire.report(wire.message(KIND_EVENT, id=f"run:{run}:requested")),
        "an event under an unknown word": await wire.report(wire.message(KIND_EVENT, id="x")),
        "prose reported": await wire.report(wire.prose("no event")),
        "another's id": await wire.publish(wire.prose("mine now", id=foreign)),
        "the trigger's id": await wire.publish(wire.prose("mine now", id=trigger)),
        "the same id": [await wire.publish(twice), await wire.publish(again)],
        "an upper-case id": await wire.publish(wire.prose("x", id=new_id().upper())),
        "no id": await wire.publish(wire.prose("x", id="")),
        "no kind": await wire.publish(wire.message(KIND_UNSPECIFIED, text="x")),
        "an unknown kind": await wire.publish(b"\x0a" + bytes((len(odd),)) + odd),
        "too many hops": await wire.publish(wire.prose("x", hops=33)),
        "hops without end": await wire.publish(wire.prose("x", hops=2**32 - 1)),
        "17 KiB": await wire.publish(wire.prose("x" * 17 * 1024)),
        "2 MiB": await wire.publish(wire.prose("x" * 2 * 1024 * 1024)),
        "a deadline that is no number": await wire.publish(wire.prose("x", deadline=float("nan"))),
        "a deadline without end": await wire.publish(wire.prose("x", deadline=float("inf"))),
        "at the end of time": await wire.publish(wire.prose("x", at=float("inf"))),
        "a blob of another conversation": await wire.publish(wire.prose("x", blobs=[Blob(digest=given["digest"])])),
        "ten thousand blobs": await wire.publish(
            wire.prose("x", blobs=[Blob(digest=f"sha256:{n:064x}") for n in range(10_000)])
        ),
        "history of another conversation": await wire.history(stranger),
        "history of none": await wire.history(""),
    }


async def hops(wire: Wire, given: dict[str, Any]) -> Any:
    """Calls itself and says that nothing led there: so a chain could go on for ever."""
    message = wire.message(
        KIND_CALL, recipient="hostile", tool="measure", data=json.dumps({"seconds": 0.0}), hops=0, causation=""
    )
    return {"id": message.id, "came": await wire.publish(message)}


async def control(wire: Wire, given: dict[str, Any]) -> Any:
    """Terminal codes, NUL, line ends and text that runs backwards, in every field that takes text."""
    nasty = "\x1b]0;owned\x07\x1b[2J\x00\r\n\u202e\u2028\ud7ff\x7f"
    digest = await wire.store(b"nasty")
    said = wire.prose(
        nasty,
        tool=nasty,
        causation=nasty,
        data=nasty,
        blobs=[Blob(digest=digest, name=nasty, media_type=nasty)],
    )
    event = wire.message(KIND_EVENT, text=nasty, tool=nasty, data=nasty)
    return {
        "prose": await wire.publish(said),
        "id": said.id,
        "event": await wire.report(event),
        "recipient": await wire.publish(wire.prose("x", recipient=nasty)),
        "put": await wire.put(PutRequest(about=Blob(name=nasty, media_type=nasty)), PutRequest(bytes=b"x")),
        "find": await wire.ask("Files/Find", FindRequest(name=nasty), Blob),
        "surrogates as bytes": await wire.publish(b"\x0a\x05\x62\x03\xed\xa0\x80"),
    }


DEEP = "[" * 900 + "]" * 900
JSONS = {
    "numbers that are none": '{"a": NaN, "b": Infinity, "c": 1e999}',
    "half a character": '{"a": "\\ud800"}',
    "no bottom": f'{{"a": {DEEP}}}',
}


async def say_json(wire: Wire, given: dict[str, Any]) -> Any:
    """JSON that Python reads and others do not, as the data of messages."""
    return {name: await wire.publish(wire.prose("x", data=text)) for name, text in JSONS.items()}


# --- what it reads and stores


async def files(wire: Wire, given: dict[str, Any]) -> Any:
    """Blobs of others, names of others, paths instead of names, and puts out of order."""
    about, piece = PutRequest(about=Blob(name="x")), PutRequest(bytes=b"x")
    own = await wire.store(b"mine")
    return {
        "a blob of another conversation": await wire.get(given["digest"]),
        "a blob that is not there": await wire.get("sha256:" + "0" * 64),
        "a path": await wire.get("sha256:../../../journal.db"),
        "an absolute path": await wire.get("/etc/passwd"),
        "no digest": await wire.get(""),
        "a long digest": await wire.get("sha256:" + "a" * 500_000),
        "an own blob from beyond its end": await wire.stream_out(
            "Files/Get", GetRequest(digest=own, offset=2**63), Chunk
        ),
        "a name it may not": await wire.ask("Files/Find", FindRequest(name="advisories"), Blob),
        "a path for a name": await wire.ask("Files/Find", FindRequest(name="../../lab"), Blob),
        "any name": await wire.ask("Files/Find", FindRequest(name="*"), Blob),
        "bytes first": await wire.put(piece),
        "nothing": await wire.put(),
        "about twice": await wire.put(about, piece, about),
        "an empty part": await wire.put(about, PutRequest()),
        "a piece of 2 MiB": await wire.put(about, PutRequest(bytes=b"x" * 2 * 1024 * 1024)),
        "a name of half a MiB": await wire.put(PutRequest(about=Blob(name="n" * 500_000)), piece),
        "own": await wire.get(own),
    }


async def endless_put(wire: Wire, given: dict[str, Any]) -> Any:
    """A stream that never ends."""

    async def requests() -> AsyncIterator[PutRequest]:
        yield PutRequest(about=Blob(name="endless"))
        while True:
            yield PutRequest(bytes=CHUNK)

    return await wire.stream_in("Files/Put", requests(), Blob)


async def many_puts(wire: Wire, given: dict[str, Any]) -> Any:
    """Sixteen puts at once, each of which alone would fit into what is left."""
    seen: Counter[str] = Counter()

    async def put(number: int, channel: grpc.aio.Channel) -> None:
        async def requests() -> AsyncIterator[PutRequest]:
            yield PutRequest(about=Blob(name="one of many"))
            for _ in range(12):
                yield PutRequest(bytes=number.to_bytes(4, "big") + CHUNK)

        seen[(await wire.stream_in("Files/Put", requests(), Blob, on=channel))] += 1

    async with wire.channel() as channel, create_task_group() as tasks:
        for number in range(16):
            tasks.start_soon(put, number, channel)
    return dict(seen)


async def read_again(wire: Wire, given: dict[str, Any]) -> Any:
    """Reads its one blob until it may not any more."""
    digest = await wire.store(b"y" * (2 * 1024 * 1024))
    seen: Counter[str] = Counter()
    async with wire.channel() as channel:
        make = channel.unary_stream(
            "/madlab.v1.Files/Get", request_serializer=raw, response_deserializer=Chunk.FromString
        )
        for _ in range(12):
            try:
                async for _ in make(GetRequest(digest=digest), metadata=wire.proof, timeout=PATIENCE_S):
                    pass
                seen["OK"] += 1
            except grpc.aio.AioRpcError as error:
                seen[error.code().name] += 1
    return dict(seen)


async def acknowledge(wire: Wire, given: dict[str, Any]) -> Any:
    """Says that it has handled everything there ever will be."""
    return [
        await wire.ask("Bus/Acknowledge", AcknowledgeRequest(sequence=each), AcknowledgeReply)
        for each in (0, 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
    ]


async def subscribe_flood(wire: Wire, given: dict[str, Any]) -> Any:
    """Subscribes again and again without reading."""
    seen: Counter[str] = Counter()

    async def subscribe() -> None:
        seen[(await wire.stream_out("Bus/Subscribe", SubscribeRequest(), Delivery, most=10**6)).partition(":")[0]] += 1

    with move_on_after(3) as patience:
        async with create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(subscribe)
            while seen.total() < 199:  # the last is ended by nobody
                await sleep(0.02)
            patience.cancel()
    after = ""
    with move_on_after(10):  # there is room for one more as soon as the core has seen the others close
        while not (after := await wire.heartbeat()).startswith("OK"):
            await sleep(0.05)
    return {"seen": dict(seen), "after": after}


# --- how it ends


async def finish(wire: Wire, given: dict[str, Any]) -> Any:
    """An end in words that are not a worker's to say. The honest end, later, changes nothing."""
    answer: list[str] = []
    async with create_task_group() as tasks:

        async def send() -> None:
            answer.append(
                await wire.finish(
                    outcome=given.get("outcome", 1),
                    reason=given.get("reason", ""),
                    evidence=given.get("evidence", "{}"),
                    artifacts=[Blob(**each) for each in given.get("artifacts", [])],
                )
            )

        tasks.start_soon(send)
    return answer


async def oversized_evidence(wire: Wire, given: dict[str, Any]) -> Any:
    """Evidence of 10 MB, of half a MB, and of what is no JSON object."""
    return [await wire.finish(outcome=1, evidence=json.dumps({"a": "x" * size})) for size in (10_000_000, 500_000)] + [
        await wire.finish(outcome=1, evidence=text) for text in ("[]", "{", "null", "\x00", *JSONS.values())
    ]


# --- malformed


async def malformed(wire: Wire, given: dict[str, Any]) -> Any:
    """Calls that are no calls of ours."""
    bomb = (("grpc.default_compression_algorithm", 2), ("grpc.default_compression_level", 3))
    async with wire.channel(*bomb) as channel:
        make = channel.unary_unary(
            "/madlab.v1.Bus/Publish", request_serializer=raw, response_deserializer=PublishReply.FromString
        )
        inflated = await code_of(
            make(b"\0" * 50_000_000, metadata=wire.proof, timeout=PATIENCE_S, compression=grpc.Compression.Gzip)
        )
    large = (*wire.proof, ("x-large", "x" * 60_000))
    many = (*wire.proof, *((f"x-{n}", "y" * 100) for n in range(500)))
    return {
        "no protobuf": await wire.publish(b"\xff" * 1000),
        "a length without an end": await wire.publish(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
        "a group without a bottom": await wire.publish(b"\x0b" * 100_000),
        "an unknown method": await wire.ask("Bus/Own", b"", PublishReply),
        "an unknown service": await wire.ask("Core/Own", b"", PublishReply),
        "50 MB packed into 50 KB": inflated,
        "a large metadata value": await wire.heartbeat(proof=large),
        "many metadata values": await wire.heartbeat(proof=many),
        "after": await wire.heartbeat(),
    }


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, body: bytes = b"", *, length: int | None = None) -> bytes:
    """One HTTP/2 frame, with a length that need not be true."""
    size = len(body) if length is None else length
    return struct.pack(">I", size)[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + body


def headers(stream: int, *, end: bool = True, path: bytes = b"/madlab.v1.Bus/History") -> bytes:
    """The head of a call, without a proof, in literals."""
    pairs = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"x"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
    block = b"".join(b"\x00" + bytes((len(k),)) + k + bytes((len(v),)) + v for k, v in pairs)
    return frame(1, 4 | (1 if end else 0), stream, block)


SETTINGS = PREFACE + frame(4, 0, 0)
FRAMES: dict[str, Callable[[], Iterable[bytes]]] = {
    "noise": lambda: [bytes(range(256)) * 400],
    "nothing, then noise": lambda: [b"", b"\0" * 70_000],
    "HTTP/1.1": lambda: [b"GET / HTTP/1.1\r\nHost: core\r\n\r\n"],
    "TLS": lambda: [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500],
    "half a preface": lambda: [PREFACE[:10]],
    "a frame of 16 MB": lambda: [SETTINGS + frame(0, 0, 1, b"x" * 1000, length=0xFFFFFF), *[CHUNK] * 64],
    "data on a stream that is not open": lambda: [SETTINGS + frame(0, 0, 99, b"x")],
    "an even stream": lambda: [SETTINGS + headers(2)],
    "headers that are no HPACK": lambda: [SETTINGS + frame(1, 5, 1, b"\xff" * 200)],
    "continuations without end": lambda: [
        SETTINGS + headers(1).replace(b"\x01\x05", b"\x01\x01", 1),
        *[frame(9, 0, 1, b"\x00\x01a\x7f\x01" + b"b" * 127) * 50 for _ in range(2000)],
    ],
    "pings without end": lambda: [SETTINGS, *[frame(6, 0, 0, b"12345678") * 100 for _ in range(500)]],
    "settings without end": lambda: [
        SETTINGS,
        *[frame(4, 0, 0, b"\x00\x04\x00\x00\xff\xff") * 100 for _ in range(500)],
    ],
    "resets without end": lambda: [
        SETTINGS,
        *[headers(n) + frame(3, 0, n, b"\x00\x00\x00\x08") for n in range(1, 20_001, 2)],
    ],
    "a window beyond its end": lambda: [SETTINGS + frame(8, 0, 0, b"\x7f\xff\xff\xff") * 3],
    "a stream that depends on itself": lambda: [SETTINGS + frame(2, 0, 1, b"\x00\x00\x00\x01\x10")],
    "streams without end": lambda: [SETTINGS, *[headers(n, end=False) for n in range(1, 10_001, 2)]],
}


async def frames(wire: Wire, given: dict[str, Any]) -> Any:
    """HTTP/2 that breaks its own rules, one connection each; after each, whether an honest call is answered."""
    came = {}
    for name, make in FRAMES.items():
        said = await to_thread.run_sync(_throw, list(make()))
        came[name] = [said, await _heard_again(wire)]
    return came


async def _heard_again(wire: Wire) -> str:
    """A heartbeat's answer, when the calls of the connection before have ended: they count among this worker's."""
    with move_on_after(PATIENCE_S):
        while (answer := await wire.heartbeat()).startswith("RESOURCE_EXHAUSTED"):
            await sleep(0.05)
    return answer


def _throw(pieces: Iterable[bytes]) -> str:
    """Sends everything, or as much as is taken; then whether the other side hung up."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(0.5)
        line.connect(GATE)
        sent = 0
        try:
            for each in pieces:
                line.sendall(each)
                sent += len(each)
            line.settimeout(0.1)
            while line.recv(65536):
                pass
        except TimeoutError:
            return f"silence after {sent}"
        except OSError as error:
            return f"{type(error).__name__} after {sent}"
        return f"closed after {sent}"


async def slow(wire: Wire, given: dict[str, Any]) -> Any:
    """As many connections as it can hold, each of which says almost nothing, and holds on."""
    held: list[socket.socket] = []
    try:
        for number in range(3000):
            line = socket.socket(socket.AF_UNIX)
            line.setblocking(False)
            try:
                line.connect(GATE)
                line.send(PREFACE[: number % 24])
            except BlockingIOError:
                line.close()
                await sleep(0.01)
                continue
            except OSError:
                line.close()
                continue
            held.append(line)
        came = await wire.heartbeat(on=None) if given.get("fresh") else ""
        with fail_after(20):
            await wire.call.progress("still here")
            sequence = await wire.call.ctx.bus.publish(wire.prose("the honest connection goes on"))
        await sleep(given.get("hold_s", 0))
        return {"tried": 3000, "held": len(held), "fresh": came, "honest": sequence}
    finally:
        for each in held:
            each.close()


async def many_streams(wire: Wire, given: dict[str, Any]) -> Any:
    """Two thousand calls at once on one connection."""
    seen: Counter[str] = Counter()
    async with wire.channel() as channel:

        async def ask() -> None:
            seen[(await wire.heartbeat(on=channel)).partition(":")[0]] += 1

        async with create_task_group() as tasks:
            for _ in range(2000):
                tasks.start_soon(ask)
    return {"seen": dict(seen), "after": await wire.heartbeat()}


# --- floods


async def flood(wire: Wire, given: dict[str, Any]) -> Any:
    """One kind of call as fast as it goes, 48 at a time, for some seconds."""
    seen: Counter[str] = Counter()
    make = FLOODS[given["of"]]
    async with wire.channel() as channel:

        async def again() -> None:
            while True:
                seen[(await make(wire, channel)).partition(":")[0]] += 1

        with move_on_after(given["seconds"]):
            async with create_task_group() as tasks:
                for _ in range(48):
                    tasks.start_soon(again)
    return dict(seen)


async def _flood_report(wire: Wire, channel: grpc.aio.Channel) -> str:
    """Ten thousand small events in one request."""
    conversation = wire.assignment.conversation
    events = [Message(id=new_id(), conversation=conversation, kind=KIND_EVENT) for _ in range(10_000)]

    async def requests() -> AsyncIterator[ReportRequest]:
        yield ReportRequest(events=events)

    return await wire.stream_in("Bus/Report", requests(), ReportReply, on=channel)


async def _flood_get(wire: Wire, channel: grpc.aio.Channel) -> str:
    """An act in the journal for each."""
    make = channel.unary_stream("/madlab.v1.Files/Get", request_serializer=raw, response_deserializer=Chunk.FromString)
    wire_digest = getattr(wire, "digest", "") or await wire.store(b"small")
    wire.digest = wire_digest  # type: ignore[attr-defined]
    try:
        async for _ in make(GetRequest(digest=wire_digest), metadata=wire.proof, timeout=PATIENCE_S):
            pass
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "OK"


def _ask(method: str, make: Callable[[Wire], Any], reply: Any) -> Callable[[Wire, grpc.aio.Channel], Awaitable[str]]:
    return lambda wire, channel: wire.ask(method, make(wire), reply, on=channel)


def _history(wire: Wire) -> HistoryRequest:
    return HistoryRequest(conversation=wire.assignment.conversation, limit=2**32 - 1)


FLOODS: dict[str, Callable[[Wire, grpc.aio.Channel], Awaitable[str]]] = {
    "heartbeats": _ask("Session/Heartbeat", lambda wire: HeartbeatRequest(), HeartbeatReply),
    "small messages": _ask("Bus/Publish", lambda wire: PublishRequest(message=wire.prose("x")), PublishReply),
    "large messages": _ask("Bus/Publish", lambda wire: PublishRequest(message=wire.prose("x" * 16_000)), PublishReply),
    "messages to a stranger": _ask(
        "Bus/Publish", lambda wire: PublishRequest(message=wire.prose("x", recipient="stranger")), PublishReply
    ),
    "messages with 12,000 blobs": _ask(
        "Bus/Publish",
        lambda wire: PublishRequest(message=wire.prose("x", blobs=[Blob(digest="sha256:" + "0" * 64)] * 12_000)),
        PublishReply,
    ),
    "calls with a megabyte of arguments": _ask(
        "Bus/Publish",
        lambda wire: PublishRequest(
            message=wire.message(
                KIND_CALL,
                recipient="hostile",
                tool="speak",
                data='{"name":"x","given":{"a":[' + "0," * 400_000 + "0]}}",
            )
        ),
        PublishReply,
    ),
    "calls that are none": _ask("Bus/Publish", lambda wire: b"\xff" * 100, PublishReply),
    "history": _ask("Bus/History", _history, HistoryReply),
    "events": _flood_report,
    "reads": _flood_get,
}

ACTS: dict[str, Callable[[Wire, dict[str, Any]], Awaitable[Any]]] = {
    each.__name__: each
    for each in (
        identities,
        tell,
        attach_twice,
        forge,
        hops,
        control,
        say_json,
        files,
        endless_put,
        many_puts,
        read_again,
        acknowledge,
        subscribe_flood,
        finish,
        oversized_evidence,
        malformed,
        frames,
        slow,
        many_streams,
        flood,
    )
}
