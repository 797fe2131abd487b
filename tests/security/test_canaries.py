"""25 secrets are used in real runs of a real lab, and none of them is found in anything that the lab leaves behind.

The lab is a core of its own with a vault; its runs are in sandboxes, of bubblewrap (the eMAD `snoop`) and of Docker
(the same one as `spy`); the servers they talk to are real, speak TLS, and are indiscreet: they say every secret back,
in headers, bodies, errors and pieces, in every encoding they know.

A grant puts a value into a header, and so does a handle there: that is the one road for which the lab has values. In an
address or a body a handle is only text. What a person says goes to nobody as it was said; and a run that has found a
value, where the lab could not look, does not get it into an address or a body.

The core dies twice in the middle, of a segmentation fault and of an abort, while a run in each of the engines is in the
midst of an answer. Then everything is searched: each file of the home and of the runtime directory, each column of each
table, temporary files, dumps of memory, environments and command lines of every process, containers while they live,
images and their layers, what the commands print, and what has come back to whoever asked.
"""

import base64
import html
import json
import os
import resource
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from anyio import sleep_forever
from anyio.abc import ByteStream
from anyio.from_thread import start_blocking_portal
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from core.grace.cli.client import Client
from core.home import Home
from protos.errors import Denied
from protos.ids import new_id
from sandbox.images.build import default_cache
from sandbox.images.unpacked import Images as Unpacked
from tests.bubblewrap_lab import need_bubblewrap
from tests.commands import Madlab
from tests.docker_lab import need_runtime
from tests.emads.snoop import veiled
from tests.labs import a_home, build, forget_images
from tests.model_server import ModelServer, Play, Request, model_server
from tests.security.forms import seen
from tests.security.search import (
    CORE_PATTERN,
    databases,
    dumps_in,
    found_below,
    found_in_tables,
    layers_of_engine,
    places_of_dumps,
    said_by_engine,
    sought,
    told_by_engine,
    told_by_processes,
)
from tests.servers.authority import Authority
from tests.servers.site import Asked, Site, a_site, ok
from tests.sizes import full

pytestmark = pytest.mark.docker  # it needs sandboxes, if not that engine
ROOT = Path(__file__).parents[1]
IMAGES = ("base", "tests/emads/snoop")
SYSTEM = {"proc", "sys", "usr", "opt", "lib", "lib64", "bin", "sbin"}  # of a sandbox: the image's and the kernel's
SETTINGS = """
emads = ["{root}/emads/snoop", "{place}/spy"]
policy = ["{place}/rules.toml"]
[sandbox]
runtime = "bwrap"
[profile.spy]
runtime = "runc"
[vault]
key_file = "vault.key"
[egress]
ca_file = "{place}/ca.pem"
connect_s = 5
idle_s = 10
[egress.names]
"leaky.test" = ["127.0.0.1"]
[providers.ours]
kind = "openai"
base_url = "{models}"
key = "secret://provider"
[models.one]
provider = "ours"
model = "scripted"
max_tokens = 100
"""
RULES = """
[[rules]]
name = "uses-them"
kinds = ["secret.use"]
principals = ["mad:snoop", "mad:spy"]
verdict = "allow"
carries = ["worker", "web", "file"]
[[rules]]
name = "anywhere"
kinds = ["web.fetch"]
principals = ["mad:snoop", "mad:spy"]
hosts = ["*:*"]
verdict = "allow"
carries = ["worker", "web", "file"]
limits = { addresses = ["127.0.0.1/32"], requests_per_minute = 1000 }
"""


