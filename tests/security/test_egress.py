"""What a run that wants more than it may cannot reach, and what a hostile server cannot do to the lab.

Every case goes the whole way: the port of a run, policy, journal, broker, sockets, a real server that misbehaves. After
each of them the honest run of the same lab is served.
"""

import gzip
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, fail_after
from anyio.abc import ByteStream

from core.ports.web import LocalWeb
from protos.errors import Denied, Error, Exhausted, InvalidArgument, Unavailable
from protos.ids import new_id
from protos.v1.web_pb2 import FetchEvent, RequestHead
from tests.security.egress_world import IDLE_S, Got, World, a_world, fetch
from tests.servers.authority import Authority
from tests.servers.site import Asked, a_site, drip, ok


@pytest.fixture(scope="module")
async def world(anyio_backend: str) -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


@pytest.fixture(autouse=True)
async def _the_honest_run_is_served(world: World) -> AsyncIterator[None]:
    """Whatever a case did, nobody came to the intranet's server, and an honest request is answered."""
    world.answers.clear()
    yield
    assert world.inside.visits == 0
    got = await fetch(world.web(), world.url("/honest"))
    assert (got.status, got.body) == (200, b"hello")


async def refused(world: World, url: str, method: str = "GET", **more: Any) -> Error:
    """The error that a request ends with."""
    with pytest.raises(Error) as told:
        await fetch(world.web(), url, method, **more)
    return told.value


async def test_an_honest_request_goes_there_and_back_and_is_in_the_journal(world: World) -> None:
    world.answers["/page"] = ok(b"<p>hi</p>", "X-Thing: 1", "Connection: keep-alive, X-Hop", "X-Hop: 2")
    got = await fetch(world.web(), world.url("/page?q=1"), "POST", body=b"a" * 1000, headers=[("X-Mine", b"yes")])
    assert (got.status, got.body, got.header("x-thing"), got.header("x-hop")) == (200, b"<p>hi</p>", b"1", None)
    assert got.end is not None
    assert (got.end.bytes_sent, got.end.bytes_received) == (1000, 9)
    asked = world.site.asked[-1]
    assert asked.line == "POST /page?q=1 HTTP/1.1"
    assert asked.headers == {"host": f"site.test:{world.site.port}", "x-mine": "yes", "content-length": "1000"}
    outcome, started = (await world.acts())[:2]
    assert (started["step"], started["target"], started["rule"]) == ("started", world.url("/page?q=1"), "wanders")
    assert (outcome["step"], outcome["status"], outcome["bytes_sent"], outcome["bytes_received"]) == (
        "outcome", 200, 1000, 9,
    )  # fmt: skip
    assert outcome["digest_received"] == got.end.digest
    assert outcome["address"] == "127.0.0.1"


