"""A model server of ours on loopback, which plays models good and bad over real HTTP, in both makers' protocols.

A *play* says what the model says and how the server misbehaves while it is said. The same play is rendered as OpenAI
or as Anthropic speaks, streamed or whole, by what the client asked for, so that one test body can try them all.
The server keeps what it was sent, and a bill: how many tokens it really took in and made, whatever it told.
"""

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
from anyio import create_task_group, create_tcp_listener, sleep, sleep_forever
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.servers.responses import Responses

TOKEN_CHARACTERS = 4


@dataclass(frozen=True)
class Play:
    """What the model says to one request, and what goes wrong meanwhile."""

    text: str = "Hello there."
    reasoning: str = ""
    signature: str = ""  # of the reasoning; Anthropic's protocol only
    refusal: str = ""  # OpenAI's protocol only
    calls: Sequence[tuple[str, str]] = ()  # tool calls: name, and arguments as the model writes them
    call_id: str = "call"  # what their ids begin with
    finish: Literal["", "stop", "length", "filter"] = ""  # "": what fits
    stop_sequence: str = ""

    usage: Literal["told", "missing", "wrong", "zero", "every"] = "told"
    cached: int = 0  # of the input tokens
    hidden: int = 0  # output tokens of reasoning that is not shown

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None  # the body of an error, else a usual one
    first_byte_s: float = 0
    pause_s: float = 0  # between two pieces
    drip: bool = False  # every byte is a write of its own
    drip_s: float = 0  # between two bytes
    cut: Literal["", "character", "call", "middle", "before the end", "before usage"] = ""
    politely: bool = False  # a cut looks like the end of the answer, not like a broken connection
    error_event: str = ""  # after the first piece, inside the 200: "overloaded", "invalid", "status"
    hang: Literal["", "at once", "middle", "after the end"] = ""
    garbage: bytes = b""  # instead of an answer

    @property
    def tokens(self) -> list[str]:
        """The text as the model makes it."""
        return [self.text[at : at + TOKEN_CHARACTERS] for at in range(0, len(self.text), TOKEN_CHARACTERS)]

    @property
    def output_tokens(self) -> int:
        """What the model makes for all of it."""
        said = len(self.text) + len(self.reasoning) + sum(len(name + arguments) for name, arguments in self.calls)
        return -(-said // TOKEN_CHARACTERS) + self.hidden


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        """The JSON."""
        return json.loads(self.content)

    @property
    def input_tokens(self) -> int:
        """What the model takes in: about one token for four bytes, pictures aside."""
        return len(self.content) // TOKEN_CHARACTERS + 1


Script = Callable[[Request], Play]


@dataclass
class ModelServer:
    """A running server."""

    script: Script
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    bill: list[tuple[int, int]] = field(default_factory=list)  # input and output tokens of each answer, really
    open_now: int = 0
    open_most: int = 0

    @property
    def openai(self) -> str:
        """The address for clients of OpenAI's protocol."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def anthropic(self) -> str:
        """The address for clients of Anthropic's."""
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, stream: SocketStream) -> None:
        """Serves one connection, request after request."""
        async with stream:
            received = BufferedByteReceiveStream(stream)
            while True:
                try:
                    request = await read_request(received)
                    self.requests.append(request)
                    self.open_now += 1
                    self.open_most = max(self.open_most, self.open_now)
                    try:
                        if not await self._answer(request, stream):
                            return
                    finally:
                        self.open_now -= 1
                except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return

    async def _answer(self, request: Request, stream: SocketStream) -> bool:
        """Whether the connection can be used again."""
        if request.path.endswith("/models"):
            return await _send(stream, 200, _models(request, "scripted", "other"))
        play = self.script(request)
        if play.first_byte_s:
            await sleep(play.first_byte_s)
        if play.hang == "at once":
            await sleep_forever()
        if play.garbage:
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
            await stream.send(head % len(play.garbage) + play.garbage)
            return True
        if play.status != 200:
            kind = "anthropic" if request.path.endswith("/messages") else "openai"
            return await _send(stream, play.status, play.error or _error(kind, play.status), play.headers)
        if request.path.endswith("/embeddings"):
            self.bill.append((request.input_tokens, 0))
            return await _send(stream, 200, _embeddings(request, play))
        spoken = _spoken(request, play)
        if not request.body.get("stream"):
            self.bill.append((request.input_tokens, play.output_tokens))
            return await _send(stream, 200, spoken.whole(), cut=bool(play.cut))
        return await self._stream(request, play, spoken, stream)

    async def _stream(self, request: Request, play: Play, spoken: "Spoken", stream: SocketStream) -> bool:
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
        await stream.send((head + "".join(f"{k}: {v}\r\n" for k, v in play.headers.items()) + "\r\n").encode())
        made = play.hidden
        place = len(self.bill)
        self.bill.append((request.input_tokens, made))
        pieces, ended = _cut(list(spoken.events()), play)
        for index, (event, tokens) in enumerate(pieces):
            made += tokens
            self.bill[place] = (request.input_tokens, made)  # made before it is sent: that is what is billed
            for part in [event[at : at + 1] for at in range(len(event))] if play.drip else [event]:
                await stream.send(b"%x\r\n%s\r\n" % (len(part), part))
                if play.drip_s:
                    await sleep(play.drip_s)
            if play.pause_s:
                await sleep(play.pause_s)
            if play.hang == "middle" and index >= len(pieces) // 2:
                await sleep_forever()
        if play.hang == "after the end":
            await sleep_forever()
        if ended:
            self.bill[place] = (request.input_tokens, play.output_tokens)  # counted once more, as in a whole answer
        if ended or play.politely:
            await stream.send(b"0\r\n\r\n")
            return True
        return False


