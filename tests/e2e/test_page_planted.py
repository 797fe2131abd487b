"""What somebody plants in a browser at the page's port, while he has it, does not stay there."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import TASK_STATUS_IGNORED, CancelScope, create_task_group, create_tcp_listener
from anyio.abc import SocketStream, TaskStatus
from playwright.async_api import Browser, expect

from core.grace.door.origin import USUAL
from tests.emads.echo import Echo
from tests.labs import a_home, opened

WORKER = """
addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("fetch", (event) => event.respondWith(
  new Response("<h1>planted</h1>", {headers: {"content-type": "text/html"}})));
"""
SHELL = '<h1>evil</h1><script>navigator.serviceWorker.register("/deep/evil.js", {scope: "/"})</script>'


@asynccontextmanager
async def somebody_else() -> AsyncIterator[int]:
    """Has the port that it yields, and plants a worker there for all of the origin."""

    async def serve(stream: SocketStream) -> None:
        async with stream:
            head = await stream.receive()
            wants_script = b"GET /deep/evil.js" in head
            kind, body = ("text/javascript", WORKER) if wants_script else ("text/html", SHELL)
            told = f"content-type: {kind}\r\nservice-worker-allowed: /\r\ncontent-length: {len(body)}"
            await stream.send(f"HTTP/1.1 200 OK\r\n{told}\r\nconnection: close\r\n\r\n{body}".encode())

    async def listen(port: int, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        async with await create_tcp_listener(local_host="127.0.0.1", local_port=port, reuse_port=False) as listener:
            task_status.started()
            await listener.serve(serve)

    async with create_task_group() as tasks:
        while True:
            port = random.choice(USUAL)
            try:
                await tasks.start(listen, port)
                break
            except OSError:
                continue
        yield port
        tasks.cancel_scope.cancel()


async def test_a_worker_that_was_planted_at_the_pages_port_ends_itself(browser: Browser) -> None:
    context = await browser.new_context()
    try:
        page = await context.new_page()
        async with somebody_else() as port:
            at = f"http://127.0.0.1:{port}"
            await page.goto(f"{at}/runs")
            await page.evaluate("navigator.serviceWorker.ready.then(() => 0)")
            await page.goto(f"{at}/runs")
            await expect(page.get_by_role("heading")).to_have_text("planted")
        with a_home(f"[web]\nport = {port}\n") as home:
            async with opened(home, echo=Echo) as lab:
                assert lab.web == at
                await page.goto(f"{at}/runs")  # it answers once more, and the browser asks us for a newer one
                await expect(page.get_by_role("heading")).to_have_text("This browser is not signed in", timeout=60_000)
                left = "navigator.serviceWorker.getRegistrations().then((all) => all.length)"
                assert await page.evaluate(left) == 0
                await page.goto(f"{at}/runs")
                await expect(page.get_by_role("heading")).to_have_text("This browser is not signed in")
    finally:
        with CancelScope(shield=True):
            await context.close()
