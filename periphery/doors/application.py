"""The HTTP side of the doors: what is asked where, by whom, and how much of it; and how answers go out.

Plain ASGI, since it is eight paths. The rules:

- A request is for this address (Host), is not sent by a web page (Origin), has a bounded body, and waits for a place
  when there are enough others. The core lets one worker make 64 calls at once; the doors leave it some for itself.
- Nothing is sent before the answer has begun. Until then an error is an HTTP error; after it, whatever the protocol
  has for it inside the 200.
- A client that goes away ends its call, there and then. So does closing the doors, but that is told.
"""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import aclosing, suppress
from typing import Any

from anyio import Event, Semaphore, create_task_group, fail_after, move_on_after

from periphery.doors import chat, listing, messages, responses
from periphery.doors.blocks import Blocks
from periphery.doors.exchange import Exchange
from periphery.doors.faults import Fault, Refused, anthropic_fault, openai_fault
from periphery.doors.reading import body_of
from periphery.doors.speech import Asked, Speaker, Tongue
from protos.errors import Error, InvalidArgument, Unavailable
from protos.ids import new_id
from protos.v1.llm_pb2 import CompletionEvent

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_BYTES = 32 << 20
BODY_S = 60.0  # between two pieces of a body
PATIENCE_S = 1.0  # with a client that is still sending what is refused already
AT_ONCE, WAITING = 48, 256
TONGUES = {
    "/v1/chat/completions": chat.TONGUE,
    "/v1/responses": responses.TONGUE,
    "/v1/messages": messages.TONGUE,
}
POSTS = (*TONGUES, "/v1/messages/count_tokens", "/v1/embeddings")

logger = logging.getLogger(__name__)


class Gone(Exception):
    """The client is no longer there."""