@asynccontextmanager
async def model_server(script: Script | Sequence[Play] | Play | None = None) -> AsyncIterator[ModelServer]:
    """A server on a free port. Plays are played one after another, the last again and again."""
    async with await create_tcp_listener(local_host="127.0.0.1") as listener, create_task_group() as tasks:
        server = ModelServer(_script(script), listener.extra(SocketAttribute.local_port))
        tasks.start_soon(listener.serve, server.handle)
        yield server
        tasks.cancel_scope.cancel()


def _script(script: Script | Sequence[Play] | Play | None) -> Script:
    if callable(script):
        return script
    plays = [script] if isinstance(script, Play) else list(script or [Play()])

    def next_play(_: Request) -> Play:
        return plays.pop(0) if len(plays) > 1 else plays[0]

    return next_play


async def read_request(stream: BufferedByteReceiveStream) -> Request:
    """The next request of a connection.

    Raises:
        anyio.EndOfStream, anyio.IncompleteRead: there is none.
    """
    head = (await stream.receive_until(b"\r\n\r\n", 65536)).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    if headers.get("transfer-encoding") == "chunked":
        content = b""
        while size := int(await stream.receive_until(b"\r\n", 100), 16):
            content += await stream.receive_exactly(size)
            await stream.receive_until(b"\r\n", 10)
        await stream.receive_until(b"\r\n", 10)
    else:
        length = int(headers.get("content-length", 0))
        content = await stream.receive_exactly(length) if length else b""
    return Request(method, path, headers, content)


async def _send(
    stream: SocketStream, status: int, body: Any, headers: Mapping[str, str] | None = None, *, cut: bool = False
) -> bool:
    content = json.dumps(body, ensure_ascii=False).encode()
    lines = {"content-type": "application/json", "content-length": str(len(content))} | dict(headers or {})
    head = f"HTTP/1.1 {status} Status\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    await stream.send(head.encode() + content[: len(content) // 2 if cut else None])
    return not cut


