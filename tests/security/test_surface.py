"""The one hardened surface, as whoever can reach loopback meets it: another user, a page from elsewhere, a client."""

import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from anyio import create_task_group, fail_after, run_process, sleep, sleep_forever

from core.grace.door import sessions
from core.grace.door.api import endpoints
from core.grace.door.events import OF_A_CLIENT
from core.grace.door.limits import WEB
from core.grace.door.routes import Endpoint
from core.lab import Lab
from protos.ids import new_id
from protos.tools import Call, tool
from tests.emads.echo import Echo
from tests.labs import a_home, opened
from tests.surface import Answer, Caller, answer_in, pieces

SETTINGS = '[residents]\necho = { class = "tests.emads.echo:Echo" }\n'
POLICY = """
[[rules]]
name = "no-repeating"
kinds = ["bus.call"]
principals = ["client:ann"]
targets = ["echo.repeat"]
verdict = "deny"

[[rules]]
name = "ask-first"
kinds = ["bus.call"]
principals = ["client:ann"]
targets = ["errand.keep"]
verdict = "ask"
"""
NOT_KNOWN = (401, 429)  # 429: so many wrong tokens have come that whoever comes with one has to wait
DOORS = [each for each in endpoints() if not each.anybody]
PAGE = ("//", "//runs", "//lab/echo")
MAY = ["errand", "echo"]


@pytest.fixture(scope="module")
async def lab() -> AsyncIterator[Lab]:
    with a_home(SETTINGS) as home:
        (home.path / "policy.toml").write_text(POLICY)
        async with opened(home, errand=Echo) as lab:
            yield lab


@pytest.fixture(scope="module")
def operator(lab: Lab) -> Caller:
    """At the lab's own socket."""
    return Caller(lab, unix=True)


@pytest.fixture(scope="module")
async def page(operator: Caller) -> Caller:
    """The operator in a browser."""
    return await session(operator)


@pytest.fixture(scope="module")
async def ann(operator: Caller) -> Caller:
    return await client(operator, "ann", MAY)


@pytest.fixture(scope="module")
async def bob(operator: Caller) -> Caller:
    return await client(operator, "bob", MAY)


@pytest.fixture
def stranger(lab: Lab) -> Caller:
    return Caller(lab)


async def session(operator: Caller) -> Caller:
    """A new session of the operator's."""
    ticket = (await operator.ask("POST", "/tickets", {})).json["ticket"]
    opened = await Caller(operator.lab).ask("POST", "/sessions", {"ticket": ticket})
    assert opened.status == 201, opened
    return Caller(operator.lab, opened.json["token"])


async def client(operator: Caller, name: str, may: list[str], **more: Any) -> Caller:
    """A new client."""
    made = await operator.ask("POST", "/clients", {"name": name, "may": may, **more})
    assert made.status == 201, made
    return Caller(operator.lab, made.json["token"])


def call(mad: str, tool: str, conversation: str = "", **arguments: Any) -> dict[str, Any]:
    message = {"recipient": mad, "kind": "call", "tool": tool, "arguments": arguments}
    return message | ({"conversation": conversation} if conversation else {})


def is_refusal(answer: Answer) -> bool:
    """Whether it is the one kind of refusal there is, without a trace of what is inside."""
    error = answer.json["error"]
    return set(error) == {"code", "message", "next"} and "Traceback" not in error["message"]


def path_of(endpoint: Endpoint, id: str = "x") -> str:
    """Some address of an endpoint."""
    place = re.sub(r"\{\w+(:\w+)?\}", id, endpoint.path)
    return place if endpoint.base else f"/{place}"


def browser_runs_nothing_of(answer: Answer) -> bool:
    """Whether a browser that is led to it runs nothing, frames nothing, tells nobody and grants nobody anything."""
    headers, policy = answer.headers, answer.headers["content-security-policy"]
    for directive in (
        *("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"),
        *("require-trusted-types-for 'script'", "trusted-types 'none'"),
    ):
        assert directive in policy.split("; "), policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["permissions-policy"]
    assert headers["cache-control"]
    return not any(name.startswith(("access-control-", "set-cookie")) for name in headers)


# --- whoever has no token


async def test_every_route_wants_a_token_and_says_no_in_one_way(stranger: Caller) -> None:
    for each in DOORS:
        answer = await stranger.ask(each.method, path_of(each))
        assert (each.place, answer.status) == (each.place, 401)
        assert is_refusal(answer)
        assert browser_runs_nothing_of(answer)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["madlab-request-id"]


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer wrong",
        "Bearer ",
        "Bearer",
        "bearer madlab_client_" + "A" * 43,
        "Bearer madlab_session_" + "A" * 43,
        "Bearer " + "A" * 5000,
        "Basic b3BlcmF0b3I6",
        "operator",
        "Bearer \xff\xfe",
    ],
)
async def test_a_wrong_token_is_none(stranger: Caller, page: Caller, authorization: str) -> None:
    for place in ("/status", "/whoami", "/nothing-there"):
        answer = await stranger.ask("GET", place, headers={"Authorization": authorization})
        assert answer.status in NOT_KNOWN
        assert is_refusal(answer)
    assert (await page.ask("GET", "/whoami")).status == 200