class Application:
    """Both doors, on one port."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.hosts: frozenset[str] = frozenset()  # set when the port is known
        self.closing = Event()
        self._places = Semaphore(AT_ONCE)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _Request(self, scope, receive, send).answer()

    async def take_place(self) -> None:
        """Waits until there are fewer requests.

        Raises:
            Unavailable: too many wait already.
        """
        if self._waiting >= WAITING:
            raise Unavailable("Too many requests at once.", next="Ask again later.")
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1

    def leave_place(self) -> None:
        """Lets the next one in."""
        self._places.release()


class _Request:
    """One request and its answer."""

    def __init__(self, application: Application, scope: Scope, receive: Receive, send: Send) -> None:
        self._application, self._exchange = application, application.exchange
        self._receive, self._send = receive, send
        self._method, self._path = str(scope["method"]), str(scope["path"])
        self._headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self._is_anthropic = self._path.startswith("/v1/messages") or "anthropic-version" in self._headers
        self._has_more = True  # of its body
        self._speaker: Speaker | None = None  # of a stream that has begun

    async def answer(self) -> None:
        try:
            await self._route()
        except Gone:
            pass
        except Refused as problem:
            with suppress(Gone):
                await self._hear_out()
                await self._fail(problem)
        except Error as problem:
            await self._fail(problem)
        except UnicodeEncodeError:
            await self._fail(InvalidArgument("A text holds half a character.", next="Send valid Unicode."))
        except Exception as problem:
            logger.exception("a request at the door failed")
            await self._fail(problem)

    async def _route(self) -> None:
        self._check()
        if self._path in POSTS:
            if self._method != "POST":
                raise Refused(405, f"{self._path} takes POST.")
            await self._application.take_place()
            try:
                await self._post(await self._body())
            finally:
                self._application.leave_place()
        elif self._method not in ("GET", "HEAD"):
            raise Refused(404, f"There is no {self._path[:200]} here.")
        elif self._path == "/":
            await self._json({"doors": ["/v1/chat/completions", "/v1/responses", "/v1/messages"]})
        elif self._path == "/v1/models":
            models = await self._exchange.models()
            await self._json((listing.anthropic_models if self._is_anthropic else listing.openai_models)(models))
        elif self._path.startswith("/v1/models/"):
            name = self._path.removeprefix("/v1/models/")
            model = await self._exchange.model(name)
            await self._json((listing.anthropic_model if self._is_anthropic else listing.openai_model)(name, model))
        else:
            raise Refused(404, f"There is no {self._path[:200]} here.")

    def _check(self) -> None:
        if self._headers.get("host") not in self._application.hosts:
            raise Refused(421, "This is not the host that was asked for.")
        origin = self._headers.get("origin")
        if origin is not None and origin.partition("://")[2] not in self._application.hosts:
            raise Refused(403, "Web pages are not served.")
        if self._headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "A body is sent as it is, without an encoding.")

    async def _body(self) -> bytes:
        told = self._headers.get("content-length", "0")
        if not told.isdecimal() or int(told) > BODY_BYTES:
            raise Refused(413, f"A body has at most {BODY_BYTES} bytes.")
        pieces, size = [], 0
        while self._has_more:
            try:
                with fail_after(BODY_S):
                    pieces.append(await self._piece())
            except TimeoutError:
                raise Refused(408, "The body did not come in time.") from None
            size += len(pieces[-1])
            if size > BODY_BYTES:
                raise Refused(413, f"A body has at most {BODY_BYTES} bytes.")
        return b"".join(pieces)

    async def _piece(self) -> bytes:
        """
        Raises:
            Gone: the client went away.
        """
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Gone
        self._has_more = bool(message.get("more_body", False))
        return bytes(message.get("body", b""))

    async def _hear_out(self) -> None:
        """Lets a client finish what is refused already: who hangs up on it is not heard either."""
        with move_on_after(PATIENCE_S):
            while self._has_more:
                await self._piece()

    async def _post(self, content: bytes) -> None:
        body = body_of(content)
        tongue = TONGUES.get(self._path)
        if tongue is not None:
            asked = tongue.read(body)
            key = self._exchange.key_of(self._headers.get("idempotency-key", ""), self._path, content)
            await self._while_wanted(lambda: self._complete(tongue, asked, key))
        elif self._path == "/v1/embeddings":
            request, packed = listing.read_embed(body)
            name = request.model

            async def embed() -> None:
                await self._json(listing.embeddings(name, await self._exchange.embed(request), packed=packed))

            await self._while_wanted(embed)
        else:
            await self._json({"input_tokens": messages.estimated_tokens(messages.read_prompt(body))})

    async def _while_wanted(self, work: Callable[[], Awaitable[None]]) -> None:
        """Does `work` until the client goes away or the doors close.

        Raises:
            Gone: it went.
            Unavailable: they close.
        """
        problem: Exception | None = None
        async with create_task_group() as tasks:

            async def watch_client() -> None:
                nonlocal problem
                while (await self._receive())["type"] != "http.disconnect":
                    pass
                problem = Gone()
                tasks.cancel_scope.cancel()

            async def watch_doors() -> None:
                nonlocal problem
                await self._application.closing.wait()
                problem = Unavailable("The doors close: this run is over.")
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch_client)
            tasks.start_soon(watch_doors)
            try:
                await work()
            except Exception as error:  # noqa: BLE001  raised again below, without the group's wrapping
                problem = error
            tasks.cancel_scope.cancel()
        if problem is not None:
            raise problem

    async def _complete(self, tongue: Tongue, asked: Asked, key: str) -> None:
        blocks = Blocks()
        async with self._exchange.complete(asked.request, key=key) as answer:
            blocks.most = answer.most
            if asked.stream:
                await self._stream(asked.speaker, blocks, answer.events)
                return
            async with aclosing(answer.events) as events:  # type: ignore[type-var]
                async for each in events:
                    for _ in blocks.take(each):
                        pass
        blocks.check_end()
        await self._json(asked.speaker.whole(blocks))

    # --- what goes out

    async def _stream(self, speaker: Speaker, blocks: Blocks, answer: AsyncIterator[CompletionEvent]) -> None:
        await self._start(200, {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"})
        self._speaker = speaker
        await self._say(speaker.begin())
        async with aclosing(answer) as events:  # type: ignore[type-var]
            async for each in events:
                await self._say(said for step in blocks.take(each) for said in speaker.say(step))
        blocks.check_end()
        await self._say(speaker.end(blocks), more=False)

    async def _fail(self, problem: Exception) -> None:
        if self._speaker is not None:
            await self._say(self._speaker.fail(problem), more=False)
            return
        fault = self._fault(problem)
        await self._json(fault.body, status=fault.status, headers=fault.headers)

    def _fault(self, problem: Exception) -> Fault:
        tongue = TONGUES.get(self._path)
        if tongue is not None:
            return tongue.fault(problem)
        return anthropic_fault(problem) if self._is_anthropic else openai_fault(problem)

    async def _json(
        self, body: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        content = json.dumps(body, ensure_ascii=False).encode()
        about = {"content-type": "application/json", "content-length": str(len(content))}
        await self._start(status, about | dict(headers or {}))
        await self._send({"type": "http.response.body", "body": content})

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        named = "request-id" if self._is_anthropic else "x-request-id"
        lines = {**headers, named: f"req_{new_id().replace('-', '')}"}
        raw = [(name.encode(), value.encode()) for name, value in lines.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def _say(self, said: Iterable[bytes], *, more: bool = True) -> None:
        content = b"".join(said)
        if content or not more:
            await self._send({"type": "http.response.body", "body": content, "more_body": more})