# --- where a request may go


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.2",
        "2130706434",  # decimal
        "0x7f000002",  # hexadecimal
        "0177.0.0.2",  # octal
        "0x7f.0.2",  # mixed and short
        "127.2",  # short
        "127.0.0.2.",  # with a dot at its end
        "１２７．０．０．２",  # full-width digits  # noqa: RUF001
        "①②⑦.0.0.2",  # circled digits
        "[::ffff:127.0.0.2]",  # IPv4-mapped
        "[::ffff:7f00:2]",  # the same in hexadecimal
        "[::127.0.0.2]",  # IPv4-compatible
        "[64:ff9b::7f00:2]",  # behind a NAT64
        "[64:ff9b:1::7f00:2]",  # behind a NAT64 of its own
        "[2002:7f00:2::1]",  # 6to4
        "[2001:0:7f00:2::1]",  # Teredo
        "[::1]",
        "[::]",
        "0.0.0.0",
        "0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",  # a carrier's NAT
        "169.254.169.254",  # metadata
        "168.63.129.16",  # metadata, at an address that looks public
        "[fd00:ec2::254]",  # metadata
        "[fe80::1]",
        "[fc00::1]",
        "[ff02::1]",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "inside.test",
        "INSIDE.test",
        "mixed.test",  # one allowed address and one that is not
        "mapped.test",
        "metadata.test",
    ],
)
async def test_an_address_that_no_rule_names_is_refused_however_it_is_written(world: World, host: str) -> None:
    error = await refused(world, world.hidden(host))
    assert isinstance(error, Denied), error
    assert error.message.startswith("rule address: "), error.message
    outcome = (await world.acts())[0]
    assert outcome["failed"] == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    "url",
    [
        "http://site.test@127.0.0.2/",
        "http://user:word@site.test/",
        "http://site.test\\@127.0.0.2/",
        "http://127.0.0.2\\.site.test/",
        "http://site.test:80@127.0.0.2/",
        "http://site.test\t.inside.test/",
        "http://site.test\r\nHost: inside.test/",
        "http://site.test%00.inside.test/",
        "http://site.test /",
        "http://[fe80::1%25lo]/",
        "http://[127.0.0.1]/",
        "http://127.0.0.1.5.6/",
        "http://4294967296/",
        "http://site..test/",
        "http:///inside.test",
        "http:inside.test",
        "//inside.test/",
        "http://site.test:0/",
        "http://site.test:65536/",
        "http://site.test:٨٠/",
        "http://site.test/a/..%2f..%2fadmin",
        "http://site.test/a/%252e%252e/admin",
        "http://site.test/a/..;/admin",
        "http://site.test/%00",
        "ftp://site.test/",
        "file:///etc/passwd",
        "gopher://127.0.0.2/_x",
        "ws://site.test/",
        "unix:///run/docker.sock",
        "http://" + "a" * 300 + ".test/",
        "http://site.test/" + "a" * 9000,
        "",
    ],
)
async def test_an_address_with_two_meanings_is_refused(world: World, url: str) -> None:
    assert isinstance(await refused(world, url), InvalidArgument)


async def test_what_is_decided_about_is_what_is_sent(world: World) -> None:
    web = world.web("narrow")
    got = await fetch(web, world.url("/other/../granted/%7Ex/./y?a=%2e"))
    assert got.status == 200
    assert world.site.asked[-1].line == "GET /granted/~x/y?a=. HTTP/1.1"
    for path in ("/granted/../other", "/granted/%2e%2e/other", "/grantedx", "/other#/granted"):
        with pytest.raises(Denied, match=r"^rule default"):
            await fetch(web, world.url(path))


async def test_only_the_ports_that_a_rule_means_are_reached(world: World) -> None:
    # marco's rule names no port: 80 and 443 are meant
    for port in (22, 25, 6379, 8080, world.site.port):
        with pytest.raises(Denied, match=r"^rule default"):
            await fetch(world.web("marco"), f"http://site.test:{port}/")


async def test_a_manifest_and_terms_narrow_what_a_run_reaches(world: World) -> None:
    with pytest.raises(Denied, match=r"^rule port"):
        await fetch(world.web(ports=frozenset({"bus"})), world.url())
    with pytest.raises(Denied, match=r"^rule port"):
        await fetch(world.web(ports=frozenset({"web:other.test:*"})), world.url())
    with pytest.raises(Denied, match=r"^rule terms"):
        await fetch(world.web(web=("other.test:*",)), world.url())
    got = await fetch(world.web(ports=frozenset({"web:site.test:*"}), web=("site.test:*",)), world.url())
    assert got.status == 200
    denied = [each for each in await world.acts() if each["step"] == "denied"]
    assert denied[0]["rule"] == "terms"


async def test_a_redirect_is_an_answer_and_leads_nowhere_by_itself(world: World) -> None:
    for status in ("301 Moved", "302 Found", "307 Temporary", "308 Permanent"):
        world.answers["/away"] = ok(b"", f"Location: {world.hidden()}", status=status)
        web = world.web()
        got = await fetch(web, world.url("/away"))
        location = got.header("location")
        assert got.status == int(status[:3])
        assert location == world.hidden().encode()
        with pytest.raises(Denied, match=r"^rule address"):
            await fetch(web, location.decode())