async def test_guesses_are_slowed_down_and_nobody_else(stranger: Caller, page: Caller, ann: Caller) -> None:
    found = [(await stranger.ask("GET", "/whoami", headers={"Authorization": f"Bearer {n}"})).status for n in range(60)]
    assert set(found) <= set(NOT_KNOWN)
    assert 429 in found
    assert (await stranger.ask("POST", "/sessions", {"ticket": "x" * 43})).status in NOT_KNOWN
    assert [(await each.ask("GET", "/whoami")).status for each in (page, ann)] == [200, 200]


async def test_a_token_elsewhere_than_in_its_header_is_none(stranger: Caller, page: Caller) -> None:
    for path in (f"/status?access_token={page.token}", f"/status?token={page.token}"):
        assert (await stranger.ask("GET", path)).status == 401
    assert (await stranger.ask("GET", "/status", headers={"Cookie": f"token={page.token}"})).status == 401


# --- sessions and clients


async def test_a_ticket_is_good_once(operator: Caller, stranger: Caller) -> None:
    ticket = (await operator.ask("POST", "/tickets", {})).json["ticket"]
    first, second = [await stranger.ask("POST", "/sessions", {"ticket": ticket}) for _ in range(2)]
    assert first.status == 201
    assert second.status in NOT_KNOWN
    who = (await Caller(stranger.lab, first.json["token"]).ask("GET", "/whoami")).json
    assert (who["principal"], who["local"]) == ("operator", False)


async def test_a_ticket_is_good_for_a_minute(
    operator: Caller, stranger: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "TICKET_S", 0.0)
    ticket = (await operator.ask("POST", "/tickets", {})).json["ticket"]
    assert (await stranger.ask("POST", "/sessions", {"ticket": ticket})).status in NOT_KNOWN


async def test_what_makes_tokens_or_carries_secrets_away_needs_the_labs_own_socket(page: Caller, ann: Caller) -> None:
    local = [each for each in DOORS if each.local]
    assert {each.path for each in local} >= {"/tickets", "/clients", "/vault/export"}
    for each in local:
        for caller, rule in ((page, "rule local"), (ann, "rule operator")):
            answer = await caller.ask(each.method, path_of(each), {})
            assert answer.status == 403
            assert answer.json["error"]["message"].startswith(rule)


async def test_a_session_that_ends_itself_is_told_so_and_is_over(operator: Caller) -> None:
    mine = await session(operator)
    ended = await mine.ask("DELETE", "/sessions/current")
    assert (ended.status, ended.json["holds"]) == (200, False)
    assert (await mine.ask("GET", "/whoami")).status in NOT_KNOWN


async def test_revoking_ends_what_is_open_at_once(operator: Caller) -> None:
    mine, other = await session(operator), await client(operator, "streaming", MAY)
    id = next(each["id"] for each in (await mine.ask("GET", "/sessions")).json["sessions"] if each["current"])
    said = (await other.ask("POST", "/messages", call("echo", "say", text="x"))).json
    path = f"/conversations/{said['conversation']}/messages"
    for caller, revoke in ((mine, f"/sessions/{id}/revoke"), (other, "/clients/streaming/revoke")):
        async with caller.following(path) as came:
            assert (await operator.ask("POST", revoke, {})).status == 200
            with fail_after(30):
                assert [each async for each in came if b"event: end" in each] == []
        assert (await caller.ask("GET", path)).status in NOT_KNOWN


async def test_a_token_that_expires_ends_what_is_open(operator: Caller) -> None:
    said = (await operator.ask("POST", "/messages", call("echo", "say", text="x"))).json
    path = f"/conversations/{said['conversation']}/messages"
    for life_s in (1.0, 5.0, 25.0):  # on a busy machine the first may be over before anything was asked
        brief = await client(operator, f"brief-{life_s:g}", MAY, sees="all", ttl_s=life_s)
        if (await brief.ask("GET", path)).status != 200:
            continue
        with suppress(AssertionError):
            async with brief.following(path) as came:
                with fail_after(60):
                    assert [each async for each in came if b"event: end" in each] == []
                break
    else:
        pytest.fail("nothing could be followed")
    assert (await brief.ask("GET", "/whoami")).status in NOT_KNOWN


async def test_a_session_is_for_the_origin_that_it_was_opened_at(lab: Lab, page: Caller) -> None:
    before = lab.origin
    lab.origin = "another, at the same port"
    try:
        answer = await page.ask("GET", "/whoami")
    finally:
        lab.origin = before
    assert answer.status in NOT_KNOWN
    assert (await page.ask("GET", "/whoami")).status == 200


