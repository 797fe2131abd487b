"""A secret goes where it was granted and nowhere else, and does not come back."""

import base64
import gzip
from collections.abc import AsyncIterator

import pytest
from anyio import create_task_group
from anyio.abc import ByteStream

from core.turing.places import place_of
from core.turing.secret import Secret
from protos.errors import Denied, Error, Unavailable
from protos.ids import new_id
from tests.security.egress_world import World, a_world, fetch
from tests.servers.site import Asked, a_site, drip, ok

VALUE = b"s3cr3t-Value/with+odd=characters"
HANDLE = [("Authorization", b"Bearer secret://token")]


@pytest.fixture(scope="module")
async def world(anyio_backend: str) -> AsyncIterator[World]:
    async with a_world('[vault]\nkey_file = "vault.key"\n') as world:
        turing = world.lab.services.turing
        assert turing is not None
        await turing.custody.set("token", Secret(VALUE))
        place = place_of(world.https("/granted"))
        methods = frozenset({"GET", "POST"})
        await turing.grant(new_id(), "token", "mad:wanderer", place, methods, "")  # where a handle asks for it
        added = place_of(world.https("/added"))
        await turing.grant(new_id(), "token", "mad:wanderer", added, methods, "header:Authorization=Bearer {}")
        yield world
        for path in world.lab.home.path.rglob("*"):  # whatever happened in this module
            if path.is_file():
                content = path.read_bytes()
                for form in (VALUE, base64.b64encode(VALUE), VALUE.hex().encode()):
                    assert form not in content, path


@pytest.fixture(autouse=True)
def _fresh(world: World) -> None:
    world.answers.clear()
    world.secure.asked.clear()
    world.site.asked.clear()


async def denied(world: World, url: str, method: str = "GET", *, mad: str = "wanderer") -> Denied:
    with pytest.raises(Denied) as told:
        await fetch(world.web(mad), url, method, headers=HANDLE)
    return told.value


async def test_a_handle_becomes_the_value_where_it_was_granted(world: World) -> None:
    got = await fetch(world.web(), world.https("/granted/x?q=1"), headers=HANDLE)
    assert got.status == 200
    assert world.secure.asked[-1].headers["authorization"] == f"Bearer {VALUE.decode()}"
    turing = world.lab.services.turing
    assert turing is not None
    use = (await turing.grants.uses("token", limit=1))[0]
    assert (use.method, use.target) == ("GET", world.https("/granted/x"))


async def test_a_grant_adds_its_header_by_itself_and_in_place_of_the_callers(world: World) -> None:
    await fetch(world.web(), world.https("/added"))
    assert world.secure.asked[-1].headers["authorization"] == f"Bearer {VALUE.decode()}"
    await fetch(world.web(), world.https("/added"), headers=[("authorization", b"Bearer mine")])
    assert world.secure.asked[-1].head.lower().count(b"authorization:") == 1
    assert world.secure.asked[-1].headers["authorization"] == f"Bearer {VALUE.decode()}"


async def test_a_handle_for_another_host_path_method_port_or_scheme_is_denied(world: World) -> None:
    web = world.https
    for url, method in (
        (web("/granted", host="127.0.0.1"), "GET"),
        (web("/granted", host="api.secure.test"), "GET"),
        (web("/"), "GET"),
        (web("/grantedx"), "GET"),
        (web("/granted/../other"), "GET"),
        (web("/granted/%2e%2e/other"), "GET"),
        (web("//granted"), "GET"),
        (web("/other?/granted"), "GET"),
        (web("/other#/granted"), "GET"),
        (web("/granted"), "DELETE"),
        (world.url("/granted"), "GET"),
        (world.url("/granted", host="secure.test"), "GET"),
        (f"https://secure.test:{world.secure.port + 1}/granted", "GET"),
    ):
        error = await denied(world, url, method)
        assert error.message.startswith("rule grant"), (url, error.message)
    assert not world.secure.asked
    assert not world.site.asked
    latest = (await world.acts())[0]
    assert (latest["step"], latest["rule"]) == ("denied", "grant")


async def test_another_mad_has_nothing_of_it(world: World) -> None:
    error = await denied(world, world.https("/granted"), mad="brief")
    assert error.message.startswith("rule grant")
    await fetch(world.web("brief"), world.https("/added"))
    assert "authorization" not in world.secure.asked[-1].headers


