"""The proxy of a sandbox: programs go through it and cannot tell; what they may not do is said to them."""

import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from anyio import fail_after, to_thread

from periphery.proxy import Proxy, open_proxy
from tests.a_site import a_site
from tests.a_web import AWeb

URLLIB = """
import sys, urllib.request, urllib.error
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=60).read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.reason); print(error.read().decode())
"""


@asynccontextmanager
async def a_proxy() -> AsyncIterator[tuple[Proxy, AWeb]]:
    with a_site() as site, fail_after(120):
        web = AWeb({"https://shop.test": site, "http://shop.test": site, "https://shop.test:8443": site})
        async with open_proxy(web) as proxy:
            yield proxy, web


async def run(proxy: Proxy, *command: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": os.environ["PATH"], "HOME": str(proxy.directory), **proxy.environment()}
    call = partial(subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return await to_thread.run_sync(call)


async def raw(proxy: Proxy, sent: bytes) -> bytes:
    def speak() -> bytes:
        host, port = proxy.address.split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    return await to_thread.run_sync(speak)


async def test_a_program_reaches_https_hosts_and_trusts_what_it_was_told_to_trust() -> None:
    async with a_proxy() as (proxy, web):
        ran = await run(proxy, sys.executable, "-c", URLLIB, "https://shop.test/goods?page=2")
        assert json.loads(ran.stdout)["path"] == "/goods?page=2", ran.stderr
        assert [each.url for each in web.heads] == ["https://shop.test/goods?page=2"]
        ran = await run(proxy, sys.executable, "-c", URLLIB, "https://shop.test:8443/")
        assert json.loads(ran.stdout)["path"] == "/", ran.stderr
        ran = await run(proxy, sys.executable, "-c", URLLIB, "http://shop.test/plain")
        assert json.loads(ran.stdout)["path"] == "/plain", ran.stderr


async def test_one_connection_carries_one_request_after_the_other() -> None:
    async with a_proxy() as (proxy, web):
        ask = "GET http://shop.test/%d HTTP/1.1\r\nHost: shop.test\r\n\r\n"
        said = await raw(proxy, "".join(ask % number for number in range(3)).encode())
        assert said.count(b"HTTP/1.1 200") == 3
        assert [each.url for each in web.heads] == [f"http://shop.test/{number}" for number in range(3)]


async def test_what_may_not_be_reached_is_said_to_the_program() -> None:
    async with a_proxy() as (proxy, _):
        ran = await run(proxy, sys.executable, "-c", URLLIB, "https://elsewhere.test/")
        status, _, said = ran.stdout.partition("\n")
        assert status.startswith("403 madlab: rule host"), ran.stdout + ran.stderr
        error = json.loads(said)["error"]
        assert error["code"] == "PERMISSION_DENIED"
        assert error["next"] == "Add a rule."


@pytest.mark.skipif(not os.path.exists("/usr/bin/curl"), reason="curl is not installed")
async def test_curl_posts_streams_and_does_not_follow_by_itself() -> None:
    async with a_proxy() as (proxy, web):
        ran = await run(proxy, "curl", "-sS", "-d", "a" * 100_000, "-H", "Expect: 100-continue", "https://shop.test/p")
        assert json.loads(ran.stdout)["length"] == 100_000, ran.stderr
        assert web.bodies[-1] == b"a" * 100_000
        ran = await run(proxy, "curl", "-sS", "https://shop.test/large", "-o", "/dev/null", "-w", "%{size_download}")
        assert ran.stdout == str(64 * 65536), ran.stderr
        ran = await run(proxy, "curl", "-sS", "-I", "https://shop.test/goods")
        assert "content-length" in ran.stdout.lower()
        ran = await run(proxy, "curl", "-sSL", "https://shop.test/moved")
        assert "rule host" in ran.stdout, "the redirect is a request of its own, and denied like any other"
        ran = await run(proxy, "curl", "-sS", "-w", "%{http_code}", "https://shop.test/nothing", "https://shop.test/x")
        assert ran.stdout.startswith("204"), "one connection serves several requests, also after an answer without body"
        assert '"path": "/x"' in ran.stdout


async def test_no_certificate_but_the_sandboxs_own_is_trusted_by_the_program() -> None:
    async with a_proxy() as (proxy, _), open_proxy(AWeb({})) as other:
        environment = {"SSL_CERT_FILE": str(other.authority().file)}
        code = f"import os; os.environ.update({environment!r})" + URLLIB
        ran = await run(proxy, sys.executable, "-c", code, "https://shop.test/")
        assert "CERTIFICATE_VERIFY_FAILED" in ran.stderr
        context = ssl.create_default_context(cafile=proxy.authority().file)
        assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", b"400"),
        (
            b"GET http://shop.test/ HTTP/1.1\r\nHost: shop.test\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            b"403",
        ),
        (b"CONNECT shop.test HTTP/1.1\r\nHost: shop.test\r\n\r\n", b"400"),
        (b"CONNECT :443 HTTP/1.1\r\nHost: shop.test\r\n\r\n", b"400"),
        (b"GET http://shop.test/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"GET  http://shop.test/ HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"\x16\x03\x01 what is this\r\n\r\n", b"400"),
    ],
)
async def test_what_is_no_request_for_the_world_is_answered_and_reaches_nobody(sent: bytes, status: bytes) -> None:
    async with a_proxy() as (proxy, web):
        answer = await raw(proxy, sent)
        assert answer.startswith(b"HTTP/1.1 " + status), answer
        assert web.heads == []


async def test_a_host_header_other_than_the_tunnels_is_refused() -> None:
    async with a_proxy() as (proxy, web):
        asked = b"CONNECT shop.test:80 HTTP/1.1\r\nHost: shop.test\r\n\r\n"
        answer = await raw(proxy, asked + b"GET / HTTP/1.1\r\nHost: bank.test\r\n\r\n")
        assert b"200 Connection established" in answer
        assert b"HTTP/1.1 400" in answer
        assert web.heads == []


async def test_a_program_that_breaks_off_its_body_does_not_stop_the_proxy() -> None:
    async with a_proxy() as (proxy, web):
        asked = b"POST http://shop.test/ HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100\r\n\r\nhalf"
        await raw(proxy, asked)
        assert web.bodies == [], "half a body is nothing that is sent"
        ran = await run(proxy, sys.executable, "-c", URLLIB, "https://shop.test/after")
        assert json.loads(ran.stdout)["path"] == "/after", ran.stderr