def _cut(pieces: list[tuple[bytes, int]], play: Play) -> tuple[list[tuple[bytes, int]], bool]:
    """What of an answer is sent, and whether that is all of it."""
    if play.cut == "character":
        for index, (event, tokens) in enumerate(pieces):
            for at, byte in enumerate(event):
                if byte >= 0xC0:
                    return [*pieces[:index], (event[: at + 1], tokens)], False
        raise AssertionError("the play has no character of several bytes")
    if play.cut == "call":
        places = [index for index, (event, _) in enumerate(pieces) if b"arguments" in event or b"partial_json" in event]
        return pieces[: places[len(places) // 2]], False
    if play.cut == "middle":
        return pieces[: len(pieces) // 2], False
    if play.cut in ("before the end", "before usage"):
        marks = [b'finish_reason": "', b'stop_reason": "'] if play.cut == "before the end" else [b"prompt_tokens"]
        place = next((i for i, (event, _) in enumerate(pieces) if any(mark in event for mark in marks)), len(pieces))
        return pieces[:place], False
    return pieces, True


def _told(request: Request, play: Play) -> tuple[int, int] | None:
    match play.usage:
        case "missing":
            return None
        case "wrong":
            return 10**9, 10**9
        case "zero":
            return 0, 0
    return request.input_tokens, play.output_tokens


def _shreds(text: str) -> Iterator[str]:
    for at in range(0, len(text), 7):
        yield text[at : at + 7]


class _OpenAI:
    """Chat completions."""

    def __init__(self, request: Request, play: Play) -> None:
        self.request, self.play = request, play
        self.about = {"id": "chatcmpl-1", "created": 1, "model": request.body.get("model", "")}

    def events(self) -> Iterator[tuple[bytes, int]]:
        play = self.play
        yield self._chunk({"role": "assistant", "content": ""})
        if play.error_event:
            yield self._chunk({"content": play.tokens[0]}, tokens=1)
            yield self._event({"error": _error_event(play.error_event, "openai")})
            return
        for shred in _shreds(play.reasoning):
            yield self._chunk({"reasoning_content": shred}, tokens=2)
        for token in play.tokens:
            yield self._chunk({"content": token}, tokens=1)
        if play.refusal:
            yield self._chunk({"refusal": play.refusal}, tokens=1)
        for index, (name, arguments) in enumerate(play.calls):
            function = {"name": name, "arguments": ""}
            call = {"index": index, "id": f"{play.call_id}_{index}", "type": "function", "function": function}
            yield self._chunk({"tool_calls": [call]}, tokens=len(name) // TOKEN_CHARACTERS + 1)
            for shred in _shreds(arguments):
                yield self._chunk({"tool_calls": [{"index": index, "function": {"arguments": shred}}]}, tokens=2)
        yield self._chunk({}, finish=self._finish())
        told = _told(self.request, play)
        if told is not None and self.request.body.get("stream_options", {}).get("include_usage"):
            yield self._event({"choices": [], "usage": self._usage(told)})
        yield b"data: [DONE]\n\n", 0

    def whole(self) -> dict[str, Any]:
        play = self.play
        if play.error_event:
            return {"error": _error_event(play.error_event, "openai")}
        message: dict[str, Any] = {"role": "assistant", "content": play.text or None}
        if play.reasoning:
            message["reasoning_content"] = play.reasoning
        if play.refusal:
            message["refusal"] = play.refusal
        if play.calls:
            message["tool_calls"] = [
                {
                    "id": f"{play.call_id}_{index}",
                    "type": "function",
                    "function": {"name": name, "arguments": arguments},
                }
                for index, (name, arguments) in enumerate(play.calls)
            ]
        choice = {"index": 0, "message": message, "finish_reason": self._finish()}
        answer = {**self.about, "object": "chat.completion", "choices": [choice]}
        told = _told(self.request, play)
        return answer | ({"usage": self._usage(told)} if told is not None else {})

    def _chunk(self, delta: dict[str, Any], *, finish: str | None = None, tokens: int = 0) -> tuple[bytes, int]:
        chunk: dict[str, Any] = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        if self.play.usage == "every" and (told := _told(self.request, self.play)) is not None:
            chunk["usage"] = self._usage((told[0], 1))
        return self._event(chunk)[0], tokens

    def _event(self, body: dict[str, Any]) -> tuple[bytes, int]:
        line = json.dumps({**self.about, "object": "chat.completion.chunk", **body}, ensure_ascii=False)
        return f"data: {line}\n\n".encode(), 0

    def _finish(self) -> str:
        play = self.play
        default = "tool_calls" if play.calls else "stop"
        return {"": default, "filter": "content_filter"}.get(play.finish, play.finish)

    def _usage(self, told: tuple[int, int]) -> dict[str, Any]:
        return {
            "prompt_tokens": told[0],
            "completion_tokens": told[1],
            "total_tokens": sum(told),
            "prompt_tokens_details": {"cached_tokens": self.play.cached},
            "completion_tokens_details": {"reasoning_tokens": self.play.hidden},
        }


class _Anthropic:
    """Messages."""

    def __init__(self, request: Request, play: Play) -> None:
        self.request, self.play = request, play

    def events(self) -> Iterator[tuple[bytes, int]]:
        play = self.play
        told = _told(self.request, play)
        about = self._about() | {"content": [], "stop_reason": None, "stop_sequence": None}
        about["usage"] = self._usage((told[0], 1)) if told is not None else None
        yield self._event("message_start", message=about)
        yield self._event("ping")
        if play.error_event:
            yield self._event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            piece = {"type": "text_delta", "text": play.tokens[0]}
            yield self._event("content_block_delta", tokens=1, index=0, delta=piece)
            yield self._event("error", error=_error_event(play.error_event, "anthropic"))
            return
        for index, (block, pieces) in enumerate(self._blocks()):
            yield self._event("content_block_start", index=index, content_block=block)
            for piece, tokens in pieces:
                yield self._event("content_block_delta", tokens=tokens, index=index, delta=piece)
            yield self._event("content_block_stop", index=index)
        delta = {"stop_reason": self._finish(), "stop_sequence": play.stop_sequence or None}
        yield self._event("message_delta", delta=delta, usage={"output_tokens": told[1]} if told is not None else None)
        yield self._event("message_stop")

    def whole(self) -> dict[str, Any]:
        play = self.play
        if play.error_event:
            return {"type": "error", "error": _error_event(play.error_event, "anthropic")}
        content: list[dict[str, Any]] = []
        if play.reasoning:
            content.append({"type": "thinking", "thinking": play.reasoning, "signature": play.signature})
        if play.text:
            content.append({"type": "text", "text": play.text})
        for index, (name, arguments) in enumerate(play.calls):
            try:
                made = json.loads(arguments)
            except ValueError:
                made = arguments  # whole answers of this protocol cannot hold broken JSON; a string is as wrong
            content.append({"type": "tool_use", "id": f"{play.call_id}_{index}", "name": name, "input": made})
        answer = self._about() | {"content": content, "stop_reason": self._finish()}
        told = _told(self.request, play)
        usage = self._usage(told) if told is not None else None
        return answer | {"stop_sequence": play.stop_sequence or None, "usage": usage}

    def _about(self) -> dict[str, Any]:
        return {"id": "msg_1", "type": "message", "role": "assistant", "model": self.request.body.get("model", "")}

    def _blocks(self) -> Iterator[tuple[dict[str, Any], Iterator[tuple[dict[str, Any], int]]]]:
        play = self.play
        if play.reasoning:
            yield {"type": "thinking", "thinking": "", "signature": ""}, self._thought()
        if play.text:
            tokens = (({"type": "text_delta", "text": token}, 1) for token in play.tokens)
            yield {"type": "text", "text": ""}, tokens
        for index, (name, arguments) in enumerate(play.calls):
            shreds = (({"type": "input_json_delta", "partial_json": shred}, 2) for shred in _shreds(arguments))
            yield {"type": "tool_use", "id": f"{play.call_id}_{index}", "name": name, "input": {}}, shreds

    def _thought(self) -> Iterator[tuple[dict[str, Any], int]]:
        for shred in _shreds(self.play.reasoning):
            yield {"type": "thinking_delta", "thinking": shred}, 2
        yield {"type": "signature_delta", "signature": self.play.signature}, 0

    def _event(self, kind: str, *, tokens: int = 0, **body: Any) -> tuple[bytes, int]:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **body}, ensure_ascii=False)}\n\n".encode(), tokens

    def _finish(self) -> str:
        play = self.play
        default = "tool_use" if play.calls else "stop_sequence" if play.stop_sequence else "end_turn"
        return {"": default, "stop": "end_turn", "length": "max_tokens", "filter": "refusal"}[play.finish]

    def _usage(self, told: tuple[int, int]) -> dict[str, Any]:
        return {
            "input_tokens": max(told[0] - self.play.cached, 0),
            "cache_read_input_tokens": self.play.cached,
            "cache_creation_input_tokens": 0,
            "output_tokens": told[1],
        }


Spoken = _OpenAI | _Anthropic | Responses


def _spoken(request: Request, play: Play) -> Spoken:
    if request.path.endswith("/responses"):
        return Responses(request, play, _told(request, play))
    return _Anthropic(request, play) if request.path.endswith("/messages") else _OpenAI(request, play)


def _models(request: Request, *names: str) -> dict[str, Any]:
    if "anthropic-version" not in request.headers:
        about = {"object": "model", "created": 1, "owned_by": "tests"}
        return {"object": "list", "data": [{"id": each, **about} for each in names]}
    told: dict[str, Any] = {"type": "model", "created_at": "2026-01-01T00:00:00Z", "lifecycle": "active"}
    told |= {"max_input_tokens": 100_000, "max_tokens": 8_000}
    data = [{"id": each, "display_name": each, **told} for each in names]
    return {"data": data, "first_id": names[0], "last_id": names[-1], "has_more": False}


def _embeddings(request: Request, play: Play) -> dict[str, Any]:
    inputs = request.body["input"]
    size = request.body.get("dimensions") or 8
    data = []
    for index, each in enumerate(inputs):
        known = base64.b16encode(each.encode()).decode().ljust(size, "0")
        data.append({"object": "embedding", "index": index, "embedding": [int(c, 16) / 16 for c in known[:size]]})
    answer: dict[str, Any] = {"object": "list", "model": request.body["model"], "data": data}
    if play.usage != "missing":
        answer["usage"] = {"prompt_tokens": request.input_tokens, "total_tokens": request.input_tokens}
    return answer


def _error(kind: str, status: int) -> dict[str, Any]:
    words = {
        401: "authentication_error",
        403: "permission_error",
        429: "rate_limit_error",
        400: "invalid_request_error",
    }
    words |= {402: "billing_error", 404: "not_found_error", 529: "overloaded_error"}
    error = {"type": words.get(status, "api_error"), "message": f"The model server says {status}."}
    return (
        {"type": "error", "error": error} if kind == "anthropic" else {"error": error | {"param": None, "code": None}}
    )


def _error_event(which: str, kind: str) -> dict[str, Any]:
    if which == "status":
        return {"message": "The upstream is gone.", "code": 502, "type": "upstream"}
    words = {"overloaded": "overloaded_error", "invalid": "invalid_request_error"}
    if kind == "openai":
        words["overloaded"] = "server_error"
    return {"type": words[which], "message": f"It is {which}.", "code": None}
