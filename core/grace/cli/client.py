"""The HTTP door from the outside: what the command line knows of the lab, in the standard library alone.

A client outlives the core. Once it has met one, it waits for the next: a message carries an id that was chosen here,
so publishing it again is publishing it once, and a stream goes on after the last sequence it has seen. How long it
waits is the lab's own lease, which the door names in each answer.
"""

import http.client
import json
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from hashlib import sha256
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import quote, urlencode

from core.grace.cli.screen import patience
from core.home import Home
from protos.errors import BY_CODE, Error, InvalidArgument, NotFound, Unavailable
from protos.ids import new_id

ANSWER_S = 600.0  # the longest that the door may think about an answer: to verify a large journal takes a while
SILENCE_S = 60.0  # the longest that a stream may be silent; it has a heartbeat every few seconds
CHUNK = 256 * 1024
REMEMBERED = 10_000  # events given before they were durable
PAUSE_S = 0.1  # between two tries
LEASE_HEADER = "Madlab-Lease-Seconds"
MISTAKES = (InvalidArgument.code.lower(), NotFound.code.lower())  # as a MAD's faults name them

T = TypeVar("T")


class Unreachable(Unavailable):
    """No core answers."""


class Unable(Unavailable):
    """A core answers, and cannot do that now: its vault is locked, its journal sealed."""


class Broken(Error):
    """The core made a mistake: what it said is in its log."""

    code = "INTERNAL"


class Fault(Error):
    """The work was begun and came to no good end. `said` is the code that whoever did it gave."""

    code = "FAULT"

    def __init__(self, said: str, message: str, *, next: str = "") -> None:
        super().__init__(message, next=next)
        self.said = said

    @property
    def is_mistake(self) -> bool:
        """Whether what was asked for is wrong, rather than that the work failed."""
        return self.said in MISTAKES


