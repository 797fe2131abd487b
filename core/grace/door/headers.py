"""What every answer says to a browser: run nothing, frame nothing, tell nobody, keep nothing.

The page has a policy of its own (`PAGE_CSP`): its scripts and styles are files of ours, its only conversation partner
is the listener it came from, and text can become a node of the page only as text (Trusted Types). Whatever else the
door answers is data, and a browser that is led to it directly gets an empty sandbox.
"""

from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NOTHING = (
    "default-src 'none'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)
_OURS = ("script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'", "worker-src 'none'")
PAGE_CSP = "; ".join((*_NOTHING, *_OURS))
DATA_CSP = "; ".join((*_NOTHING, "sandbox"))
PERMISSIONS = ", ".join(
    f"{each}=()"
    for each in (
        *("accelerometer", "camera", "display-capture", "geolocation", "gyroscope", "hid", "microphone", "midi"),
        *("payment", "publickey-credentials-get", "serial", "usb", "xr-spatial-tracking"),
    )
)
COMMON: Sequence[tuple[bytes, bytes]] = tuple(
    (name.encode(), value.encode())
    for name, value in {
        "content-security-policy": DATA_CSP,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-embedder-policy": "require-corp",
        "origin-agent-cluster": "?1",
        "permissions-policy": PERMISSIONS,
        "cache-control": "no-store",
    }.items()
)


def secured(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """`headers` with those that every answer has, where they do not say otherwise themselves."""
    said = {name.lower() for name, _ in headers}
    return [*headers, *(each for each in COMMON if each[0] not in said)]


class Secured:
    """Every answer of an application, whoever made it and however it came about."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(part: Message) -> None:
            if part["type"] == "http.response.start":
                part["headers"] = secured(part.get("headers", ()))
            await send(part)

        await self._app(scope, receive, answer)