async def test_a_grant_adds_nothing_beside_its_place(world: World) -> None:
    for url, method in (
        (world.https("/other"), "GET"),
        (world.https("/addedx"), "GET"),
        (world.https("/added"), "PUT"),
        (world.https("/added", host="127.0.0.1"), "GET"),
        (world.url("/added"), "GET"),
    ):
        await fetch(world.web(), url, method)
    for asked in (*world.secure.asked, *world.site.asked):
        assert "authorization" not in asked.headers
    assert len(world.secure.asked) + len(world.site.asked) == 5


async def test_a_redirect_takes_no_secret_along(world: World) -> None:
    for target in (world.url("/stolen"), world.https("/stolen"), world.https("/added/../stolen")):
        world.answers["/added"] = ok(b"", f"Location: {target}", status="302 Found")
        web = world.web()
        got = await fetch(web, world.https("/added"))
        location = got.header("location")
        assert got.status == 302
        assert location is not None
        await fetch(web, location.decode())
    stolen = [each for each in (*world.secure.asked, *world.site.asked) if "/stolen" in each.line]
    assert len(stolen) == 3
    for each in stolen:
        assert "authorization" not in each.headers
        assert VALUE not in each.head


async def test_what_a_server_says_back_is_struck_out(world: World) -> None:
    async def echo(stream: ByteStream, asked: Asked) -> None:
        said = asked.headers["authorization"].encode()
        body = b"you said: " + said + b", that is " + base64.b64encode(VALUE) + b" or " + VALUE.hex().encode() + b"."
        head = b"HTTP/1.1 200 %s\r\nX-Echo: %s\r\nContent-Length: %d\r\n\r\n" % (VALUE, said, len(body))
        await drip(stream, head + body, 0)

    world.answers["/granted/echo"] = echo
    got = await fetch(world.web(), world.https("/granted/echo"), headers=HANDLE)
    told = b"".join(value for _, value in got.headers) + got.body
    for form in (VALUE, base64.b64encode(VALUE), VALUE.hex().encode()):
        assert form not in told
    assert got.body.startswith(b"you said: Bearer ")
    assert got.body.endswith(b".")
    assert got.header("content-length") is None  # it may have changed
    assert got.end is not None


async def test_what_is_compressed_is_not_handed_on_when_a_secret_went_along(world: World) -> None:
    world.answers["/granted/zip"] = ok(gzip.compress(VALUE), "Content-Encoding: gzip")
    with pytest.raises(Unavailable, match="compressed"):
        await fetch(world.web(), world.https("/granted/zip"), headers=[*HANDLE, ("Accept-Encoding", b"gzip")])
    assert world.secure.asked[-1].headers["accept-encoding"] == "identity"


async def test_what_a_server_shows_of_an_earlier_request_is_struck_out(world: World) -> None:
    turing = world.lab.services.turing
    assert turing is not None
    seen: list[bytes] = []

    async def log(stream: ByteStream, asked: Asked) -> None:
        seen.append(asked.headers["user-agent"].encode())
        await stream.send(ok(b"logged"))

    async def show(stream: ByteStream, asked: Asked) -> None:
        await stream.send(ok(b"the last was " + seen[-1] + b".", f"X-Last: {seen[-1].decode()}"))

    world.answers |= {"/logged": log, "/visitors": show}
    place = place_of(world.https("/logged"))
    await turing.grant(new_id(), "token", "mad:wanderer", place, frozenset({"GET"}), "header:User-Agent={}")
    web = world.web()
    await fetch(web, world.https("/logged"))
    assert seen == [VALUE]
    parts = [("Range", b"bytes=0-20"), ("If-Range", b'"x"'), ("Accept-Encoding", b"gzip")]
    for each in (web, world.web(), world.web("brief")):  # others, too
        got = await fetch(each, world.https("/visitors"), headers=parts)
        assert (got.body, got.header("x-last")) == (b"the last was [secret token].", b"[secret token]")
        asked = {name for name in world.secure.asked[-1].headers if name not in ("host", "accept-encoding")}
        assert asked == (set() if each is web else {"range", "if-range"})
    world.answers["/visitors"] = ok(gzip.compress(VALUE), "Content-Encoding: gzip")
    with pytest.raises(Unavailable, match="compressed"):
        await fetch(web, world.https("/visitors"), headers=parts)
    got = await fetch(world.web(), world.https("/visitors"), headers=parts)
    assert gzip.decompress(got.body) == VALUE  # who has nothing to do with it may have it compressed