async def test_tokens_outlive_the_core_and_so_do_their_ends() -> None:
    with a_home(SETTINGS) as home:
        async with opened(home) as lab:
            operator = Caller(lab, unix=True)
            kept, revoked = await client(operator, "kept", []), await client(operator, "revoked", [])
            mine, web = await session(operator), lab.web
            await operator.ask("POST", "/clients/revoked/revoke", {})
        async with opened(home) as lab:
            assert lab.web == web  # the same port: pages that are open find it again
            for caller, expected in ((kept, (200,)), (mine, (200,)), (revoked, NOT_KNOWN)):
                assert (await Caller(lab, caller.token).ask("GET", "/whoami")).status in expected


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
async def test_another_user_of_the_machine_gets_nothing_from_a_good_token(stranger: Caller, page: Caller) -> None:
    program = """
import os, socket, sys
"".encode("idna")  # so that nothing is to be imported as nobody
host, port, data = sys.argv[1], int(sys.argv[2]), sys.stdin.buffer.read()
os.setgid(65534); os.setuid(65534)
with socket.create_connection((host, port), 30) as connection:
    connection.sendall(data)
    print(connection.recv(15).decode())
"""
    address, _, port = page.host.rpartition(":")
    command = [sys.executable, "-I", "-c", program, address, port]
    done = await run_process(command, input=page.head("GET", "/api/v1/whoami", {}))
    assert done.stdout.split()[1] in (b"401", b"429")
    done = await run_process(command, input=page.head("GET", "/api/v1/whoami", {"Authorization": None}))
    assert done.stdout.split()[1] == b"401"


# --- pages from elsewhere


HOSTS = ["", "evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.:{port}", "localhost"]
HOSTS += ["LOCALHOST.:{port}", "[::1]:{port}", "0.0.0.0:{port}", "127.1:{port}", "2130706433:{port}"]
HOSTS += ["127.0.0.1:{port}@evil.example", "127.0.0.1:{port},evil.example", "localhost:{port}.evil.example"]


@pytest.mark.parametrize("host", HOSTS)
async def test_a_name_that_was_rebound_to_loopback_is_not_ours(page: Caller, host: str) -> None:
    said = host.format(port=page.host.rpartition(":")[2])
    for path in ("/whoami", "//"):
        answer = await page.ask("GET", path, headers={"Host": said})
        assert answer.status == 403
        assert answer.json["error"]["message"].startswith("rule host")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_both_names_of_loopback_are_ours(page: Caller, name: str) -> None:
    host = f"{name}:{page.host.rpartition(':')[2]}"
    answer = await page.ask("GET", "/whoami", headers={"Host": host, "Origin": f"http://{host}"})
    assert answer.status == 200


FOREIGN: list[dict[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "https://{host}"},
    {"Origin": "http://{host}.evil.example"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},  # another port of ours is another server
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_page_from_elsewhere_gets_nothing_and_does_nothing(
    operator: Caller, page: Caller, headers: dict[str, str]
) -> None:
    """Even with a token in hand, which no browser would give it."""
    told = {name: value.format(host=page.host) for name, value in headers.items()}
    before = (await operator.ask("GET", "/conversations")).json
    simple = told | {"Content-Type": "text/plain"}
    answers = [
        await page.ask("POST", "/messages", call("echo", "say", text="x"), headers=simple),
        await page.ask("GET", "/status", headers=told),
        await page.ask("GET", "//", headers=told),
        await page.ask("POST", "/sessions", {"ticket": "x"}, headers=told),
        await page.ask("OPTIONS", "/messages", headers=told | {"Access-Control-Request-Method": "POST"}),
    ]
    for each in answers:
        assert each.status == 403
        assert is_refusal(each)
        assert browser_runs_nothing_of(each)
    assert (await operator.ask("GET", "/conversations")).json == before


async def test_cors_is_granted_to_nobody_not_even_to_us(page: Caller) -> None:
    for origin in (f"http://{page.host}", None):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = await page.ask("OPTIONS", "/messages", headers=asked)
        assert answer.status == 405
        assert browser_runs_nothing_of(answer)


async def test_a_link_from_elsewhere_leads_to_the_page_and_to_nothing_else(page: Caller) -> None:
    """A browser follows it without a token. Whoever sends one along is nobody, too."""
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert (await page.ask("GET", "//runs", headers=link)).status == 200
    assert (await page.ask("GET", "/whoami", headers=link)).status == 401
    assert (await page.ask("POST", "/messages", call("echo", "say", text="x"), headers=link)).status == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "http://{host}", None])
async def test_there_is_no_websocket(page: Caller, origin: str | None) -> None:
    asked = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Origin": origin and origin.format(host=page.host),
    }
    for path in ("/events", "//mcp", "//"):
        answer = await page.ask("GET", path, headers=asked)
        assert answer.status in (400, 403)
        assert is_refusal(answer)


@pytest.mark.parametrize("path", PAGE)
async def test_the_page_cannot_be_framed_and_runs_its_own_scripts_only(stranger: Caller, path: str) -> None:
    answer = await stranger.ask("GET", path)
    assert answer.status == 200
    assert browser_runs_nothing_of(answer)
    for what in ("script-src", "style-src", "img-src", "connect-src"):
        assert f"{what} 'self'" in answer.headers["content-security-policy"].split("; ")
    assert "worker-src 'none'" in answer.headers["content-security-policy"].split("; ")