async def test_refresh_and_alternative_services_are_only_headers(world: World) -> None:
    world.answers["/alt"] = ok(b"x", 'Alt-Svc: h2="127.0.0.2:80"', f"Refresh: 0; url={world.hidden()}")
    web = world.web()
    await fetch(web, world.url("/alt"))
    await fetch(web, world.url("/alt"))  # the same server again


# --- what a worker cannot write


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "TRACK", "PROPFIND", "DEBUG", "PRI", "get", "LOCK"])
async def test_methods_that_tunnel_echo_or_are_odd_are_denied(world: World, method: str) -> None:
    error = await refused(world, world.url(), method)
    assert isinstance(error, Denied)
    assert error.message.startswith("rule method")


@pytest.mark.parametrize("method", ["", "GET /admin HTTP/1.1\r\nX:", "GE T", "GET\n", "G\u00cbT"])
async def test_what_is_no_method_is_refused(world: World, method: str) -> None:
    assert isinstance(await refused(world, world.url(), method), InvalidArgument)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", b"inside.test"),
        ("host", b"site.test"),
        ("Connection", b"close"),
        ("Keep-Alive", b"1"),
        ("Transfer-Encoding", b"chunked"),
        ("Transfer-Encoding", b"\x0bchunked"),
        ("TE", b"trailers"),
        ("Trailer", b"X"),
        ("Expect", b"100-continue"),
        ("Proxy-Authorization", b"Basic x"),
        ("Proxy-Connection", b"keep-alive"),
        ("Content-Length", b"-1"),
        ("Content-Length", b"+5"),
        ("Content-Length", b"5, 5"),
        ("Content-Length", b"0x5"),
        ("Content-Length", b""),
        ("X", b"a\r\nHost: inside.test"),
        ("X", b"a\nHost: inside.test"),
        ("X", b"a\r\n\r\nGET / HTTP/1.1"),
        ("X", b"a\x00b"),
        ("X", b" folded"),
        ("X: y", b"z"),
        ("X ", b"z"),
        ("X\r\n", b"z"),
        ("", b"z"),
        ("Transfer-Encoding ", b"chunked"),
        ("X", b"a" * 40_000),
        ("Transfer_Encoding", b"chunked"),
    ],
)
async def test_headers_that_frame_or_smuggle_are_refused(world: World, name: str, value: bytes) -> None:
    before = len(world.site.asked)
    assert isinstance(
        await refused(world, world.url(), "POST", headers=[(name, value)], body=b"12345"), InvalidArgument
    )
    assert len(world.site.asked) == before


async def test_headers_that_name_another_path_method_or_host_are_denied(world: World) -> None:
    before, web = len(world.site.asked), world.web("narrow")
    for name in (
        *("X-Original-URL", "X-Rewrite-URL", "X-Original-URI", "X_Original_URL", "x-original-host", "X-Host"),
        *("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-HTTP-Host-Override"),
        *("Forwarded", "X-Forwarded-Host", "X-Forwarded-Prefix", "X-Forwarded-For", "X-Envoy-Original-Path"),
    ):
        with pytest.raises(Denied, match=r"^rule header"):
            await fetch(web, world.url("/granted"), headers=[(name, b"/admin")])
    assert (await world.acts())[0]["rule"] == "header"
    assert len(world.site.asked) == before


async def test_too_many_headers_are_refused(world: World) -> None:
    many = [(f"X-{each}", b"1") for each in range(200)]
    assert isinstance(await refused(world, world.url(), headers=many), InvalidArgument)
    twice = [("Content-Length", b"5"), ("Content-Length", b"5")]
    assert isinstance(await refused(world, world.url(), "POST", headers=twice, body=b"12345"), InvalidArgument)


