"""The browser's whole network: every request that it makes is answered here, over `ctx.web`.

Chromium is told to hand over each request before it is sent (`Fetch.enable` on the browser itself, which covers pages,
frames, workers, service workers and preflights alike). It keeps what is a browser's to do: cookies, redirects, CORS,
mixed content, the policies of pages. The core decides whether the request is made, and makes it. So there is no proxy
in the sandbox, no certificate of ours in the browser and no port to knock at. What hand-over does not cover, such as
WebSockets, WebRTC and whatever a fault in Chromium lets slip, meets a sandbox without a network.

What is to be downloaded never enters the browser: its bytes go straight to Horace, into quarantine.
"""

import base64
import re
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from anyio import CapacityLimiter, Event, current_time, fail_after, move_on_after
from anyio.abc import TaskGroup

from periphery.marco.pipe import BrowserError, Pipe
from protos.errors import Denied, Error, Exhausted
from protos.ids import new_id
from protos.mad import Files
from protos.v1.message_pb2 import Blob
from protos.v1.web_pb2 import FetchEvent, Header, RequestHead, ResponseHead
from protos.web import Web

AT_ONCE = 16  # requests in flight; a session has 64 calls
REQUESTS = 600  # of one visit; the rest fails
DOCUMENTS = 30  # of one visit: pages that lead on and on come to an end
BODY_BYTES = 16 * 1024 * 1024  # of an answer that goes to the browser, unpacked
DOWNLOADS = 20  # of one run
DOWNLOAD_BYTES = 512 * 1024 * 1024  # of one; the run's budget may say less
SECONDS = 20.0  # for one answer; a stream that never ends would keep the page loading
DOWNLOAD_SECONDS = 600.0
QUIET_S = 0.5  # without a request: then the page is what it is

Outcome = Literal["answered", "denied", "failed", "downloaded"]