class _Gone(Exception):
    """The connection broke: the core has ended, or is just starting."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, silence_s: float) -> None:
        super().__init__("localhost", timeout=silence_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """One caller of one lab. Not for several threads."""

    def __init__(
        self,
        home: Home,
        *,
        waiting: Callable[[float], None] = lambda seconds: None,
        patience_s: float = ANSWER_S,
    ) -> None:
        """`waiting` is called once for each time that the core is away, with the seconds that it has to come back.
        `patience_s` is the longest that the door may think about an answer.
        """
        self._home = home
        self._patience_s = patience_s
        self._waiting = waiting
        self._lease_s = 0.0  # no patience with a lab that was never there

    @classmethod
    def to(
        cls,
        home: str | None = None,
        *,
        waiting: Callable[[float], None] = lambda seconds: None,
        patience_s: float = ANSWER_S,
    ) -> "Client":
        """A client of the lab whose data is at `home`.

        Raises:
            Unreachable: there is no such lab.
        """
        try:
            return cls(Home.find(home), waiting=waiting, patience_s=patience_s)
        except NotFound as error:
            raise Unreachable(error.message, next=error.next) from None

    def get(self, path: str, **query: object) -> Any:
        """The JSON at `path`.

        Raises:
            Error: what the lab says.
            Unreachable: no core answers.
        """
        return self._patiently(lambda: self._exchange("GET", _with(path, query)))

    def text(self, path: str) -> str:
        """What is at `path`, as it is; raises what `get` raises."""
        return self._patiently(lambda: self._whole("GET", path)).decode("utf-8", "replace")

    def strain(self, content: bytes) -> bytes:
        """`content` without what the lab keeps secret; raises what `get` raises."""
        return self._patiently(lambda: self._whole("POST", "/api/v1/support/strain", iter([content])))

    def post(self, path: str, body: Mapping[str, object]) -> Any:
        """Sends JSON to a place where sending it twice does no harm; raises what `get` raises."""
        return self._patiently(lambda: self._exchange("POST", path, json.dumps(body).encode()))

    def put(self, path: str, body: Mapping[str, object]) -> Any:
        """Sends JSON; raises what `get` raises."""
        return self._patiently(lambda: self._exchange("PUT", path, json.dumps(body).encode()))

    def send(self, path: str, content: bytes) -> Any:
        """Sends bytes to a place where sending them twice does no harm; raises what `get` raises."""
        return self._patiently(lambda: self._exchange("POST", path, iter([content])))

    def publish(self, message: Mapping[str, object]) -> Any:
        """Publishes one message, once, even if the core ends in the middle; raises what `get` raises."""
        return self.post("/api/v1/messages", {"id": new_id(), **message})

    def upload(self, chunks: Callable[[], Iterable[bytes]], *, name: str, media_type: str) -> dict[str, Any]:
        """Stores a stream of bytes as a blob. `chunks` is asked again if the core ends in the middle.

        Raises:
            InvalidArgument: `chunks` could not be read.
        """
        path = _with("/api/v1/blobs", {"name": name, "media_type": media_type})
        return cast(dict[str, Any], self._patiently(lambda: self._exchange("POST", path, _readable(chunks()))))

    def download(self, digest: str, into: BinaryIO) -> None:
        """Writes a blob to a seekable file and checks its digest; raises what `get` raises."""

        self._patiently(lambda: self._copy(f"/api/v1/blobs/{quote(digest)}", digest, into))

    def _copy(self, path: str, digest: str, into: BinaryIO) -> None:
        into.seek(0)
        into.truncate()
        found = sha256()
        with closing(self._open(ANSWER_S)) as connection:
            answer = self._ask(connection, "GET", path)
            while chunk := self._read(answer, CHUNK):
                found.update(chunk)
                into.write(chunk)
        if f"sha256:{found.hexdigest()}" != digest:
            raise _Gone("the blob came incomplete")

    def follow(self, path: str, *, after: int = 0) -> Iterator[dict[str, Any]]:
        """A stream of server-sent events: what `after` has not passed, then live, through any restart of the core.

        Ends when the lab says that nothing more will come.

        Raises:
            Error: what the lab says.
            Unreachable: the core went away and did not come back within the lease.
        """
        last, early = after, OrderedDict[str, None]()
        while True:
            with suppress(_Gone):
                for sequence, event in self._patiently(partial(self._stream, path, last)):
                    if event is None:
                        return
                    last = sequence or last
                    if event["id"] in early:
                        continue  # given before it was durable, and after a restart again
                    if not sequence:
                        early[event["id"]] = None
                        if len(early) > REMEMBERED:
                            early.popitem(last=False)
                    yield event
            time.sleep(PAUSE_S)

    def _stream(self, path: str, after: int) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """The events of one connection, with their sequences; opened before the first one is asked for."""
        connection = self._open(SILENCE_S)
        try:
            answer = self._ask(
                connection, "GET", path, headers={"Accept": "text/event-stream", "Last-Event-ID": str(after)}
            )
        except BaseException:
            connection.close()
            raise
        return self._events(connection, answer)

    def _events(
        self, connection: _Connection, answer: http.client.HTTPResponse
    ) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Parses `id:`, `data:` and `event: end`; the last comes as None. A line with no name is a heartbeat."""
        with closing(connection):
            sequence, data = 0, b""
            while line := self._read_line(answer):
                field, _, value = line.rstrip(b"\r\n").partition(b": ")
                if field == b"id":
                    sequence = int(value)
                elif field == b"data":
                    data += value
                elif field == b"event" and value == b"end":
                    yield 0, None
                elif not line.strip() and data:
                    yield sequence, json.loads(data)
                    sequence, data = 0, b""

    def _patiently(self, act: Callable[[], T]) -> T:
        """Does it; if the core is away, waits for the next one, at most a lease."""
        deadline: float | None = None
        while True:
            try:
                return act()
            except _Gone as error:
                if deadline is None:
                    deadline = time.monotonic() + self._lease_s
                    if self._lease_s:
                        self._waiting(self._lease_s)
                if time.monotonic() >= deadline:
                    raise self._unreachable(error) from None
                time.sleep(PAUSE_S)

    def _unreachable(self, error: _Gone) -> Unreachable:
        if self._lease_s:
            return Unreachable(
                f"the core went away and did not come back within {self._lease_s:g} s ({error})",
                next="see core.log in the lab's home, then: madlab up",
            )
        return Unreachable(f"the lab in {self._home.path} is not running ({error})", next="start it with: madlab up")

    def _exchange(self, method: str, path: str, body: bytes | Iterable[bytes] | None = None) -> Any:
        with patience(), closing(self._open(self._patience_s)) as connection:
            headers = {"Content-Type": "application/json"} if isinstance(body, bytes) else {}
            content = self._read(self._ask(connection, method, path, body, headers))
        return json.loads(content)

    def _whole(self, method: str, path: str, body: Iterable[bytes] | None = None) -> bytes:
        with patience(), closing(self._open(ANSWER_S)) as connection:
            return self._read(self._ask(connection, method, path, body))

    def _open(self, silence_s: float) -> _Connection:
        connection = _Connection(str(self._home.api_socket), silence_s)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            if isinstance(error, PermissionError):
                raise Unreachable(
                    f"the lab's door {self._home.api_socket} is not open to this user", next="run as the lab's owner"
                ) from None
            raise _Gone(str(error.strerror or error)) from None
        return connection

    def _ask(
        self,
        connection: _Connection,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """Sends a request and returns the answer's head; what the lab refuses is raised."""
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # it stopped listening: its answer says why
                connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise _Gone(str(error) or type(error).__name__) from None
        self._lease_s = float(answer.headers.get(LEASE_HEADER) or self._lease_s)
        if answer.status >= 400:
            raise _error(answer.status, self._read(answer))
        return answer

    @staticmethod
    def _read(answer: http.client.HTTPResponse, size: int | None = None) -> bytes:
        try:
            return answer.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise _Gone(str(error) or type(error).__name__) from None

    @staticmethod
    def _read_line(answer: http.client.HTTPResponse) -> bytes:
        try:
            return answer.readline()
        except (OSError, http.client.HTTPException) as error:
            raise _Gone(str(error) or type(error).__name__) from None


def _readable(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks; a file that cannot be read is the caller's trouble and not the connection's."""
    try:
        yield from chunks
    except OSError as error:
        raise InvalidArgument(f"{error.filename}: {error.strerror}", next="name a file that you can read") from None


def _with(path: str, query: Mapping[str, object]) -> str:
    given = {name: str(value) for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _error(status: int, content: bytes) -> Error:
    """The lab's refusal as the exception that its code names."""
    try:
        said = json.loads(content)["error"]
        kind = (BY_CODE | {Broken.code: Broken, Unable.code: Unable})[said["code"]]
    except (ValueError, KeyError, TypeError):
        return InvalidArgument(f"the door answered {status} in words this client does not know", next="update madlab")
    return kind(str(said["message"]), next=str(said["next"]))