def made_values() -> dict[str, str]:
    """25 values of every make, anew each time."""
    word = secrets.token_urlsafe
    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        "provider": f"sk-{word(30)}",
        "token": f"ghp_{secrets.token_hex(18)}",
        "hex": secrets.token_hex(32),
        "base64": base64.b64encode(secrets.token_bytes(33)).decode(),
        "padded": base64.b64encode(secrets.token_bytes(31)).decode(),
        "short": f"7{secrets.token_hex(4)[1:]}",  # letters alone might be a word
        "slashes": f"{word(9)}/{word(9)}+{word(9)}==",
        "quotes": f"{word(8)}\"{word(8)}'{word(8)}",
        "backslash": f"{word(8)}\\n{word(8)}\\{word(6)}",
        "percent": f"{word(6)}%41{word(6)}%zz{word(6)}",
        "markup": f"<{word(9)}&amp;{word(9)}>",
        "spaces": f"{word(6)} {word(6)} {word(6)}",
        "address": f"postgres://app:{word(12)}@db.internal:5432/main?ssl=1",
        "braces": f'{{"token":"{word(16)}","n":1}}',
        "long": word(1500),
        "digits": str(secrets.randbelow(10**30)).zfill(30),
        "equals": f"{word(10)}={word(10)};{word(4)}",
        "dollar": f"${word(8)}`{word(8)}`$({word(4)})",
        "tilde": f"~{word(8)}!{word(8)}^{word(4)}|",
        "uuid": new_id(),
        "jwt": f"eyJhbGciOiJIUzI1NiJ9.{word(40)}.{word(32)}",
        "umlauts": f"Pässwört-{word(8)}-ß𝄞",
        "key": pem.decode(),
        "lines": f"{word(40)}\n{word(40)}\r\n{word(40)}",
        "tabs": f"{word(12)}\t{word(12)}",
    }


def echoes(value: str) -> dict[str, bytes]:
    """How an indiscreet server says a value back."""
    data = value.encode()
    basic = base64.b64encode(b"user:" + data)
    return {
        "/body": ok(b"You sent " + data + b" again."),
        "/json": ok(json.dumps({"error": {"token": value, "basic": basic.decode()}}).encode()),
        "/markup": ok(f"<a href='/?t={quote(value, safe='')}'>{html.escape(value)}</a>".encode()),
        "/lines": ok(base64.encodebytes(b"x" * 50 + data + b"x" * 50), "X-Hex: " + data.hex()),
        "/header": ok(b"", f"X-Said: {value}", f"Location: /?token={quote(value)}", status="302 Found"),
        "/reason": ok(b"no", status=f"401 No_{quote(value, safe='')}"),
        "/error": ok(json.dumps({"message": f"bad token {value}"}).encode(), status="500 Oh"),
        "/broken": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nYour token is " + data,
    }


@dataclass
class Place:
    """The lab, who can be reached from it, and all that has come back."""

    madlab: Madlab
    values: dict[str, str]
    site: Site
    models: ModelServer
    hears: dict[str, Any]
    told: list[str] = field(default_factory=list)
    in_sandboxes: dict[str, list[str]] = field(default_factory=dict)  # that lived, what was found
    carriers: set[str] = field(default_factory=set)  # the conversations of runs that had found a value
    dumps: list[Path] = field(default_factory=list)

    @property
    def client(self) -> Client:
        return Client(self.madlab.home)

    def url(self, path: str) -> str:
        return f"https://leaky.test:{self.site.port}{path}"

    def ask(self, mad: str, tool: str, conversation: str = "", **arguments: object) -> dict[str, Any]:
        """Calls a tool as a person does, and returns the answer."""
        body = {"recipient": mad, "kind": "call", "tool": tool, "arguments": arguments, "id": new_id()}
        said = self.client.post("/api/v1/messages", body | ({"conversation": conversation} if conversation else {}))
        if tool == "carry":
            self.carriers.add(said["conversation"])
        for each in self.client.follow(f"/api/v1/conversations/{quote(said['conversation'])}/messages"):
            self.told.append(json.dumps(each, ensure_ascii=False))
            if each["id"] == f"{said['id']}.reply":
                return dict(each)
        raise AssertionError("the conversation ended without an answer")

    def grant(self, name: str, use: str, to: str = "snoop") -> None:
        """Lets an eMAD use a secret below a path of its own."""
        body = {
            "id": secrets.token_hex(5),
            "to": f"mad:{to}",
            "place": self.url(f"/{name}"),
            "methods": ["any"],
            "use": use,
        }
        self.client.post(f"/api/v1/secrets/{name}/grants", body)

    def look_into_sandboxes(self) -> None:
        """While they live: what the engine says of them, and what each process of them finds in its files."""
        values = self.values.values()
        for what, text in said_by_engine(self.madlab.home.lab).items():
            self.in_sandboxes[what] = sought(*values).seen(text.encode())
        for process in self._inside():
            found = self.in_sandboxes.setdefault(f"process {process.name}", [])
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                for place in (process / "root").iterdir():
                    if place.name not in SYSTEM and place.is_dir():
                        found += found_below(place, *values)

    def _inside(self) -> Iterator[Path]:
        """The processes that see the lab's sockets, and another root than ours."""
        ours = str(self.madlab.home.runtime).encode()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                if ours in (process / "mountinfo").read_bytes() and not (process / "root").samefile("/"):
                    yield process


