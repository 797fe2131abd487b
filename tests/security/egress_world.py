"""A lab with a way out, and a world to reach: an honest server, one of the intranet, and one with TLS, on loopback.

127.0.0.1 stands for the internet (the rules name it), 127.0.0.2 for the intranet, which no rule names: nobody may ever
come there, and the server that listens there counts.
"""

import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from anyio import fail_after

from core.lab import Lab
from core.policy.capabilities import Identity
from core.ports.services import Allowance
from core.ports.web import LocalWeb
from core.rogers.entry import Entry
from protos.ids import new_id
from protos.v1.web_pb2 import Fetched, Header, RequestHead
from protos.web import Web
from tests.labs import lab_of
from tests.servers.authority import Authority
from tests.servers.site import Answer, Site, a_site

RULES = """
[[rules]]
name = "wanders"
kinds = ["web.fetch"]
principals = ["mad:wanderer"]
hosts = ["*:*"]
verdict = "allow"
carries = ["worker", "web", "file"]
limits = { addresses = ["127.0.0.1/32"], bytes_up = 50_000_000, bytes_down = 500_000_000, requests_per_minute = 100000 }

[[rules]]
name = "reads-the-site"
kinds = ["web.fetch"]
principals = ["mad:narrow"]
hosts = ["site.test:*"]
paths = ["/granted"]
methods = ["GET"]
verdict = "allow"
limits = { addresses = ["127.0.0.1/32"] }

[[rules]]
name = "little"
kinds = ["web.fetch"]
principals = ["mad:little"]
hosts = ["*:*"]
verdict = "allow"
carries = ["worker", "web"]
limits = { addresses = ["127.0.0.1/32"], bytes_up = 100000, bytes_down = 100000, requests_per_minute = 3 }

[[rules]]
name = "installs"
kinds = ["web.fetch"]
principals = ["mad:installer"]
hosts = ["secure.test:*"]
verdict = "allow"
carries = ["worker", "web"]
limits = { addresses = ["127.0.0.1/32"], packages = true }

[[rules]]
name = "posts"
kinds = ["web.fetch"]
principals = ["mad:poster"]
hosts = ["*:*"]
verdict = "allow"
limits = { addresses = ["127.0.0.1/32"] }

[[rules]]
name = "asks"
kinds = ["web.fetch"]
principals = ["mad:asker"]
hosts = ["*:*"]
verdict = "ask"
limits = { addresses = ["127.0.0.1/32"] }

[[rules]]
name = "brief"
kinds = ["web.fetch"]
principals = ["mad:brief"]
hosts = ["*:*"]
verdict = "allow"
limits = { addresses = ["127.0.0.1/32"], seconds = 1 }
"""
IDLE_S = 5.0


@dataclass
class Got:
    """An answer."""

    status: int = 0
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    body: bytes = b""
    end: Fetched | None = None

    def header(self, name: str) -> bytes | None:
        """The one header of that name."""
        found = [value for known, value in self.headers if known.lower() == name]
        assert len(found) < 2
        return found[0] if found else None


async def fetch(
    web: Web,
    url: str,
    method: str = "GET",
    *,
    headers: Iterable[tuple[str, bytes]] = (),
    body: AsyncIterable[bytes] | bytes | None = None,
    seconds: float = 0,
    within_s: float = 30,
    got: Got | None = None,
) -> Got:
    """One request, to its end. What came before an error is in `got`."""
    head = RequestHead(id=new_id(), method=method, url=url, seconds=seconds)
    head.headers.extend(Header(name=name, value=value) for name, value in headers)
    got = got or Got()
    with fail_after(within_s):
        async with aclosing(web.fetch(head, chunks(body) if isinstance(body, bytes) else body)) as events:  # type: ignore[type-var]
            async for event in events:
                match event.WhichOneof("kind"):
                    case "head":
                        got.status = event.head.status
                        got.headers = [(each.name, each.value) for each in event.head.headers]
                    case "bytes":
                        got.body += event.bytes
                    case "end":
                        got.end = event.end
    return got


async def chunks(data: bytes, size: int = 16384) -> AsyncIterator[bytes]:
    """`data` in pieces."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


@dataclass
class World:
    """The lab and who can be reached from it."""

    lab: Lab
    site: Site  # at 127.0.0.1
    inside: Site  # at 127.0.0.2
    secure: Site  # at 127.0.0.1, with TLS
    authority: Authority
    names_shown: list[str]  # by clients, when TLS began
    answers: dict[str, Answer]  # of all three, by path

    def web(self, mad: str = "wanderer", **changes: Any) -> LocalWeb:
        """The port of a new run of `mad`."""
        run = new_id()
        identity = Identity(mad, frozenset({"web"}), run=run, conversation=new_id())
        allowance = Allowance(2**40, 2**40, 2**40)
        return LocalWeb(self.lab.services, replace(identity, **changes), allowance)

    def url(self, path: str = "/", host: str = "site.test") -> str:
        """On the honest server."""
        return f"http://{host}:{self.site.port}{path}"

    def hidden(self, host: str = "127.0.0.2", path: str = "/") -> str:
        """On the intranet's."""
        return f"http://{host}:{self.inside.port}{path}"

    def https(self, path: str = "/", host: str = "secure.test") -> str:
        """On the one with TLS."""
        return f"https://{host}:{self.secure.port}{path}"

    async def acts(self) -> list[Mapping[str, object]]:
        """What the journal says of requests, the latest first."""
        await self.lab.journal.append(Entry(id=new_id(), kind="act", body=b"{}"))  # behind all that is on its way
        rows = await self.lab.journal.query(
            "SELECT body FROM journal JOIN body USING (sequence) WHERE kind = 'act' ORDER BY sequence DESC LIMIT 50"
        )
        acts = [json.loads(each[0]) for each in rows]
        return [each for each in acts if each.get("act") == "web.fetch"]


@asynccontextmanager
async def a_world(settings: str = "") -> AsyncIterator[World]:
    """All of it, in a temporary place."""
    with TemporaryDirectory(prefix="world") as directory:
        place = Path(directory)
        (place / "policy.toml").write_text(RULES)
        authority = Authority.made(place)
        shown: list[str] = []
        tls = authority.context("secure.test", "*.secure.test", "127.0.0.1")
        tls.sni_callback = lambda _, name, __: shown.append(name or "")
        answers: dict[str, Answer] = {}
        names = {
            "site.test": ["127.0.0.1"],
            "other.test": ["127.0.0.1"],
            "secure.test": ["127.0.0.1"],
            "wrong.test": ["127.0.0.1"],
            "inside.test": ["127.0.0.2"],
            "mixed.test": ["127.0.0.1", "127.0.0.2"],
            "mapped.test": ["::ffff:127.0.0.2"],
            "metadata.test": ["169.254.169.254"],
        }
        lines = "\n".join(f'"{name}" = {addresses}' for name, addresses in names.items())
        settings = (
            f'policy = ["{place}/policy.toml"]\n{settings}\n'
            f'[egress]\nca_file = "{authority.ca_file}"\nidle_s = {IDLE_S}\nconnect_s = 5\n[egress.names]\n{lines}\n'
        )
        async with (
            a_site(answers) as site,
            a_site(answers, address="127.0.0.2", port=site.port) as inside,
            a_site(answers, tls=tls) as secure,
            lab_of(settings) as lab,
        ):
            yield World(lab, site, inside, secure, authority, shown, answers)