@pytest.mark.parametrize(
    "headers",
    [
        [("Upgrade", b"websocket"), ("Sec-WebSocket-Key", b"x")],
        [("Sec-WebSocket-Version", b"13")],
        [("Upgrade", b"h2c")],
        [("HTTP2-Settings", b"AAMAAABkAARAAAAAAAIAAAAA")],
    ],
)
async def test_an_upgrade_is_denied(world: World, headers: Sequence[tuple[str, bytes]]) -> None:
    error = await refused(world, world.url(), headers=headers)
    assert isinstance(error, Denied)
    assert error.message.startswith("rule upgrade")


@pytest.mark.parametrize("said", [b"4", b"6", b"0", b"999999999999999"])
async def test_a_body_has_the_length_that_was_said_or_is_not_sent(world: World, said: bytes) -> None:
    before = len(world.site.asked)
    headers = [("Content-Length", said)]
    error = await refused(world, world.url(), "POST", headers=headers, body=b"12345")
    assert isinstance(error, InvalidArgument), error
    assert len(world.site.asked) == before


async def test_bodies_that_look_like_requests_stay_bodies(world: World) -> None:
    smuggled = b"0\r\n\r\nGET /admin HTTP/1.1\r\nHost: inside.test\r\n\r\n"
    web = world.web()
    for body in (smuggled, smuggled * 5000):
        got = await fetch(web, world.url("/post"), "POST", body=body)
        assert got.status == 200
        assert world.site.asked[-1].body == body
    assert not [each for each in world.site.asked if "/admin" in each.line]


async def test_a_body_without_end_ends_at_the_rule(world: World) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 16384
            yield b"x" * 16384

    with pytest.raises(Exhausted, match="longer than 100000 bytes"):
        await fetch(world.web("little"), world.url("/up"), "POST", body=endless())
    assert sent < 1_000_000
    assert not [each for each in world.site.asked if each.line.startswith("POST /up ")]


# --- what a server cannot do