_OURS = frozenset(
    {"accept-encoding", "connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "upgrade"}
)
_GONE = frozenset({"connection", "content-encoding", "content-length", "keep-alive", "trailer", "transfer-encoding"})
_SHOWN = re.compile(
    r"(?:text|image|audio|video|font)/|application/(?:json|xml|xhtml\+xml|javascript)\b|.*\+(?:json|xml)\b"
)
_HANDLE = "secret://"
_ATTACHED = re.compile(r"\s*attachment\b", re.IGNORECASE)
_FILE_NAME = re.compile(r"""filename\*?\s*=\s*(?:UTF-8'[^']*')?"?([^";]+)""", re.IGNORECASE)
_UNSAFE = re.compile(r"[^\w.()+@-]+")
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_NO_BODY = frozenset({101, 204, 205, 304})


@dataclass(frozen=True)
class Request:
    """One request of the browser, and what came of it."""

    method: str
    url: str
    kind: str  # in Chromium's words: Document, Image, XHR, …
    frame: str  # that asked for it, or is to hold it
    outcome: Outcome
    status: int = 0
    size: int = 0  # bytes of the body, unpacked
    media_type: str = ""
    error: Error | None = None


@dataclass(frozen=True)
class Download:
    """A file that a page led to. It is in Horace, and was in no program but ours."""

    url: str
    name: str  # made of what the server said, safe as a name
    blob: Blob


class TooLarge(Exception):
    """An answer is larger than a browser gets."""


@dataclass
class Network:
    """Answers one browser's requests."""

    pipe: Pipe
    web: Web
    files: Files
    tasks: TaskGroup
    requests: list[Request] = field(default_factory=list)  # of the visit
    downloads: list[Download] = field(default_factory=list)  # of the run
    _kept: int = 0  # downloads begun
    _writing: int = 0
    _sending: int = 0  # requests that write and are not answered
    _open: int = 0
    _documents: int = 0
    _last: float = 0.0
    _moved: Event = field(default_factory=Event)
    _places: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(AT_ONCE))

    async def begin(self) -> None:
        """From now on nothing leaves the browser in another way."""
        self.pipe.listen(self._hear)
        await self.pipe.call("Fetch.enable", patterns=[{"urlPattern": "*"}])

    def forget(self) -> None:
        """Begins the books of a new visit."""
        self.requests.clear()
        self._documents = 0

    async def settled(self, within_s: float, quiet_s: float = QUIET_S) -> bool:
        """Waits until nothing was asked for `quiet_s`; whether that came within `within_s`.

        The time begins anew after a request that writes: a person may have to look at it first.
        """
        self._last = current_time()  # what was just set going may not have asked yet
        until = self._last + within_s
        while self._sending or current_time() < until:
            rest = self._last + quiet_s - current_time()
            if not self._open and rest <= 0:
                return True
            self._moved = Event()
            with move_on_after(until - current_time() if self._open else rest) as limit:
                if self._sending:
                    limit.deadline = inf
                await self._moved.wait()
            if self._sending or limit.deadline == inf:
                until = current_time() + within_s
        return False

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Meanwhile requests that write go to the core, where policy decides or a person: the caller acts on the page.

        What a page sends by itself is refused here, so that no page can put a question to a person.
        """
        self._writing += 1
        try:
            yield
        finally:
            self._writing -= 1

    def _hear(self, method: str, parameters: dict[str, Any], session: str) -> None:
        if method == "Fetch.requestPaused":
            self._count(1)
            self.tasks.start_soon(self._serve, parameters)

    def _count(self, change: int) -> None:
        self._open += change
        self._last = current_time()
        self._moved.set()

    async def _serve(self, paused: dict[str, Any]) -> None:
        """Answers one request. The page may be gone by then: nobody hears that."""
        asked, kind, frame = paused["request"], paused["resourceType"], paused.get("frameId", "")
        noted = Request(asked["method"], asked["url"], kind, frame, "failed")
        sends = asked["method"] not in _READS
        self._sending += sends
        try:
            async with self._places:
                noted = await self._answer(paused["requestId"], asked, kind, frame)
        except BrowserError:
            pass
        finally:
            self.requests.append(noted)
            self._sending -= sends
            self._count(-1)

    async def _answer(self, id: str, asked: Mapping[str, Any], kind: str, frame: str) -> Request:
        method, url = asked["method"], asked["url"]

        async def fail(reason: str, outcome: Outcome, error: Error | None = None) -> Request:
            await self.pipe.call("Fetch.failRequest", requestId=id, errorReason=reason)
            return Request(method, url, kind, frame, outcome, error=error)

        if kind == "Document":
            self._documents += 1
        if urlsplit(url).scheme not in ("http", "https") or kind == "EventSource":
            return await fail("BlockedByClient", "failed")
        if method not in _READS and not self._writing:
            return await fail("BlockedByClient", "denied", Denied("Pages do not send anything by themselves."))
        if len(self.requests) >= REQUESTS or self._documents > DOCUMENTS:
            return await fail("BlockedByClient", "failed", Exhausted("This page asks for too much."))
        seconds = SECONDS if kind != "Document" and method in _READS else DOWNLOAD_SECONDS
        head = RequestHead(id=new_id(), method=method, url=url, headers=_headers(asked["headers"]), seconds=seconds)
        try:
            async with aclosing(self.web.fetch(head, _body(asked))) as events:  # type: ignore[type-var]
                with fail_after(SECONDS if method in _READS else None):
                    answer = (await anext(events)).head
                with fail_after(SECONDS):
                    downloads = kind == "Document" and _is_download(answer)
                    content = b"" if downloads else await _content(answer, events)
                if downloads:
                    with fail_after(DOWNLOAD_SECONDS):
                        blob = await self._keep(url, answer, events)
                    await self.pipe.call("Fetch.failRequest", requestId=id, errorReason="Aborted")
                    return Request(method, url, kind, frame, "downloaded", answer.status, blob.size, blob.media_type)
        except Denied as error:
            return await fail("BlockedByClient", "denied", error)
        except Error as error:
            return await fail("ConnectionFailed", "failed", error)
        except TooLarge:
            what = f"An answer has over {BODY_BYTES // 1024**2} MiB."
            return await fail("BlockedByResponse", "failed", Exhausted(what, next="Download it."))
        except (TimeoutError, StopAsyncIteration, zlib.error, ValueError):
            return await fail("ConnectionAborted", "failed")
        await self.pipe.call(
            "Fetch.fulfillRequest",
            requestId=id,
            responseCode=answer.status,
            responseHeaders=[
                {"name": each.name, "value": each.value.decode("latin-1")}
                for each in answer.headers
                if each.name.lower() not in _GONE
            ],
            body=base64.b64encode(content).decode(),
        )
        media_type = _header(answer.headers, "content-type").partition(";")[0]
        return Request(method, url, kind, frame, "answered", answer.status, len(content), media_type)

    async def _keep(self, url: str, answer: ResponseHead, events: AsyncIterator[FetchEvent]) -> Blob:
        """Stores what comes as a download.

        Raises:
            Exhausted: it is too large, or one too many.
        """
        self._kept += 1
        if self._kept > DOWNLOADS:
            raise Exhausted(f"A run downloads at most {DOWNLOADS} files.", next="Ask for the rest in another.")
        size = 0

        async def pieces() -> AsyncIterator[bytes]:
            nonlocal size
            async for each in events:
                size += len(each.bytes)
                if size > DOWNLOAD_BYTES:
                    raise Exhausted(f"A download has at most {DOWNLOAD_BYTES // 1024**2} MiB.")
                if each.bytes:
                    yield each.bytes

        name = file_name(url, _header(answer.headers, "content-disposition"))
        media_type = _header(answer.headers, "content-type").partition(";")[0].strip()
        blob = await self.files.put(pieces(), name=f"download-{self._kept}-{name}", media_type=media_type)
        self.downloads.append(Download(url, name, blob))
        return blob


def file_name(url: str, disposition: str = "") -> str:
    """What a download is called: as the server says, or after its address, without what is unsafe in a name."""
    given = _FILE_NAME.search(disposition)
    said = unquote(given[1]) if given else unquote(urlsplit(url).path)
    name = _UNSAFE.sub("_", said.replace("\\", "/").rstrip("/").rpartition("/")[2]).strip("._")
    return name[:100] or "file"


def _header(headers: Sequence[Header], name: str) -> str:
    return next((each.value.decode("latin-1") for each in headers if each.name.lower() == name), "")


def _headers(given: Mapping[str, str]) -> list[Header]:
    """The browser's own, less what is the core's, and less handles of secrets: no page may name one.

    It says that it is Chromium, and whose.
    """
    kept = {"Accept-Language": "en"}
    kept |= {name: value for name, value in given.items() if name.lower() not in _OURS and _HANDLE not in value}
    for name, value in kept.items():
        if name.lower() in ("user-agent", "sec-ch-ua"):
            kept[name] = value.replace("HeadlessChrome", "Chrome")
            if name.lower() == "user-agent":
                kept[name] += " madlab-marco/0.1"
    kept["Accept-Encoding"] = "gzip"
    return [Header(name=name, value=value.encode("latin-1", "replace")) for name, value in kept.items()]


def _body(asked: Mapping[str, Any]) -> AsyncIterator[bytes] | None:
    entries = asked.get("postDataEntries")
    return _decoded(entries) if entries else None


async def _decoded(entries: Sequence[Mapping[str, Any]]) -> AsyncIterator[bytes]:
    for each in entries:
        if each.get("bytes"):
            yield base64.b64decode(each["bytes"])


def _is_download(answer: ResponseHead) -> bool:
    if not 200 <= answer.status < 300 or answer.status in _NO_BODY:
        return False
    media_type = _header(answer.headers, "content-type").strip().lower()
    attached = _ATTACHED.match(_header(answer.headers, "content-disposition"))
    return bool(attached or (media_type and not _SHOWN.match(media_type)))


async def _content(answer: ResponseHead, events: AsyncIterator[FetchEvent]) -> bytes:
    """The body, unpacked: the browser does not unpack what it is handed.

    Raises:
        TooLarge: it is, packed or unpacked.
        ValueError: it is packed in a way that was not asked for.
        zlib.error: it is not packed as it says.
    """
    packing = _header(answer.headers, "content-encoding").strip().lower()
    if packing not in ("", "identity", "gzip", "x-gzip"):
        raise ValueError(f"packed as {packing}")
    unpacked = zlib.decompressobj(wbits=31) if packing in ("gzip", "x-gzip") else None
    content = bytearray()
    async for each in events:
        piece = each.bytes
        content += unpacked.decompress(piece, BODY_BYTES + 1 - len(content)) if unpacked and piece else piece
        if len(content) > BODY_BYTES:
            raise TooLarge
    return bytes(content)