async def test_who_asks_for_a_service_worker_gets_one_that_ends_itself(stranger: Caller) -> None:
    for path in ("//assets/js/app.js", "//deep/evil.js", "/blobs/x"):
        answer = await stranger.ask("GET", path, headers={"Service-Worker": "script"})
        assert (answer.status, answer.headers["content-type"]) == (200, "text/javascript")
        assert answer.headers["service-worker-allowed"] == "/"
        assert b"registration.unregister()" in answer.body
        elsewhere = {"Service-Worker": "script", "Host": "evil.example"}
        assert (await stranger.ask("GET", path, headers=elsewhere)).status == 403


async def test_a_blob_is_never_anything_that_a_browser_would_show(ann: Caller) -> None:
    content = b"<!doctype html><script>alert(document.domain)</script>"
    blob = (await ann.ask("POST", "/blobs?name=a.html&media_type=text/html", content)).json
    answer = await ann.ask("GET", f"/blobs/{blob['digest']}")
    assert (answer.status, answer.body) == (200, content)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in answer.headers["content-security-policy"].split("; ")
    assert browser_runs_nothing_of(answer)


# --- requests that are none, or two


def tricks(host: str, token: str) -> dict[str, bytes]:
    """Requests that somebody might understand in another way than somebody else; each asks for what a token gets."""
    own = f"Host: {host}\r\nAuthorization: Bearer {token}\r\n".encode()
    close, body = b"Connection: close\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"
    next = b"GET /api/v1/whoami HTTP/1.1\r\n" + own + close
    get = b"GET /api/v1/whoami HTTP/1.1\r\n"
    return {
        "absolute form": b"GET http://evil.example/api/v1/whoami HTTP/1.1\r\n" + own + close,
        "absolute form of ours": f"GET http://{host}/api/v1/whoami HTTP/1.1\r\n".encode() + own + close,
        "asterisk": b"OPTIONS * HTTP/1.1\r\n" + own + close,
        "authority": b"CONNECT evil.example:443 HTTP/1.1\r\n" + own + close,
        "two hosts": get + own + b"Host: evil.example\r\n" + close,
        "no host": get + f"Authorization: Bearer {token}\r\n".encode() + close,
        "old protocol without a host": b"GET /api/v1/whoami HTTP/1.0\r\n"
        + f"Authorization: Bearer {token}\r\n\r\n".encode(),
        "two tokens": get + own + b"Authorization: Bearer x\r\n" + close,
        "two origins": get + own + f"Origin: http://{host}\r\nOrigin: http://evil.example\r\n".encode() + close,
        "two lengths": b"POST /api/v1/messages HTTP/1.1\r\n"
        + own
        + b"Content-Length: 2\r\nContent-Length: 40\r\n"
        + close
        + b"{}"
        + next,
        "a length and chunks": b"POST /api/v1/messages HTTP/1.1\r\n"
        + own
        + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        + body
        + next,
        "chunks of another kind": b"POST /api/v1/messages HTTP/1.1\r\n"
        + own
        + b"Transfer-Encoding: xchunked\r\n\r\n"
        + body
        + next,
        "chunks twice": b"POST /api/v1/messages HTTP/1.1\r\n"
        + own
        + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"
        + body
        + next,
        "a chunk of no size": b"POST /api/v1/messages HTTP/1.1\r\n"
        + own
        + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n"
        + next,
        "a length with a sign": b"POST /api/v1/messages HTTP/1.1\r\n" + own + b"Content-Length: +2\r\n\r\n{}" + next,
        "a space before the colon": get + own + b"X-Thing : y\r\n" + close,
        "a bare line feed": get + own + b"X-Thing: a\nAuthorization: Bearer x\r\n" + close,
        "a NUL in a header": get + own + b"X-Thing: a\0b\r\n" + close,
        "a NUL in the path": b"GET /api/v1/whoami\0 HTTP/1.1\r\n" + own + close,
        "a head without an end": get + own + b"X-Thing: " + b"a" * 40_000,
        "a head of many bytes": get + own + b"X-Thing: " + b"a" * 40_000 + b"\r\n" + close,
        "a head of many lines": get + own + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + close,
        "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 600,
        "the next protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "an upgrade to the next protocol": get + own + b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n" + close,
    }


@pytest.mark.parametrize("name", tricks("", ""))
async def test_a_request_that_is_none_or_two_is_refused(page: Caller, name: str) -> None:
    came = await page.say(tricks(page.host, page.token)[name])
    answer = answer_in(came)  # and there is one only
    assert 400 <= answer.status < 500
    assert is_refusal(answer)
    assert browser_runs_nothing_of(answer)


