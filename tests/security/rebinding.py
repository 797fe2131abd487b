"""An internet of our own, in a network namespace: public and private addresses, servers on port 80, and a hostile DNS.

Run by test_egress_names.py as `unshare --net --mount python -m tests.security.rebinding`. Nothing is told to the
broker: it asks the machine's resolver, which asks our name server, and no rule names an address. Prints what came of
each case.
"""

import fcntl
import json
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from tempfile import NamedTemporaryFile

import anyio
from anyio import create_task_group

from core.egress.broker import Broker
from core.egress.request import Request, Traffic
from core.egress.settings import Egress
from core.egress.urls import canonical
from protos.errors import Error
from protos.v1.web_pb2 import ResponseHead
from tests.servers.names import CNAME, A, NameServer, kind_of
from tests.servers.site import a_site, ok

PUBLIC, OTHER, PRIVATE, RESOLVER = "93.184.215.14", "93.184.215.15", "10.0.0.5", "127.0.0.53"
SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP = 0x8914, 0x8916, 1
RECORDS: dict[str, list[list[str]]] = {  # what is said to the first question, the second, and so on
    "honest.test": [[PUBLIC]],
    "two.test": [[PUBLIC, OTHER]],
    "rebinds.test": [[PUBLIC], [PRIVATE]],
    "rebinds-to-loopback.test": [[PUBLIC], ["127.0.0.1"]],
    "flips.test": [[PRIVATE], [PUBLIC], [PRIVATE], [PUBLIC]],
    "mixed.test": [[PUBLIC, PRIVATE]],
    "private.test": [[PRIVATE]],
    "mapped.test": [[f"::ffff:{PRIVATE}"]],
    "translated.test": [["64:ff9b::a00:5"]],
    "unspecified.test": [["0.0.0.0"]],
    "metadata.test": [["169.254.169.254"]],
    "dead-first.test": [["93.184.215.99", PUBLIC]],
}


def main() -> None:
    make_addresses()
    with NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(f"nameserver {RESOLVER}\noptions timeout:4 attempts:1\n")
        file.flush()
        subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True)
        print(json.dumps(anyio.run(run)))


def make_addresses() -> None:
    """Gives the loopback link the addresses of our internet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for place, address in enumerate(("127.0.0.1", PUBLIC, OTHER, PRIVATE)):
            name = b"lo" if not place else b"lo:%d" % place
            request = struct.pack("16sHH4s8x", name, socket.AF_INET, 0, ip_address(address).packed)
            fcntl.ioctl(control, SIOCSIFADDR, request)
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", name, IFF_UP))


async def run() -> dict[str, object]:
    questions: Counter[str] = Counter()

    def answers(name: str, kind: int) -> Sequence[tuple[int, str]] | None:
        if name.startswith("silent"):
            return None
        if name == "alias.test":
            return [(CNAME, "private.test"), *([(A, PRIVATE)] if kind == A else [])]
        turns = RECORDS.get(name, [[]])
        if kind == A:
            questions[name] += 1
        turn = turns[min(max(questions[name], 1), len(turns)) - 1]
        return [(kind_of(each), each) for each in turn if kind_of(each) == kind]

    server = NameServer(RESOLVER, answers)
    told: dict[str, object] = {}
    kept, closed = {"/": ok(b"public")}, {"/": ok(b"public", "Connection: close"), "/keep": ok(b"public")}
    async with (
        a_site(closed, address=PUBLIC, port=80) as public,
        a_site(kept, address=OTHER, port=80),
        a_site({}, address=PRIVATE, port=80) as private,
        Broker(Egress(connect_s=10)) as broker,
    ):

        async def ask(url: str, owner: str = "honest") -> str:
            request = Request(owner, "GET", canonical(url), [], 0)
            body = b""
            try:
                async for piece in broker.fetch(request, nothing(), Traffic()):
                    body += b"" if isinstance(piece, ResponseHead) else piece
            except Error as error:
                return f"{error.code} {error.message}"
            return body.decode()

        for name in (*RECORDS, "alias.test", "nobody.test"):
            told[name] = [await ask(f"http://{name}/") for _ in range(4)]
        before = server.asked.count("two.test")
        told["kept"] = [await ask("http://two.test/keep") for _ in range(3)]
        told["asked for kept"] = server.asked.count("two.test") - before
        told["by address"] = await ask(f"http://{PUBLIC}/")
        told["by private address"] = await ask(f"http://{PRIVATE}/")

        silent: list[str] = []

        async def wait(number: int) -> None:
            silent.append((await ask(f"http://silent{number}.test/", "greedy")).split(" ")[0])

        async with create_task_group() as tasks:
            for number in range(12):
                tasks.start_soon(wait, number)
            await anyio.lowlevel.checkpoint()
            told["meanwhile"] = await ask("http://honest.test/")
        told["silent"] = dict(Counter(silent))
        told["visits"] = private.visits
        told["public"] = public.visits > 0
    return told


async def nothing() -> AsyncIterator[bytes]:
    return
    yield


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