HOSTILE = {
    "HTTP/0.9": b"<html>hello</html>",
    "another protocol": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no status": b"HTTP/1.1 abc OK\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/3.7": b"HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
    "one bare line feed": b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 2\r\n\r\nhi",
    "a folded line": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nhi",
    "a fold first": b"HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 2\r\n\r\nhi",
    "a blank before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nhi",
    "no colon": b"HTTP/1.1 200 OK\r\nContent-Length\r\n\r\n",
    "a NUL in a header": b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nhi",
    "a bare return in a header": b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nhi",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 20\r\n\r\nhi",
    "one length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi",
    "a length in words": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nhi",
    "an unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "a chunk without a size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhi\r\n0\r\n\r\n",
    "a negative chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nhi\r\n0\r\n\r\n",
    "a chunk too long to count": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\nhi",
    "a chunk with a wrong end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhiXX0\r\n\r\n",
    "a chunk extension without end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;" + b"a" * 200_000,
    "trailers without end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 40_000,
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000,
    "one header without end": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"Content-Length: 0\r\n\r\n",
    "promises without end": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 200,
    "a switch of protocols, unasked": b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhi",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhi",
    "nothing": b"",
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_an_answer_that_is_no_http_or_has_two_meanings_is_an_error(world: World, case: str) -> None:
    async def say(stream: ByteStream, asked: Asked) -> None:
        await stream.send(HOSTILE[case])
        await stream.aclose()

    world.answers["/hostile"] = say
    error = await refused(world, world.url("/hostile"))
    assert isinstance(error, Unavailable), error
    assert "The core failed" not in error.message
    assert (await world.acts())[0]["failed"] == "UNAVAILABLE"


async def test_answers_that_are_odd_and_clear_are_passed_on(world: World) -> None:
    chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    cases = {
        "/extension": (f"{chunked}2;name=value\r\nhi\r\n0\r\n\r\n".encode(), 200, b"hi"),
        "/trailer": (f"{chunked}2\r\nhi\r\n0\r\nX: y\r\n\r\n".encode(), 200, b"hi"),
        "/hints": (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + ok(b"hi"), 200, b"hi"),
        "/reasonless": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi"),
        "/none": (b"HTTP/1.1 204 None\r\n\r\n", 204, b""),
        "/unmodified": (b"HTTP/1.1 304 Same\r\nContent-Length: 500\r\n\r\n", 304, b""),
        "/teapot": (ok(b"", status="418 Teapot"), 418, b""),
    }
    web = world.web()
    for path, (raw, status, body) in cases.items():
        world.answers[path] = raw
        got = await fetch(web, world.url(path))
        assert (got.status, got.body) == (status, body), path


async def test_an_old_server_that_just_hangs_up_is_understood(world: World) -> None:
    async def old(stream: ByteStream, asked: Asked) -> None:
        await stream.send(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")

    world.answers["/old"] = old
    assert (await fetch(world.web(), world.url("/old"))).body == b"until the end"


async def test_an_answer_to_head_has_no_body(world: World) -> None:
    world.answers["/head"] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    got = await fetch(world.web(), world.url("/head"), "HEAD")
    assert (got.status, got.body, got.header("content-length")) == (200, b"", b"5")


async def test_bytes_after_an_answer_are_not_the_next_one(world: World) -> None:
    world.answers["/poison"] = ok(b"first") + ok(b"POISON", status="200 Poisoned")
    web = world.web()
    assert (await fetch(web, world.url("/poison"))).body == b"first"
    assert (await fetch(web, world.url("/next"))).body == b"hello"
    world.answers["/poison"] = ok(b"first") + b"garbage"
    assert (await fetch(web, world.url("/poison"))).body == b"first"
    assert (await fetch(web, world.url("/next"))).body == b"hello"


async def test_bytes_that_come_between_two_requests_are_not_an_answer(world: World) -> None:
    spoken = anyio.Event()

    async def speak_up(stream: ByteStream, asked: Asked) -> None:
        await stream.send(ok(b"first"))
        await stream.send(ok(b"POISON"))
        spoken.set()
        await stream.receive()

    world.answers["/early"] = speak_up
    web = world.web()
    assert (await fetch(web, world.url("/early"))).body == b"first"
    with fail_after(10):
        await spoken.wait()
    assert (await fetch(web, world.url("/next"))).body == b"hello"


async def test_what_is_compressed_passes_unopened(world: World) -> None:
    bomb = zlib.compress(b"\0" * 50_000_000, 9)
    world.answers["/bomb"] = ok(bomb, "Content-Encoding: deflate")
    world.answers["/page"] = ok(gzip.compress(b"text"), "Content-Encoding: gzip")
    web = world.web()
    got = await fetch(web, world.url("/bomb"))
    assert got.body == bomb
    got = await fetch(web, world.url("/page"), headers=[("Accept-Encoding", b"gzip")])
    assert (gzip.decompress(got.body), got.header("content-encoding")) == (b"text", b"gzip")
    assert world.site.asked[-1].headers["accept-encoding"] == "gzip"


async def test_an_answer_without_end_ends_at_the_rule_and_at_the_budget(world: World) -> None:
    async def endless(stream: ByteStream, asked: Asked) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await stream.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")

    world.answers["/endless"] = endless
    got = Got()
    with pytest.raises(Exhausted, match="longer than 100000 bytes"):
        await fetch(world.web("little"), world.url("/endless"), got=got)
    assert got.status == 200
    assert len(got.body) <= 100_000
    web = world.web()
    web.allowance.bytes_in = 300_000
    with pytest.raises(Exhausted, match="has read its 300000 bytes"):
        await fetch(web, world.url("/endless"))
    web = world.web()
    web.allowance.bytes_out = 300_000
    with pytest.raises(Exhausted, match="has stored its 300000 bytes"):
        await fetch(web, world.url("/up"), "POST", body=b"x" * 400_000)


async def test_the_rate_of_a_rule_is_kept(world: World) -> None:
    web = world.web("little")
    for _ in range(3):
        assert (await fetch(web, world.url())).status == 200
    with pytest.raises(Exhausted, match=r"^rule little: 3 requests a minute"):
        await fetch(web, world.url())


async def test_servers_that_wait_for_ever_are_given_up_side_by_side(world: World) -> None:
    async def silent(stream: ByteStream, asked: Asked) -> None:
        await anyio.sleep_forever()

    async def deaf(stream: ByteStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    async def slow_head(stream: ByteStream, asked: Asked) -> None:
        await drip(stream, b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000, 0.05)

    async def stalls(stream: ByteStream, asked: Asked) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhi")
        await anyio.sleep_forever()

    async def slow_body(stream: ByteStream, asked: Asked) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        await drip(stream, b"x" * 100_000, 0.05)

    world.answers |= {"/silent": silent, "/slow-head": slow_head, "/stalls": stalls, "/slow-body": slow_body}
    told: dict[str, Error] = {}

    async def give_up(name: str, url: str, mad: str = "wanderer", method: str = "GET", **more: Any) -> None:
        with pytest.raises(Error) as error:
            await fetch(world.web(mad), url, method, **more)
        told[name] = error.value

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, create_task_group() as servers:
        servers.start_soon(listener.serve, deaf)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with create_task_group() as tasks:
            for path in ("/silent", "/slow-head", "/stalls"):
                tasks.start_soon(give_up, path, world.url(path))
            tasks.start_soon(give_up, "/brief", world.url("/slow-body"), "brief")
            tasks.start_soon(partial(give_up, "/slow-body", world.url("/slow-body"), seconds=1))
            deaf_one = partial(give_up, "/deaf", f"http://site.test:{port}/", method="POST", body=b"x" * 40_000_000)
            tasks.start_soon(deaf_one)
            for _ in range(5):  # meanwhile
                assert (await fetch(world.web(), world.url())).status == 200
        servers.cancel_scope.cancel()
    assert {name: type(each) for name, each in told.items()} == {
        "/silent": Unavailable,
        "/slow-head": Unavailable,
        "/stalls": Unavailable,
        "/deaf": Unavailable,
        "/slow-body": Exhausted,
        "/brief": Exhausted,
    }
    assert f"{IDLE_S:g} s" in told["/silent"].message


async def test_an_answer_that_comes_before_the_body_was_sent_counts(world: World) -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, create_task_group() as tasks:

        async def hasty(stream: ByteStream) -> None:
            async with stream:
                await stream.receive(100)
                await stream.send(ok(b"too large", "Connection: close", status="413 Too Large"))
                with anyio.move_on_after(10):
                    await stream.receive()

        tasks.start_soon(listener.serve, hasty)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        got = await fetch(world.web(), f"http://site.test:{port}/", "POST", body=b"x" * 40_000_000)
        assert (got.status, got.body) == (413, b"too large")
        tasks.cancel_scope.cancel()


async def test_nobody_there_is_said(world: World) -> None:
    error = await refused(world, "http://127.0.0.1:1/")
    assert isinstance(error, Unavailable)
    assert "Nobody answers" in error.message


async def test_why_a_name_is_not_reached_is_in_the_journal_only(world: World) -> None:
    error = await refused(world, world.hidden("inside.test"))
    assert error.message == "rule address: inside.test leads to no address that may be reached."
    told = (await world.acts())[0]
    assert (told["address"], told["why"]) == ("127.0.0.2", "the address is loopback")


# --- what was decided about is what goes


async def test_an_approval_is_for_these_headers_and_a_body_that_nobody_sees_is_not_asked_about(world: World) -> None:
    web, approvals = world.web("asker"), world.lab.services.approvals
    first, done = CancelScope(), anyio.Event()

    async def one(name: str, value: bytes, scope: CancelScope) -> None:
        with scope:
            await fetch(web, world.url("/asked"), "DELETE", headers=[(name, value), ("Authorization", b"mine")])
            done.set()

    async with create_task_group() as tasks:
        tasks.start_soon(one, "X-Nothing", b"x", first)
        tasks.start_soon(one, "X-Data", b"A" * 3000, other := CancelScope())
        with fail_after(20):
            while len(asked := await approvals.pending()) < 2:
                await anyio.lowlevel.checkpoint()
            (harmless,) = [each for each in asked if "X-Nothing: x" in each.form]
            assert "mine" not in harmless.form
            assert "Authorization: (4 bytes)" in harmless.form
            await approvals.approve(harmless.id, by="operator", uses=2)
            await done.wait()
        assert [each.id for each in await approvals.pending()] == [each.id for each in asked if each is not harmless]
        other.cancel()
    assert [each.headers.get("x-nothing") for each in world.site.asked if "/asked" in each.line] == ["x"]
    with pytest.raises(Denied, match=r"^rule asks: .*nobody sees it"):
        await fetch(web, world.url("/asked"), "POST", body=b"x" * 100_000)
    assert len(await approvals.pending()) == 1


async def test_an_upload_takes_nothing_along_that_was_read_after_it_began(world: World) -> None:
    taints = world.lab.services.taints

    async def body(web: LocalWeb, *read: str) -> AsyncIterator[bytes]:
        yield b"a" * 70_000
        if read == ("page",):
            await fetch(web, world.url("/page"))
        else:
            await taints.add(web.identity, read)
        yield b"what was read"

    before = len(world.site.asked)
    for mad, read in (("poster", "file"), ("poster", "page")):
        web = world.web(mad)
        with pytest.raises(Denied, match="while its body was sent"):
            await fetch(web, world.url("/late"), "POST", body=body(web, read))
    assert [each for each in world.site.asked[before:] if "/late" in each.line] == []  # none came to its end
    for mad, labels in (("wanderer", ["file"]), ("poster", [])):
        web = world.web(mad)
        got = await fetch(web, world.url("/late"), "POST", body=body(web, *labels))
        assert got.status == 200
        assert world.site.asked[-1].body.endswith(b"what was read")


# --- TLS


async def test_the_name_shown_the_host_asked_and_the_certificate_are_one(world: World) -> None:
    got = await fetch(world.web(), world.https("/x"))
    assert got.status == 200
    assert world.names_shown[-1] == "secure.test"
    assert world.secure.asked[-1].headers["host"] == f"secure.test:{world.secure.port}"
    got = await fetch(world.web(), world.https("/x", host="127.0.0.1"))
    assert got.status == 200


async def test_a_certificate_of_another_host_is_refused(world: World) -> None:
    before = len(world.secure.asked)
    for host in ("wrong.test", "other.test"):
        error = await refused(world, world.https(host=host))
        assert isinstance(error, Unavailable)
        assert "certificate" in error.message
    assert len(world.secure.asked) == before


async def test_certificates_of_strangers_and_old_ones_are_refused(world: World, tmp_path: Path) -> None:
    stranger = Authority.made(tmp_path).context("secure.test")
    old = world.authority.context("secure.test", is_expired=True)
    for tls in (stranger, old):
        async with a_site({}, tls=tls) as site:
            error = await refused(world, f"https://secure.test:{site.port}/")
            assert isinstance(error, Unavailable)
            assert "certificate" in error.message
            assert not site.asked


async def test_no_tls_where_tls_was_asked_for_is_an_error_and_so_is_the_reverse(world: World) -> None:
    async def plain(stream: ByteStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, create_task_group() as tasks:
        tasks.start_soon(listener.serve, plain)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        error = await refused(world, f"https://site.test:{port}/")
        assert isinstance(error, Unavailable)
        assert "no TLS" in error.message
        tasks.cancel_scope.cancel()
    assert isinstance(await refused(world, f"http://secure.test:{world.secure.port}/"), Unavailable)


async def test_bytes_after_an_answer_are_not_the_next_one_with_tls_either(world: World) -> None:
    world.answers["/poison"] = ok(b"first") + ok(b"POISON")
    web = world.web()
    for _ in range(2):
        assert (await fetch(web, world.https("/poison"))).body == b"first"
        assert (await fetch(web, world.https("/next"))).body == b"hello"


# --- nothing is shared


async def test_connections_are_a_runs_own_and_end_with_it(world: World) -> None:
    one, other = world.web(), world.web()
    await fetch(one, world.url("/a"))
    await fetch(one, world.url("/b"))
    await fetch(other, world.url("/c"))
    a, b, c = world.site.asked[-3:]
    assert a.peer == b.peer != c.peer
    left = world.site.left
    egress = world.lab.services.egress
    assert egress is not None
    await egress.forget(one.identity.principals[0])
    with fail_after(10):
        while world.site.left == left:
            await anyio.lowlevel.checkpoint()
    await fetch(one, world.url("/d"))
    assert world.site.asked[-1].peer != a.peer


async def test_nothing_is_remembered_for_a_server(world: World) -> None:
    world.answers["/cookie"] = ok(b"x", "Set-Cookie: a=b", 'ETag: "1"', "Cache-Control: max-age=9999")
    web = world.web()
    got = await fetch(web, world.url("/cookie"))
    assert got.header("set-cookie") == b"a=b"
    await fetch(web, world.url("/cookie"))
    assert set(world.site.asked[-1].headers) == {"host"}


async def test_who_stops_reading_ends_the_exchange(world: World) -> None:
    over = anyio.Event()

    async def endless(stream: ByteStream, asked: Asked) -> None:
        try:
            await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                await stream.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        finally:
            over.set()

    world.answers["/endless"] = endless
    head = RequestHead(method="GET", url=world.url("/endless"))
    with fail_after(10):
        async with aclosing(world.web().fetch(head)) as events:  # type: ignore[type-var]
            async for _ in events:
                break
        await over.wait()


async def test_one_runs_many_requests_wait_for_each_other_and_not_for_others(world: World) -> None:
    gate = anyio.Event()

    async def held(stream: ByteStream, asked: Asked) -> None:
        await gate.wait()
        await stream.send(ok(b"at last"))

    world.answers["/held"] = held
    greedy = world.web()
    done: list[bytes] = []

    async def one() -> None:
        done.append((await fetch(greedy, world.url("/held"), seconds=25)).body)

    before = len(world.site.asked)
    async with create_task_group() as tasks:
        for _ in range(40):
            tasks.start_soon(one)
        with fail_after(20):
            while len(world.site.asked) - before < 32:
                await anyio.lowlevel.checkpoint()
            assert (await fetch(world.web(), world.url("/other"))).status == 200
        assert len([each for each in world.site.asked[before:] if "/held" in each.line]) == 32
        gate.set()
    assert done == [b"at last"] * 40


async def events_of(world: World, path: str) -> list[FetchEvent]:
    """What comes to somebody who takes a short answer as one."""
    head = RequestHead(id=new_id(), method="GET", url=world.url(path), together=True)
    with fail_after(30):
        async with aclosing(world.web().fetch(head)) as events:  # type: ignore[type-var]
            return [each async for each in events]


async def test_a_short_answer_is_one_event_for_who_takes_it_so_and_a_head_without_its_body_waits_for_nothing(
    world: World,
) -> None:
    more = anyio.Event()

    async def later(stream: ByteStream, asked: Asked) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        await more.wait()
        await stream.send(b"later")

    world.answers |= {"/later": later, "/large": ok(b"x" * 1_000_000)}
    (whole,) = await events_of(world, "/")
    assert [whole.head.status, *(each.WhichOneof("kind") for each in whole.then)] == [200, "bytes", "end"]
    assert whole.then[0].bytes == b"hello"
    assert whole.then[1].end.bytes_received == 5

    first, *rest = await events_of(world, "/large")
    assert first.HasField("head")
    assert not first.then
    assert sum(len(each.bytes) for each in rest) == 1_000_000

    head = RequestHead(id=new_id(), method="GET", url=world.url("/later"), together=True)
    with fail_after(30):
        async with aclosing(world.web().fetch(head)) as events:  # type: ignore[type-var]
            assert (await anext(events)).head.status == 200
            more.set()
            assert [each.WhichOneof("kind") async for each in events] == ["bytes", "end"]
