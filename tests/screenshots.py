"""Pictures of every page of a real lab, for people to look at: light and dark, on a wide screen and a small telephone.

    python -m tests.screenshots DIR [NAME...]

The lab has done what labs do: it has coded (a patch that holds, and a run that failed), scanned, talked, been asked for
permission, and something is at work. Each picture is DIR/NAME-COLOURS-WIDTH.png, the whole page from top to bottom;
with NAMEs, only of pages whose name begins so. Whatever a page says on its console is printed.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import anyio
from anyio import to_thread
from anyio.from_thread import start_blocking_portal
from playwright.async_api import Browser

from core.grace.cli.client import Client
from core.home import Home
from tests.agents.troupe import Troupe, alias, settings
from tests.browser import Scheme, chromium
from tests.commands import Madlab, a_lab
from tests.labs import ROOT
from tests.model_server import model_server
from tests.pages import live, signed_in
from tests.repositories import seeded, small

EMADS = ("periphery/hopper", "periphery/mcnamara", "tests/emads/echo")
IMAGES = ("base", "hopper", "mcnamara", "tests/emads/echo")
SIZES = ((1600, 900), (360, 780))
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
LIMITS = """
[profile.hopper]
memory_mb = 512
workspace_mb = 256
[profile.echo]
deadline_s = 900
[llm]
usd_per_day = 5
[runs]
max_running = 6
"""
POLICY = """
[[rules]]
name = "what-echo-keeps"
kinds = ["files.put"]
principals = ["mad:echo"]
verdict = "ask"
reason = "what is kept is looked at first"
"""
PLACES = {
    "start": "/",
    "runs": "/runs",
    "patches": "/patches",
    "reports": "/reports",
    "conversations": "/conversations",
    "search": "/search?q=seconds",
    "lab": "/lab",
}
ROOMS = ("mads", "sandboxes", "costs", "secrets", "policy", "incidents", "audit", "doctor")
SLOW_S = 600.0  # for something to be at work while the pictures are taken
CODED = ("good/python-pytest", "emptier")


def main() -> None:
    """Takes them."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    with lively() as madlab:
        anyio.run(_pictures, madlab.home, directory, sys.argv[2:])


@contextmanager
def lively() -> Iterator[Madlab]:
    """A lab in which things have happened, and one is happening."""
    troupe = Troupe()
    with (
        tempfile.TemporaryDirectory(prefix="lively") as place,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(model_server(troupe)) as server,
    ):
        emads = f"emads = {json.dumps([str(ROOT / each) for each in EMADS])}\n"
        told = emads + LIMITS + settings(server, troupe.agents)
        with a_lab(told, images=IMAGES, prepare=_prepare) as madlab:
            _do(madlab, troupe, Path(place))
            yield madlab


def _prepare(home: Home) -> None:
    (home.path / "key").touch(mode=0o600)
    (home.path / "key").write_text("sk-test-of-nobody")
    (home.path / "policy.toml").write_text(POLICY)


def _do(madlab: Madlab, troupe: Troupe, place: Path) -> None:
    """What labs do."""
    kinds = seeded() | small()
    for name in CODED:
        agent = troupe.agents[f"{name}@openai"]
        repository = kinds[agent.repository]
        made = repository.make(Path(tempfile.mkdtemp(dir=place)))
        words = ["code", repository.goal, "--repo", made.root, "--model", alias(f"{agent.name}@openai")]
        madlab(*words, *(("--test", repository.test) if repository.test else ()), *agent.terms, "--json")
    madlab("scan", ROOT / "tests/integration/samples")
    client = Client(madlab.home)
    for tool, arguments in (
        ("say", {"text": "Good morning. How many seconds has a day? #greetings"}),
        ("misbehave", {"how": "raise"}),
        ("misbehave", {"how": "raise"}),
        ("keep", {"text": "a note"}),
        ("say_later", {"text": "I am still here", "after_s": SLOW_S}),
    ):
        client.publish({"recipient": "echo", "kind": "call", "tool": tool, "arguments": arguments, "conversation": ""})


async def _pictures(home: Home, directory: Path, names: Sequence[str]) -> None:
    rooms = {f"lab-{each}": f"/lab/{each}" for each in ROOMS}
    pages = PLACES | rooms | await to_thread.run_sync(_of_things, home)
    wanted = {name: path for name, path in pages.items() if not names or name.startswith(tuple(names))}
    async with chromium() as browser:
        for scheme in SCHEMES:
            for size in SIZES:
                await _series(browser, home, directory, wanted, scheme, size)


def _of_things(home: Home) -> dict[str, str]:
    """The pages of single runs, patches, reports and conversations."""
    runs = Client(home).get("/api/v1/runs", limit=50)["runs"]
    by_mad: dict[str, list[dict[str, str]]] = {}
    for each in runs:
        by_mad.setdefault(each["mad"], []).append(each)
    found = {f"run-{mad}": f"/runs/{quote(some[0]['id'])}" for mad, some in by_mad.items()}
    found["patch"] = f"/patches/{quote(by_mad['foreman'][-1]['id'])}"
    found["report"] = f"/reports/{quote(by_mad['mcnamara'][0]['id'])}"
    return found | {"conversation": f"/conversations/{quote(by_mad['foreman'][-1]['conversation'])}"}


async def _series(
    browser: Browser, home: Home, directory: Path, pages: Mapping[str, str], scheme: Scheme, size: tuple[int, int]
) -> None:
    width, height = size
    async with signed_in(browser, home, scheme=scheme, width=width, height=height) as found:
        for name, path in pages.items():
            await found.page.goto(path)
            await live(found)
            await anyio.sleep(0.7)  # for plots and lists that are asked for after the page stands
            picture = directory / f"{name}-{scheme}-{width}.png"
            await found.page.screenshot(path=picture, full_page=True)
            print(picture, *found.said)
            found.said.clear()


if __name__ == "__main__":
    main()
