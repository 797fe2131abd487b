"""Brokers to measure beside: redis Streams and NATS JetStream, by their own clients and at their best.

Each publisher waits for the acknowledgement of one message before it says the next, as the journal's do. They are asked
in two ways. *By their client*: 64 tasks of one Python program publish with the broker's own asyncio client, which is
what the journal takes the place of. *At best*: one thread drives 64 raw sockets by epoll and does nothing else, which
costs a fraction of what the brokers take; no program that has something to say gets that.
"""

import json
import selectors
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import nats
import redis.asyncio


@dataclass
class Broker:
    """One broker: how its client publishes; and raw connections, how a message and its whole acknowledgement look."""

    publish: Callable[[bytes], Awaitable[object]]
    sockets: list[socket.socket]
    request: Callable[[int, bytes], bytes]
    is_answered: Callable[[bytes], bool]

    async def rate(self, body: bytes, seconds: float) -> float:
        """Acknowledged messages a second, said by tasks."""
        done = 0
        began = time.perf_counter()

        async def speak() -> None:
            nonlocal done
            while time.perf_counter() - began < seconds:
                await self.publish(body)
                done += 1

        async with anyio.create_task_group() as tasks:
            for _ in self.sockets:
                tasks.start_soon(speak)
        return done / (time.perf_counter() - began)

    def rate_at_best(self, body: bytes, seconds: float) -> float:
        """Acknowledged messages a second, said by a thread that does nothing else."""
        waiting = dict.fromkeys(self.sockets, b"")
        requests = {each: self.request(at, body) for at, each in enumerate(self.sockets)}
        done = 0
        with selectors.EpollSelector() as ready:
            for each in self.sockets:
                ready.register(each, selectors.EVENT_READ)
            began = time.perf_counter()
            for each in self.sockets:
                each.sendall(requests[each])
            outstanding = len(self.sockets)
            while outstanding:
                if not (some := ready.select(5)):
                    raise TimeoutError(f"{outstanding} clients got no answer: {sorted(waiting.values())[-1]!r}")
                for key, _ in some:
                    connection = key.fileobj
                    assert isinstance(connection, socket.socket)
                    waiting[connection] += connection.recv(4096)
                    if not self.is_answered(waiting[connection]):
                        continue
                    waiting[connection] = b""
                    done += 1
                    if time.perf_counter() - began < seconds:
                        connection.sendall(requests[connection])
                    else:
                        outstanding -= 1
            return done / (time.perf_counter() - began)


@asynccontextmanager
async def open_redis(directory: Path, clients: int) -> AsyncIterator[Broker | None]:
    """A redis-server that syncs before it acknowledges; None where none is installed."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    home = directory / "redis"
    home.mkdir()
    port = _free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--save", ""]
    options += ["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"]
    with _running([program, *options]):
        sockets = [await _connect(port) for _ in range(clients)]

        def request(_: int, body: bytes) -> bytes:
            words = [b"XADD", b"stream", b"*", b"body", body]
            return b"*5\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)

        # A bulk string: "$15\r\n1795323464558-0\r\n".
        def is_answered(answer: bytes) -> bool:
            return answer.startswith(b"$") and answer.count(b"\r\n") == 2

        async with redis.asyncio.Redis(port=port, max_connections=clients) as client:
            yield Broker(lambda body: client.xadd("stream", {"body": body}), sockets, request, is_answered)
        _close(sockets)


@asynccontextmanager
async def open_nats(directory: Path, clients: int) -> AsyncIterator[Broker | None]:
    """A nats-server with one stream on file; None where none is installed."""
    program = shutil.which("nats-server")
    if program is None:
        yield None
        return
    port = _free_port()
    options = ["-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(directory / "nats")]
    with _running([program, *options]):
        sockets = []
        for _ in range(clients):
            connection = await _connect(port)
            sockets.append(connection)
            connection.recv(4096)  # INFO
            connection.sendall(b'CONNECT {"verbose":false}\r\nSUB acknowledge.%d 1\r\nPING\r\n' % len(sockets))
            assert connection.recv(4096).endswith(b"PONG\r\n")
        config = json.dumps({"name": "S", "subjects": ["s"], "storage": "file"}).encode()
        asked = sockets[0]
        asked.sendall(b"SUB answer 2\r\nPUB $JS.API.STREAM.CREATE.S answer %d\r\n%s\r\n" % (len(config), config))
        answer = b""
        while b"}\r\n" not in answer:
            answer += asked.recv(65536)
        assert b'"error"' not in answer, answer
        asked.sendall(b"UNSUB 2\r\nPING\r\n")
        while not answer.endswith(b"PONG\r\n"):
            answer += asked.recv(65536)

        def request(at: int, body: bytes) -> bytes:
            return b"PUB s acknowledge.%d %d\r\n%s\r\n" % (at + 1, len(body), body)

        # "MSG acknowledge.1 1 28\r\n{"stream":"S","seq":1}\r\n"
        # with a PING before or behind it now and then.
        def is_answered(answer: bytes) -> bool:
            return b"MSG" in answer and b"}\r\n" in answer

        client = await nats.connect(f"nats://127.0.0.1:{port}")
        stream = client.jetstream()
        yield Broker(lambda body: stream.publish("s", body), sockets, request, is_answered)
        await client.close()
        _close(sockets)


@contextmanager
def _running(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _connect(port: int) -> socket.socket:
    for _ in range(100):
        try:
            connection = socket.create_connection(("127.0.0.1", port), 5)
        except ConnectionRefusedError:
            await anyio.sleep(0.05)
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
    raise TimeoutError(f"nobody listens on port {port}")


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()
