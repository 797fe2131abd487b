"""What a browser gets that asks for the script of a service worker: one that ends itself.

The page has no service worker, and its policy lets it have none (`worker-src`). A browser that asks has one that
somebody else planted at this port, while he had it. Browsers look for a newer script whenever a page is opened there,
past the worker itself; the newer one takes its place, unregisters, and loads its pages anew, from us.
"""

from starlette.responses import Response
from starlette.types import Scope

SCRIPT = """\
addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil((async () => {
  await registration.unregister();
  for (const each of await clients.matchAll({type: "window"})) each.navigate(each.url);
})()));
"""


def asks_for_worker(scope: Scope) -> bool:
    """Whether a browser wants the script of a service worker: no page can make it say so, and no page of ours does."""
    return (b"service-worker", b"script") in scope["headers"]


def ended() -> Response:
    """The script, good for a worker of whatever scope."""
    return Response(SCRIPT, headers={"content-type": "text/javascript", "service-worker-allowed": "/"})