@contextmanager
def a_place(values: dict[str, str]) -> Iterator[Place]:
    """A lab that keeps `values` in its vault, and servers that cannot keep anything."""
    need_bubblewrap()
    need_runtime("runc")
    hears: dict[str, Any] = {"stuck": threading.Event(), "heard": set()}
    with ExitStack() as stack:
        home = stack.enter_context(a_home(images=IMAGES, unpacked=True))
        stack.callback(forget_images, home.lab)
        build(home.lab, IMAGES)
        manifest = (ROOT / "emads/snoop/manifest.toml").read_text()
        (home.path / "spy").mkdir()
        (home.path / "spy/manifest.toml").write_text(manifest.replace('name = "snoop"', 'name = "spy"', 1))
        portal = stack.enter_context(start_blocking_portal())
        tls = Authority.made(home.path).context("leaky.test")
        answers = {
            f"/{name}{path}": indiscreet(hears, value, answer)
            for name, value in values.items()
            for path, answer in (echoes(value) | {"/slow": b""}).items()
        }
        site = stack.enter_context(portal.wrap_async_context_manager(a_site(answers, tls=tls)))
        models = stack.enter_context(portal.wrap_async_context_manager(model_server(chatty(values["provider"]))))
        (home.path / "rules.toml").write_text(RULES)
        home.settings.write_text(SETTINGS.format(root=ROOT, place=home.path, models=models.openai))
        madlab = Madlab(home)
        madlab.up()
        try:
            yield Place(madlab, values, site, models, hears)
        finally:
            madlab("down")


def indiscreet(hears: dict[str, Any], value: str, answer: bytes) -> Callable[[ByteStream, Asked], Awaitable[None]]:
    """Says `answer` in pieces, or begins to and hangs where it is empty; notes whether it was given the value."""

    async def say(stream: ByteStream, asked: Asked) -> None:
        given = asked.headers.get("authorization", "")
        pair = base64.b64encode(f"user:{value}".encode()).decode()
        if value in given or pair in given:
            hears["heard"].add(value)
        if not answer:
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nYour token: " + value.encode())
            hears["stuck"].set()
            await sleep_forever()
        for start in range(0, len(answer), 61):
            await stream.send(answer[start : start + 61])

    return say