@pytest.mark.parametrize(
    "path",
    [
        "//api/v1/../../etc/passwd",
        "//api/v1/%2e%2e/%2e%2e/etc/passwd",
        "//api/v1/runs/..%2f..%2fstatus",
        "//api/v1/%00",
        "//api/v1//status",
        "//API/v1/status",
        "//api/v1/status/",
        "//api/v1/status%20",
        "//api/v1/status;x=1",
        "//api/v1/status%3fx",
        "//api/v1/blobs/..%2f..%2fjournal.db",
        "//api/v1/files/%2e%2e%2fjournal.db",
        "//assets/../config.py",
        "//assets/%2e%2e/%2e%2e/config.py",
        "//assets/..%2f..%2fconfig.py",
        "//assets//etc/passwd",
        "///127.0.0.1/api/v1/status",
        "//.git/config",
        "//core.log",
    ],
)
async def test_a_crooked_path_leads_nowhere(page: Caller, stranger: Caller, path: str) -> None:
    answer = await page.ask("GET", path)
    assert answer.status in (400, 404)
    assert is_refusal(answer)
    assert (await stranger.ask("GET", path)).status in (400, 401, 404)


@pytest.mark.parametrize(
    "method", ["HEAD", "OPTIONS", "TRACE", "PATCH", "PROPFIND", "get", "DEBUG", "POST\t", "X" * 50]
)
async def test_a_method_that_is_not_declared_does_nothing(page: Caller, method: str) -> None:
    came = await page.say(page.head(method, "/api/v1/status", {}))
    assert came.split()[1] in (b"400", b"405")
    if b" 405 " in came[:20]:
        assert b"allow: GET" in came.lower().replace(b"allow: get", b"allow: GET")


@pytest.mark.parametrize("path", ["/", "/runs/x", "/assets/style.css"])
async def test_what_anybody_may_get_answers_head_without_a_body(page: Caller, path: str) -> None:
    got = answer_in(await page.say(page.head("GET", path, {"Connection": "close"})))
    told, _, body = (await page.say(page.head("HEAD", path, {"Connection": "close"}))).partition(b"\r\n\r\n")
    assert told.split()[1] == b"200"
    assert f"content-length: {len(got.body)}".encode() in told.lower()
    assert body == b""


async def test_a_parameter_that_is_not_declared_or_comes_twice_is_refused(page: Caller) -> None:
    for query in ("?limt=1", "?limit=1&limit=2", "?limit=x", "?state=green"):
        assert (await page.ask("GET", f"/runs{query}")).status == 400


# --- too much, too slow


async def test_a_body_that_is_too_long_is_cut_off(page: Caller, stranger: Caller) -> None:
    head = page.head("POST", "/api/v1/messages", {"Content-Length": str(1 << 40)})
    answer = answer_in(await page.say(head + b" " * 400_000))
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    head = page.head("POST", "/api/v1/messages", {"Transfer-Encoding": "chunked"})
    answer = answer_in(
        await page.say(head + b"%x\r\n" % 100_000 + b" " * 100_000 + b"\r\n5000000\r\n" + b" " * 300_000)
    )
    assert answer.status == 400
    head = stranger.head("POST", "/api/v1/blobs", {"Content-Length": str(1 << 40)})
    assert answer_in(await stranger.say(head + b"x" * 1000)).status == 401