async def test_a_handle_goes_only_where_servers_keep_it_to_themselves(world: World) -> None:
    for header in ("User-Agent", "Referer", "X-Name", "Accept-Language", "Idempotency-Key"):
        with pytest.raises(Denied, match=r"^rule grant: .* in the header"):
            await fetch(world.web(), world.https("/granted"), headers=[(header, b"secret://token")])
    assert not world.secure.asked
    for header in ("Cookie", "X-Api-Key", "Private-Token", "apikey"):
        await fetch(world.web(), world.https("/granted"), headers=[(header, b"secret://token")])
        assert world.secure.asked[-1].headers[header.lower()] == VALUE.decode()


async def test_a_value_that_fits_into_no_header_is_denied_and_not_shown(world: World) -> None:
    turing = world.lab.services.turing
    assert turing is not None
    place, methods = place_of(world.https("/odd")), frozenset({"GET"})
    for name, value, headers in (
        ("blank", b"abcdefghijklmnop1234 ", ()),
        ("long", b"q" + b"abcdefghij0123456789" * 400, [("Cookie", b"secret://long;" * 5)]),
        ("longer", b"q" + b"abcdefghij9876543210" * 400, [("Cookie", b"secret://longer;" * 1500)]),
    ):
        await turing.custody.set(name, Secret(value))
        how = "" if headers else "header:Authorization=Bearer {}"
        grant = await turing.grant(new_id(), name, "mad:wanderer", place, methods, how)
        with pytest.raises(Error, match=r"cannot stand in a header|too long|at most 100 headers in 32768") as told:
            await fetch(world.web(), world.https("/odd"), headers=headers)
        assert value.strip() not in str(told.value).encode()
        await turing.revoke([grant])
    assert not world.secure.asked


async def test_a_value_that_was_found_somewhere_does_not_leave(world: World) -> None:
    await fetch(world.web(), world.https("/granted"), headers=HANDLE)  # the lab knows it from here on
    url, web = world.url("/collect"), world.web()
    with pytest.raises(Denied, match=r"^rule secret"):
        await fetch(web, f"{url}?stolen={VALUE.decode().replace('/', '%2F')}")
    with pytest.raises(Denied, match=r"^rule secret"):
        await fetch(web, url, headers=[("X", b"see: " + base64.b64encode(VALUE))])
    with pytest.raises(Denied, match=r"^rule secret"):
        await fetch(web, url, "POST", body=b"{" + VALUE + b"}")
    with pytest.raises(Error, match=r"^rule secret"):
        await fetch(web, url, "POST", body=b"x" * 99_990 + VALUE + b"x" * 100_000)
    assert not [each for each in world.site.asked if each.body or "stolen" in each.line]


async def test_a_stranger_with_the_hosts_name_gets_nothing(world: World) -> None:
    seen: list[bytes] = []

    async def listening(stream: ByteStream, asked: Asked) -> None:
        seen.append(asked.head)

    tls = world.authority.context("elsewhere.test")
    async with a_site({"/granted": listening}, tls=tls) as site:
        turing = world.lab.services.turing
        assert turing is not None
        place = place_of(f"https://secure.test:{site.port}/granted")
        await turing.grant(new_id(), "token", "mad:wanderer", place, frozenset(), "")
        with pytest.raises(Unavailable, match="certificate"):
            await fetch(world.web(), f"https://secure.test:{site.port}/granted", headers=HANDLE)
        assert not seen
        assert not site.asked


async def test_one_use_is_one_request_even_of_two_at_once(world: World) -> None:
    turing = world.lab.services.turing
    assert turing is not None
    place = place_of(world.https("/once"))
    await turing.grant(new_id(), "token", "mad:wanderer", place, frozenset(), "", uses=1)
    outcomes: list[str] = []

    async def one() -> None:
        try:
            await fetch(world.web(), world.https("/once"), headers=HANDLE)
            outcomes.append("sent")
        except Denied:
            outcomes.append("denied")

    async with create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(one)
    assert sorted(outcomes) == ["denied", "denied", "denied", "sent"]
    assert len(world.secure.asked) == 1