def chatty(key: str) -> Callable[[Request], Play]:
    """A model that says its key back, and an error that does."""

    def play(request: Request) -> Play:
        said = f"Your key is {key}, in base64 {base64.b64encode(key.encode()).decode()}."
        if b"please fail" in request.content:
            return Play(status=401, error={"error": {"message": f"Incorrect API key provided: {key}.", "type": "x"}})
        return Play(text=said, drip=b"slowly" in request.content)

    return play


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A lab in which everything has happened."""
    values = made_values()
    assert len(values) == 25
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
        with a_place(values) as place:
            keep_and_grant(place)
            go_out(place)
            say_where_only_headers_serve(place)
            carry_what_they_found(place)
            ask_models(place)
            say_them(place)
            die_in_the_middle(place)
            yield place


ADDED = ("token", "hex", "base64", "padded", "short", "slashes", "quotes", "backslash", "percent", "markup", "spaces")
BASIC = ("address", "braces", "long", "digits", "equals")
HANDLES = ("dollar", "tilde", "uuid", "jwt")
FORMS = tuple(echoes("a-value-of-some-length"))


def keep_and_grant(place: Place) -> None:
    for name, value in place.values.items():
        if name in ("token", "key"):  # as a person does
            place.told.append(place.madlab("secret", "set", name, "--from-stdin", stdin=value).err)
        else:
            body = {"value": base64.b64encode(value.encode()).decode()}
            place.told.append(json.dumps(place.client.put(f"/api/v1/secrets/{name}", body)))
    for name in ADDED:
        place.grant(name, "header:Authorization=Bearer {}")
    for name in BASIC:
        place.grant(name, "basic:user")
    for name in HANDLES:
        place.grant(name, "")
        place.grant(name, "", to="spy")


def go_out(place: Place) -> None:
    """Requests that carry them, and answers that say them back; some fail."""
    urls = [place.url(f"/{name}{form}") for name in (*ADDED, *BASIC) for form in FORMS]
    urls += [place.url("/nowhere"), "https://leaky.test:1/token/body", place.url("/token/../hex/body")]
    place.ask("snoop", "errand", urls=urls, header="")
    for name, mad in zip(HANDLES, ("snoop", "spy", "snoop", "spy"), strict=True):
        urls = [place.url(f"/{name}{form}") for form in FORMS]
        place.ask(mad, "errand", urls=[*urls, place.url("/token/body")], header=f"Bearer secret://{name}")
    place.ask("snoop", "errand", urls=[place.url("/jwt/body")], header="Bearer secret://uuid")  # not granted there


def say_where_only_headers_serve(place: Place) -> None:
    """In addresses and bodies: handles, which are only text there, and values that a person says, which go nowhere."""
    for mad in ("snoop", "spy"):
        urls = [place.url(f"/jwt/body?key=secret://jwt&mad={mad}")]
        place.ask(mad, "errand", urls=urls, header="Bearer secret://jwt", body='{"key": "secret://jwt"}')
    urls = [place.url(f"/{name}/body?key={quote(value, safe='')}") for name, value in place.values.items()]
    place.ask("spy", "errand", urls=[*urls, place.url("/said")], header="", body=json.dumps(place.values))


def carry_what_they_found(place: Place) -> None:
    """Runs that know a value and try to send it, in an address or a body; at the whole size each value, in each way."""
    ways = (("url", "percent"), ("body", "escaped"), ("stream", "raw"), ("body", "base64"))

    def carry(number: int, name: str, road: str, form: str) -> None:
        mad = "spy" if number < 3 else "snoop"
        found = veiled(place.values[name].encode())
        place.ask(mad, "carry", file=found, road=road, form=form, to=place.url(f"/found/{name}"))

    tries = [
        (number, name, *way)
        for number, name in enumerate(tuple(place.values)[:: 1 if full() else 2])
        for way in (ways if full() else (ways[number % len(ways)],))
    ]
    with ThreadPoolExecutor(4) as threads:
        for each in [threads.submit(carry, *one) for one in tries]:
            each.result()


def ask_models(place: Place) -> None:
    """A key that its provider says back, whole, in pieces and in an error; prompts with the rest."""
    place.ask("fiedler", "ask", prompt="hello")
    place.ask("fiedler", "ask", prompt="hello, slowly")
    place.ask("fiedler", "ask", prompt="hello, please fail")
    for name in ("umlauts", "key", "lines", "tabs"):
        place.ask("fiedler", "ask", prompt=f"What is {place.values[name]!r}, or {place.values[name]}?")
    place.ask("fiedler", "ask", prompt="What are these? " + " and ".join(place.values.values()))


def say_them(place: Place) -> None:
    """A person says them, to a MAD and to a file, in many ways; a server says one to somebody who has not sent it."""
    for name, value in place.values.items():
        said = f"{value} {base64.b64encode(f'u:{value}'.encode()).decode()} {quote(value)} {json.dumps(value)}"
        body = {"recipient": "fiedler", "kind": "prose", "text": f"{name}: {said}"}
        place.told.append(json.dumps(place.client.publish(body)))
        with pytest.raises(Denied, match="rule secret") as refused:
            place.client.upload(lambda value=value: iter([b"x" * 99_999, value.encode()]), name="f", media_type="")  # type: ignore[misc]
        place.told.append(str(refused.value))
    place.told.append(place.madlab("secret", "grant", place.values["token"], "--to", "x", "--for", "y").err)
    place.ask("snoop", "errand", urls=[place.url("/umlauts/body"), place.url("/umlauts/json")], header="")


def die_in_the_middle(place: Place) -> None:
    """The core is killed while an answer with a secret is on its way, and messages with secrets are."""
    home, seen_by = place.madlab.home, place.hears
    for mad, number in (("spy", signal.SIGSEGV), ("snoop", signal.SIGABRT)):
        seen_by["stuck"].clear()
        asked = {"recipient": mad, "kind": "call", "tool": "errand", "id": new_id()}
        path, header = ("/jwt/slow", "Bearer secret://jwt") if mad == "spy" else ("/token/slow", "")
        place.client.post("/api/v1/messages", asked | {"arguments": {"urls": [place.url(path)], "header": header}})
        assert seen_by["stuck"].wait(60)
        place.look_into_sandboxes()
        pid = home.holder()
        assert pid is not None
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert "Max core file size        0                    0" in limits
        places = [*places_of_dumps(pid), home.path, home.runtime]
        with suppress(PermissionError):  # where it is let, only what the core asked of the kernel is left
            resource.prlimit(pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        for value in place.values.values():
            place.client.publish({"recipient": "fiedler", "kind": "prose", "text": value})
        os.kill(pid, number)
        while home.holder() is not None:
            time.sleep(0.01)
        place.dumps += dumps_in(*places, word=str(home.path))
        place.madlab.up()


def test_every_secret_that_a_header_can_hold_was_used(place: Place) -> None:
    used = {name for name, value in place.values.items() if value in place.hears["heard"]}
    assert used == {*ADDED, *BASIC, *HANDLES}
    key = place.values["provider"]
    assert any(key in " ".join(each.headers.values()) for each in place.models.requests)


def test_no_model_was_told_one(place: Place) -> None:
    heard = [each.content for each in place.models.requests]
    assert len(heard) >= 10
    for name, value in place.values.items():
        assert [form for each in heard for form in seen(value, each)] == [], name
    assert [name for name in place.values if not any(f"[secret {name}]".encode() in each for each in heard)] == []


def test_no_server_was_told_one_in_an_address_or_a_body(place: Place) -> None:
    for name, value in place.values.items():
        for each in place.site.asked:
            assert seen(value, each.line.encode() + b"\n" + each.body) == [], (name, each.line)
    assert not [each for each in place.site.asked if "/found/" in each.line], "refused as a whole"
    handles = [each for each in place.site.asked if "key=secret://jwt" in each.line]
    assert {each.line[-12:-9] for each in handles} == {"oop", "spy"}, "there a handle is text"
    assert {each.body for each in handles} == {b'{"key": "secret://jwt"}'}
    said = [each.body for each in place.site.asked if "/said" in each.line]
    assert len(said) == 1
    assert [name for name in place.values if f"[secret {name}]".encode() not in said[0]] == []


def test_none_is_in_any_file_of_the_lab_or_in_what_it_kept_for_a_while(place: Place) -> None:
    home: Home = place.madlab.home
    values = place.values.values()
    assert (home.path / "journal.db").stat().st_size > 100_000
    assert (home.path / "core.log").stat().st_size > 1000
    assert found_below(home.path, *values) == []
    assert found_below(home.runtime, *values) == []
    assert found_below(Path(os.environ["TMPDIR"]), *values) == []


def test_none_is_in_any_column_of_any_table_nor_in_an_index_of_words(place: Place) -> None:
    kept = databases(place.madlab.home.path)
    assert {"journal.db", "vault.db", "dewey.db"} <= {each.name for each in kept}
    assert [found for each in kept for found in found_in_tables(each, *place.values.values())] == []


def test_none_was_in_a_sandbox_while_it_lived(place: Place) -> None:
    kinds = [each.split()[0] for each in place.in_sandboxes]
    assert kinds.count("container") >= 1
    assert kinds.count("process") >= 2, "of each engine one"
    assert {what: found for what, found in place.in_sandboxes.items() if found} == {}


def test_none_is_in_an_image_or_one_of_its_layers(place: Place) -> None:
    lab, values = place.madlab.home.lab, place.values.values()
    assert len([each for each in said_by_engine(lab) if each.startswith("image ")]) == len(IMAGES)
    assert told_by_engine(lab, *values) == []
    unpacked = Unpacked(lab, default_cache())
    images = [unpacked.find(each) for each in unpacked.names()]
    layers = {each.folder / layer for each in images for layer in each.layers}
    assert len(images) == len(IMAGES)
    assert [found for each in layers for found in found_below(each, *values)] == []
    if os.geteuid():
        pytest.skip("only root may look into the engine's layers")
    kept = layers_of_engine(lab)
    if not kept or not all(each.is_dir() for each in kept):
        pytest.skip("this engine keeps its layers where they cannot be looked at, or does not say where")
    assert [found for each in kept for found in found_below(each, *values)] == []


def test_no_core_that_died_left_its_memory(place: Place, tmp_path: Path) -> None:
    assert place.dumps == []
    # And who leaves it is found: a process that asks the kernel for nothing.
    dies = (
        "import os, resource\n"
        "most = resource.getrlimit(resource.RLIMIT_CORE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (most, most))\n"
        "print(flush=True); input(); os.abort()"
    )
    word, pipe = f"{tmp_path}/{secrets.token_hex(8)}", subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", dies, word], cwd=tmp_path, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        places = places_of_dumps(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        _, status = os.waitpid(process.pid, 0)
        process.returncode = status
    if not os.WCOREDUMP(status) or CORE_PATTERN.read_text().startswith("|"):
        pytest.skip("this machine writes no process's memory to a file")
    (dump,) = dumps_in(*places, word=word)
    dump.unlink()


def test_none_is_in_any_process(place: Place) -> None:
    assert place.madlab.home.holder() is not None
    assert told_by_processes(*place.values.values()) == []


def test_none_is_in_what_the_lab_says(place: Place) -> None:
    commands = (
        *(("status",), ("runs", "--json"), ("audit", "--json"), ("incidents", "--json"), ("secret", "list", "--json")),
        *(("secret", "uses", "token", "--json"), ("secret", "who-could", "hex", "--json"), ("costs", "--json")),
    )
    told = list(place.told)
    for words in commands:
        shown = place.madlab(*words)
        assert shown.code == 0, shown.err
        told.append(shown.out + shown.err)
    for each in place.client.get("/api/v1/runs")["runs"]:
        told.append(json.dumps(place.client.get(f"/api/v1/runs/{quote(each['id'])}"), ensure_ascii=False))
        conversation = quote(each["conversation"])
        page = place.client.get(f"/api/v1/conversations/{conversation}/messages", limit=1000)
        told.append(json.dumps(page, ensure_ascii=False))
    text = "\n".join(told).encode()
    assert b"[secret token]" in text
    for name, value in place.values.items():
        assert seen(value, text) == [], name


def test_each_of_them_was_there_to_be_taken_out(place: Place) -> None:
    written = b"".join(each.read_bytes() for each in place.madlab.home.path.rglob("*") if each.is_file())
    assert [name for name in place.values if f"[secret {name}]".encode() not in written] == []


def test_who_asks_a_server_that_knows_one_that_he_had_not_sent_does_not_hear_it(place: Place) -> None:
    assert "[secret umlauts] again." in "\n".join(place.told)
    incidents = place.client.get("/api/v1/incidents", limit=1000)["incidents"]
    assert [each for each in incidents if each["ended"] and each["conversation"] not in place.carriers] == []


def test_who_carried_one_that_he_had_found_was_ended_for_it(place: Place) -> None:
    caught = {each["conversation"] for each in place.client.get("/api/v1/incidents", limit=1000)["incidents"]}
    assert place.carriers <= caught
    outcomes = [
        each["outcome"]
        for each in place.client.get("/api/v1/runs", limit=1000)["runs"]
        if each["conversation"] in place.carriers
    ]
    # A value that is short, or made of few characters, may stand there by chance: it is refused, and ends nobody.
    assert outcomes.count("killed") >= len(outcomes) * 9 // 10, outcomes


def test_the_journal_is_whole(place: Place) -> None:
    assert place.madlab("journal", "verify").code == 0
