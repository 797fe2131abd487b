"""The page's files, for anybody who reaches the listener: they hold no secret, and can do nothing without a token.

Whatever the page shows it asks `/api/v1` for. Any address of the page gives the same shell, which reads the address
itself; files are checked by their ETag on each load, so that a new core is a new page.
"""

from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from gzip import compress
from hashlib import sha256
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from core.grace.door.headers import PAGE_CSP
from core.grace.door.routes import Endpoint
from protos.errors import NotFound

PLACES = ("runs", "patches", "reports", "conversations", "search", "lab")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {  # the others are everybody's
    "content-security-policy": PAGE_CSP,
    "cache-control": "no-cache",
    "vary": "accept-encoding",
}


@dataclass(frozen=True)
class Asset:
    """One file of the page."""

    content: bytes
    packed: bytes  # gzip
    media_type: str
    digest: str


def routes() -> Iterator[Endpoint]:
    """The shell at every address of the page, whose queries are the page's own, and its files."""
    for place in ("/", *(f"/{each}{rest}" for each in PLACES for rest in ("", "/{rest:path}"))):
        yield Endpoint("GET", place, _shell, "The page.", query=None, base="", anybody=True, shown=False)
    yield Endpoint(
        "GET", "/assets/{name:path}", _asset, "A file of the page.", query=None, base="", anybody=True, shown=False
    )


@cache
def assets() -> dict[str, Asset]:
    """Every file of the package `core.grace.web` that a browser may have, by its name there."""
    here = files("core.grace.web")
    found = {}
    for folder in ("", "js/"):
        for each in (here / folder if folder else here).iterdir():
            suffix = each.name[each.name.rfind(".") :]
            if each.is_file() and suffix in TYPES:
                content = each.read_bytes()
                digest = urlsafe_b64encode(sha256(content).digest()[:15]).decode()
                packed = compress(content, 9, mtime=0)
                found[folder + each.name] = Asset(content, packed, TYPES[suffix], digest)
    return found


async def _shell(request: Request) -> Response:
    return _answer(request, assets()["index.html"])


async def _asset(request: Request) -> Response:
    asset = assets().get(request.path_params["name"])
    if asset is None:
        raise NotFound("the page has no such file", next="reload the page")
    return _answer(request, asset)


def _answer(request: Request, asset: Asset) -> Response:
    packs = "gzip" in request.headers.get("accept-encoding", "")
    headers = HEADERS | {"etag": f'"{asset.digest}{"-gzip" if packs else ""}"', "content-type": asset.media_type}
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if headers["etag"] in known:
        return Response(status_code=304, headers=headers)
    if packs:
        return Response(asset.packed, headers=headers | {"content-encoding": "gzip"})
    return Response(asset.content, headers=headers)
