"""A visit: one address, the steps taken there, and everything that was seen, in the form that is handed on."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from anyio import create_task_group
from typing_extensions import TypedDict

from periphery.marco.chromium import open_browser
from periphery.marco.extract import Link, Table, extract
from periphery.marco.network import Network
from periphery.marco.page import Page, open_page
from periphery.marco.pipe import Pipe
from periphery.marco.printable import printable
from periphery.marco.reading import Source
from periphery.marco.steps import Step, take
from protos.blobs import store
from protos.mad import Context, Files
from protos.v1.message_pb2 import Blob

MARKDOWN_CHARACTERS = 100_000  # in the answer; all of it is in the file
SHOWN_LINKS = 500
REFUSALS = 50  # requests that were refused, told one by one
TITLE_CHARACTERS = 300


class PageSeen(TypedDict):
    """A page as it was seen. Everything in it was written by strangers, or made of what they wrote."""

    url: str  # that was asked for
    address: str  # where that led
    title: str
    status: int
    markdown: str
    links: list[Link]
    tables: list[Table]
    outline: str  # where a snapshot was asked for
    values: list[str]  # what scripts came to, as JSON
    dialogs: list[str]
    windows: list[str]  # addresses that it wanted to open by itself
    refused: list[str]  # requests of the page that were not made, and why
    requests: int
    hidden: int  # characters that nobody sees, which were left out
    notes: list[str]
    files: list[str]  # names of what hangs on the answer
    problem: str  # why there is no page


@dataclass(frozen=True)
class Wanted:
    """What is to be made of each page."""

    screenshot: bool = False
    outline: bool = False
    whole: bool = False  # the text with what stands beside the subject


@dataclass
class Session:
    """A browser with its network, for one run."""

    pipe: Pipe
    network: Network


@dataclass
class Seen:
    """What one visit brought."""

    page: PageSeen
    source: Source
    links: Sequence[Link] = ()
    blobs: list[Blob] = field(default_factory=list)


@asynccontextmanager
async def open_session(ctx: Context) -> AsyncIterator[Session]:
    """A browser that reaches what `ctx.web` reaches. Leaving ends it and removes its profile.

    Raises:
        Unavailable: it does not start.
    """
    with TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as folder:
        async with create_task_group() as tasks:
            async with open_browser(tasks, Path(folder)) as pipe:
                network = Network(pipe, ctx.web, ctx.files, tasks)
                await network.begin()
                yield Session(pipe, network)
            tasks.cancel_scope.cancel()  # requests that nobody waits for any more


async def visit(session: Session, files: Files, number: int, url: str, steps: Sequence[Step], wanted: Wanted) -> Seen:
    """Goes to `url`, takes the steps, and says what is there then.

    Raises:
        InvalidArgument, NotFound: the address or a step is wrong.
        Denied, Exhausted, Unavailable: it did not open.
        BrowserError: the browser could not.
    """
    session.network.forget()
    async with open_page(session.pipe, session.network) as page:
        await page.navigate(url)
        values = [each for each in [await take(page, step) for step in steps] if each]
        return await _see(page, files, number, url, values, wanted)


async def _see(page: Page, files: Files, number: int, url: str, values: list[str], wanted: Wanted) -> Seen:
    reading = extract(await page.look(), whole=wanted.whole)
    requests = page.network.requests
    documents = [each for each in requests if each.kind == "Document" and each.frame == page.target and each.status]
    refused = [each for each in requests if each.error is not None]
    seen = PageSeen(
        url=url,
        address=await page.address(),
        title=printable(await page.title())[:TITLE_CHARACTERS],
        status=documents[-1].status if documents else 0,
        markdown=reading.markdown[:MARKDOWN_CHARACTERS],
        links=reading.links[:SHOWN_LINKS],
        tables=reading.tables,
        outline=(await page.outline()).text if wanted.outline else "",
        values=values,
        dialogs=[f"{each.kind}: {printable(each.text)}" for each in page.dialogs],
        windows=[printable(each) for each in page.windows],
        refused=[printable(f"{each.method} {each.url[:300]}: {each.error}")[:600] for each in refused[:REFUSALS]],
        requests=len(requests),
        hidden=reading.hidden,
        notes=list(dict.fromkeys(page.notes)),
        files=[],
        problem="",
    )
    made = [("md", "text/markdown", reading.markdown.encode("utf-8", "replace"))]
    if wanted.screenshot:
        made.append(("png", "image/png", await page.screenshot()))
    blobs = [
        await store(files, content, name=f"page-{number}.{kind}", media_type=media_type)
        for kind, media_type, content in made
    ]
    seen["files"] = [each.name for each in blobs]
    return Seen(seen, Source(seen["address"], reading.text), reading.links, blobs)


def nothing_seen(url: str, problem: str) -> PageSeen:
    """What stands where no page came."""
    return PageSeen(
        url=url, address="", title="", status=0, markdown="", links=[], tables=[], outline="", values=[], dialogs=[],
        windows=[], refused=[], requests=0, hidden=0, notes=[], files=[], problem=problem,
    )  # fmt: skip