async def test_whoever_is_slow_or_silent_takes_the_place_of_nobody_else(lab: Lab, page: Caller, ann: Caller) -> None:
    """Half heads, half bodies, readers that do not read; and honest clients, old and new, who are served meanwhile."""
    said = (await ann.ask("POST", "/messages", call("echo", "repeat", text="x" * 15_000, times=1))).status
    assert said == 403  # the policy narrows what a client may
    talk = (await ann.ask("POST", "/messages", call("echo", "say", text="x" * 15_000))).json["conversation"]
    stranger = Caller(lab)
    body = ann.head("POST", "/api/v1/blobs", {"Content-Length": "1000000"}) + b"x"
    reads = ann.head("GET", f"/api/v1/conversations/{talk}/messages", {"Accept": "text/event-stream"})
    async with AsyncExitStack() as held:

        async def hold(data: bytes) -> None:
            stream = await held.enter_async_context(stranger.connected())
            await stream.send(data)

        for _ in range(10):
            await hold(body)
            await hold(reads)
        for _ in range(WEB.strangers // 2 + 10):
            await hold(b"\r\n")
            await hold(b"GET / HTTP/1.1\r\nHost: ")
        for _ in range(10):
            for who, path in ((page, "/whoami"), (stranger, "//"), (page, "/runs")):
                await hold(b"GET / HTTP/1.1\r\nHost: ")
                with fail_after(30):
                    assert (await who.ask("GET", path)).status == 200


async def test_the_stranger_who_waited_longest_makes_place(lab: Lab, page: Caller) -> None:
    stranger = Caller(lab)
    async with AsyncExitStack() as held:
        oldest = await held.enter_async_context(stranger.connected())
        await oldest.send(b"GET / HTTP/1.1\r\n")
        for _ in range(WEB.strangers):
            await held.enter_async_context(stranger.connected())
        with fail_after(WEB.head_s / 2):  # long before it would be hung up on for being slow
            assert [each async for each in pieces(oldest)] == []
        assert (await page.ask("GET", "/whoami")).status == 200


# --- clients


async def test_a_client_has_no_way_into_what_is_the_operators(ann: Caller) -> None:
    """From the table of routes: one more is covered by itself."""
    for each in DOORS:
        if not each.clients:
            answer = await ann.ask(each.method, path_of(each), {} if each.method in ("POST", "PUT") else None)
            assert (each.place, answer.status) == (each.place, 403)
            assert answer.json["error"]["message"].startswith("rule operator")


async def test_a_client_calls_what_was_named_and_nothing_else(operator: Caller) -> None:
    carl = await client(operator, "carl", ["echo.say"])
    assert (await carl.ask("POST", "/messages", call("echo", "say", text="x"))).status == 202
    prose = {"recipient": "echo", "kind": "prose", "text": "x"}
    for message in (call("echo", "repeat", text="x", times=2), call("errand", "say", text="x"), prose):
        answer = await carl.ask("POST", "/messages", message)
        assert answer.status == 403
        assert answer.json["error"]["message"].startswith("rule port: client:carl")
    assert [each["name"] for each in (await carl.ask("GET", "/tools")).json["tools"]] == ["echo.say"]
    acts = (await operator.ask("GET", "/audit?principal=client:carl")).json["acts"]
    assert [each["outcome"] for each in acts if each["rule"] == "port"] == ["denied"] * 3


async def test_the_policy_narrows_what_a_client_may(ann: Caller, bob: Caller) -> None:
    message = call("echo", "repeat", text="x", times=2)
    denied = await ann.ask("POST", "/messages", message)
    assert (denied.status, denied.json["error"]["message"][:17]) == (403, "rule no-repeating")
    assert (await bob.ask("POST", "/messages", message)).status == 202


async def test_a_message_of_a_client_carries_its_name(operator: Caller, ann: Caller) -> None:
    said = (await ann.ask("POST", "/messages", call("errand", "say", text="x"))).json
    found = (await operator.ask("GET", f"/conversations/{said['conversation']}/messages")).json["messages"]
    assert found[0]["sender"] == "client:ann"
    for forged in ({"sender": "operator"}, {"identity": "operator"}):
        answer = await ann.ask("POST", "/messages", call("echo", "say", text="x") | forged)
        assert answer.status == 400


async def test_two_clients_cannot_see_each_others_work(operator: Caller, ann: Caller, bob: Caller) -> None:
    said = (await ann.ask("POST", "/messages", call("errand", "say", text="a word of ann's"))).json
    blob = (await ann.ask("POST", "/blobs", b"a file of ann's")).json["digest"]
    theirs = (await operator.ask("POST", "/messages", call("errand", "say", text="the operator's"))).json
    kept = (await operator.ask("POST", "/blobs", b"a file of the operator's")).json["digest"]
    for thing, path, nothing in (
        (said["run"], "/runs/{}", "errand-0123456789"),
        (said["run"], "/runs/{}/logs", "errand-0123456789"),
        (said["conversation"], "/conversations/{}/messages", new_id()),
        (blob, "/blobs/{}", "sha256:" + "0" * 64),
        (theirs["run"], "/runs/{}", "errand-0123456789"),
        (theirs["conversation"], "/conversations/{}/messages", new_id()),
        (kept, "/blobs/{}", "sha256:" + "0" * 64),
    ):
        seen, none = await bob.ask("GET", path.format(thing)), await bob.ask("GET", path.format(nothing))
        assert (seen.status, none.status) == (404, 404)
        assert seen.body.replace(thing.encode(), b"") == none.body.replace(nothing.encode(), b"")
        assert (await operator.ask("GET", path.format(thing))).status == 200
    for each in endpoints():  # what takes a run, a conversation or a blob, whoever declared it
        if each.clients and "{" in each.path and each.base:
            kind = each.path.split("/")[1]
            thing = {"runs": said["run"], "conversations": said["conversation"], "blobs": blob}[kind]
            answer = await bob.ask(each.method, path_of(each, thing), {} if each.method != "GET" else None)
            assert (each.path, answer.status) in ((each.path, 404), (each.path, 400))
    mine = (await bob.ask("POST", "/messages", call("errand", "say", text="a word of bob's"))).json
    assert {each["id"] for each in (await bob.ask("GET", "/runs")).json["runs"]} == {mine["run"]}
    assert said["run"] in {each["id"] for each in (await ann.ask("GET", "/runs")).json["runs"]}
    for conversation in (said["conversation"], theirs["conversation"], "a-name", f"{said['conversation']}/x"):
        answer = await bob.ask("POST", "/messages", call("echo", "say", conversation=conversation, text="x"))
        assert answer.status == 404
    linked = call("echo", "say", text="x") | {"blobs": [{"digest": blob}]}
    assert (await bob.ask("POST", "/messages", linked)).status == 404
    assert (await ann.ask("POST", "/messages", linked)).status == 202


async def test_a_client_makes_no_file_clean_by_storing_it(lab: Lab, operator: Caller, ann: Caller) -> None:
    for first, second in ((operator, ann), (ann, operator)):
        content = f"do as I say, says {first.token[-4:]}".encode()
        digests = [(await each.ask("POST", "/blobs", content)).json["digest"] for each in (first, second)]
        assert [await lab.services.taints.of_blob(each) for each in digests] == [{"file"}] * 2
        copies = await lab.journal.query("SELECT holder, label FROM copies WHERE digest = ?", (digests[0],))
        assert set(copies) == {("operator", "file"), ("client:ann", "file")}


async def test_a_client_without_a_right_is_told_the_same_whatever_there_is(operator: Caller) -> None:
    dora = await client(operator, "dora", [])
    told = set()
    for mad, name, more in (
        ("echo", "say", {"text": "x"}),
        ("echo", "say", {"wrong": 1}),
        ("echo", "none", {}),
        ("nobody", "say", {}),
        ("operator", "say", {}),
    ):
        for conversation in ("", "a-name"):
            answer = await dora.ask("POST", "/messages", call(mad, name, conversation, **more))
            told.add((answer.status, answer.body.decode().replace(f"{mad}.{name}", "THAT")))
    assert len(told) == 1
    assert told.pop()[0] == 403


class Sleeper:
    """Works until it is ended."""

    @tool(effects="read")
    async def rest(self, call: Call) -> str:
        """Rests."""
        await call.progress("it rests")
        await sleep_forever()
        return ""


async def test_no_client_and_not_all_of_them_fill_the_queue() -> None:
    with a_home("[runs]\nqueue_max = 8\n") as home:
        async with opened(home, sleeper=Sleeper) as lab:
            operator = Caller(lab, unix=True)
            conversations: dict[str, str] = {}

            async def asks(who: Caller, name: str) -> int:
                """In one conversation the first run rests and the others wait."""
                answer = await who.ask("POST", "/messages", call("sleeper", "rest", conversations.get(name, "")))
                if answer.status == 202 and name not in conversations:
                    conversations[name] = answer.json["conversation"]
                    with fail_after(30):
                        async with who.following(f"/runs/{answer.json['run']}/logs") as came:
                            while b"it rests" not in await anext(came):
                                pass
                return answer.status

            names = ["ann", "bob", "carl", "dora"]
            clients = {name: await client(operator, name, ["sleeper"]) for name in names}
            for name in names[:3]:
                assert [await asks(clients[name], name) for _ in range(4)] == [202, 202, 202, 429]
            assert await asks(clients["dora"], "dora") == 429
            assert [await asks(operator, "operator") for _ in range(4)] == [202, 202, 202, 429]


async def test_no_client_and_not_all_of_them_fill_the_labs_files() -> None:
    quota = 107_374  # bytes: 0.0001 GiB
    with a_home(f"{SETTINGS}[files]\nquota_gb = 0.0001\n") as home:
        async with opened(home, errand=Echo) as lab:
            operator = Caller(lab, unix=True)
            names = ["ann", "bob", "carl", "dora", "eve"]
            clients = {name: await client(operator, name, MAY) for name in names}

            async def stores(who: Caller, size: int, fill: str) -> Answer:
                return await who.ask("POST", "/blobs", fill.encode() * size)

            async def says(who: Caller) -> Answer:
                return await who.ask("POST", "/messages", call("errand", "say", text="x"))

            ann, answers = clients["ann"], list[int]()

            async def at_once(fill: str) -> None:
                answers.append((await stores(ann, 10_000, fill)).status)

            async with create_task_group() as tasks:  # what is on its way counts, too
                for fill in "abcdef":
                    tasks.start_soon(at_once, fill)
            assert set(answers) <= {201, 429}
            while (await stores(ann, 6_000, str(len(answers)))).status == 201:
                answers.append(201)
            refused = await stores(ann, 20_000, "x")
            assert (refused.status, is_refusal(refused)) == (429, True)
            assert f"of the {quota // 4:,} bytes that one client may have" in refused.json["error"]["message"]
            assert lab.horace.usage().bytes <= quota // 4
            assert (await says(ann)).status == 202  # there is some room left
            for name in ("bob", "carl"):
                assert (await stores(clients[name], 20_000, name[0])).status == 201
            for name in ("dora", "eve"):
                while (await stores(clients[name], 500, f"{name}{lab.horace.usage().blobs}")).status == 201:
                    pass
            full = await stores(clients["bob"], 3_000, "b2")
            assert (full.status, full.json["error"]["message"].endswith("are the operator's")) == (429, True)
            assert lab.horace.usage().bytes <= quota - quota // 4
            assert (await stores(operator, 20_000, "o")).status == 201
            assert (await says(operator)).status == 202
            for name in names:
                assert (await says(clients[name])).status == 429
            await lab.horace.sweep((), idle_s=-1)  # what is no longer there is nobody's
            with fail_after(30):
                while (await stores(ann, 20_000, "y")).status == 429:
                    await sleep(0.1)
            assert (await says(ann)).status == 202


async def test_words_of_a_client_that_the_operator_says_again_are_out_of_its_reach(
    lab: Lab, operator: Caller, ann: Caller
) -> None:
    theirs = (await ann.ask("POST", "/messages", call("errand", "say", text="again"))).json
    with fail_after(30):
        async with ann.following(f"/runs/{theirs['run']}/logs") as came:
            async for _ in came:  # it ends with the run
                pass
    again = await operator.ask("POST", f"/runs/{theirs['run']}/retry", {})
    assert again.status == 202, again
    assert again.json["conversation"] != theirs["conversation"]
    for method, path in (("GET", "/runs/{run}"), ("POST", "/runs/{run}/cancel"), ("POST", "/runs/{run}/retry")):
        answer = await ann.ask(method, path.format(run=again.json["run"]), {} if method == "POST" else None)
        assert answer.status == 404
    asked = await lab.rogers.find(again.json["id"])
    assert asked is not None
    assert (asked.sender, asked.causation) == ("operator", theirs["id"])
    own = await ann.ask("POST", f"/runs/{theirs['run']}/retry", {})
    assert (own.status, own.json["conversation"]) == (202, theirs["conversation"])


async def test_what_waits_for_a_person_is_nobody_elses_to_see_or_decide(
    operator: Caller, ann: Caller, bob: Caller
) -> None:
    async with create_task_group() as tasks:

        async def asks() -> None:
            assert (await ann.ask("POST", "/messages", call("errand", "keep", text="x"))).status == 403

        tasks.start_soon(asks)
        with fail_after(30):
            async with operator.following("/approvals") as came:
                while b'"ask-first"' not in await anext(came):
                    pass
        waiting = [each for each in (await operator.ask("GET", "/approvals")).json["approvals"] if each["waiting"]]
        assert [each["principal"] for each in waiting] == ["client:ann"]
        for who in (ann, bob):
            for method, path in (("GET", "/approvals"), ("POST", f"/approvals/{waiting[0]['id']}/approve")):
                assert (await who.ask(method, path, {} if method == "POST" else None)).status == 403
            assert (await who.ask("GET", "/audit")).status == 403
        assert (await operator.ask("POST", f"/approvals/{waiting[0]['id']}/deny", {})).status == 200


async def test_a_client_that_sees_all_reads_all_and_acts_on_its_own(operator: Caller, ann: Caller) -> None:
    auditor = await client(operator, "auditor", MAY, sees="all")
    said = (await ann.ask("POST", "/messages", call("errand", "say", text="x"))).json
    assert (await auditor.ask("GET", f"/runs/{said['run']}")).status == 200
    answer = await auditor.ask("POST", f"/runs/{said['run']}/cancel", {})
    assert (answer.status, answer.json["error"]["message"][:8]) == (403, "rule own")
    answer = await auditor.ask("POST", "/messages", call("echo", "say", conversation=said["conversation"], text="x"))
    assert answer.status == 404


# --- where tokens are not


async def test_a_token_is_in_no_file_of_the_lab_not_even_if_its_holder_says_it(
    lab: Lab, operator: Caller, page: Caller, ann: Caller
) -> None:
    said = await ann.ask("POST", "/messages", call("echo", "say", text=f"my token is {ann.token}"))
    assert said.status in (202, 403)
    await operator.ask("GET", "/audit")
    files = [each for each in lab.home.path.rglob("*") if each.is_file()]
    assert files
    for token in (page.token, ann.token):
        assert [each.name for each in files if token.encode() in each.read_bytes()] == []
    acts = json.dumps((await operator.ask("GET", "/audit?limit=1000")).json)
    assert "hash" not in acts
    assert "madlab_client_" not in acts


async def test_a_client_follows_so_much_at_once_and_nobody_else_is_kept_from_his(operator: Caller, bob: Caller) -> None:
    many = await client(operator, "many", MAY)
    asked = [
        (each, (await each.ask("POST", "/messages", call("errand", "say_later", text="x", after_s=60.0))).json)
        for each in (many, bob)
    ]
    runs = [(each, said["run"]) for each, said in asked]
    logs, his = (f"/runs/{run}/logs" for _, run in runs)
    words = f"/conversations/{asked[0][1]['conversation']}/messages"
    kinds = (logs, words, "/events?topics=runs")
    async with AsyncExitStack() as streams:
        for number in range(OF_A_CLIENT):
            await streams.enter_async_context(many.following(kinds[number % 3]))
        for each in kinds:
            refused = await many.ask("GET", each, headers={"Accept": "text/event-stream"})
            assert (refused.status, is_refusal(refused)) == (429, True)
        await streams.enter_async_context(bob.following(his))
        await streams.enter_async_context(operator.following(logs))
    for caller, run in runs:
        assert (await caller.ask("POST", f"/runs/{run}/cancel", {})).status < 300
