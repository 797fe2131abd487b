"""The heads of requests and answers: what a caller may write, and what a server may make us read.

A caller writes fields, never bytes: whatever frames a message or belongs to one connection is the core's to write. The
head of an answer is looked at as bytes before a parser sees it. h11 is lenient, as RFC 9112 allows (bare line feeds,
folded lines, a length beside chunks); here everything is refused that two readers could understand differently.
"""

import re
from collections.abc import Iterable, Sequence

import h11

from core.egress.urls import Url
from protos.errors import Denied, InvalidArgument, Unavailable

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
HEADERS = 100  # of a request
HEADER_BYTES = 32 * 1024  # of a request
ANSWER_HEADERS = 200
ANSWER_HEAD_BYTES = 64 * 1024
INFORMATIONAL = 8  # answers of 1xx before the answer

OURS = frozenset({b"host", b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"expect"})
HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)  # of an answer, beside what its Connection header names

Headers = Sequence[tuple[bytes, bytes]]

# What some servers and frameworks believe before the line of the request: they would make it another path, method or
# host than was decided about. Names are compared as CGI writes them, where "_" and "-" are one.
_RENAMING = re.compile(
    rb"forwarded|x-forwarded(-.*)?|x-(original|rewrite)-.*|x-(envoy-|override-).*|x-host|(x-)?(http-)?(method|host|path|uri|url)-override"
    rb"|x-http-(method|host|path|uri|url)(-override)?|x-method"
)
_NO_LETTER = re.compile(rb"[^a-z0-9]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\x20\t\x21-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-5][0-9][0-9](?: [^\x00-\x08\x0a-\x1f\x7f]*)?")
_FIELD_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00\r\n]*")


def check_method(method: str) -> None:
    """
    Raises:
        InvalidArgument: it is no method at all.
        Denied: rule *method*: one that opens tunnels, echoes requests, or that nobody has thought about.
    """
    if not _TOKEN.fullmatch(method):
        raise InvalidArgument("The method is no word of HTTP.", next=f"Use one of {', '.join(sorted(METHODS))}.")
    if method not in METHODS:
        raise Denied(f"rule method: {method} is not sent.", next=f"Use one of {', '.join(sorted(METHODS))}.")


def checked(headers: Iterable[tuple[str, bytes]]) -> tuple[list[tuple[bytes, bytes]], int | None]:
    """A caller's headers as they may be sent, and the length of the body where they tell it.

    Raises:
        InvalidArgument: one is no header, is the core's to write, or they are too many.
        Denied: rule *upgrade*: another protocol is asked for; rule *header*: one may stand for another path, method or
            host than is decided about.
    """
    kept: list[tuple[bytes, bytes]] = []
    length: int | None = None
    size = 0
    for text, value in headers:
        if not _TOKEN.fullmatch(text) or not _VALUE.fullmatch(value):
            raise InvalidArgument(f"The header {text[:100]!r} cannot be sent.", next="Write it as RFC 9110 does.")
        name = text.lower().encode()
        size += len(name) + len(value)
        if name in (b"upgrade", b"http2-settings") or name.startswith((b"sec-websocket-", b":")):
            raise Denied("rule upgrade: only HTTP requests are made.", next="Do it without WebSockets.")
        plain = _NO_LETTER.sub(b"-", name)
        if _RENAMING.fullmatch(plain):
            raise Denied(
                f"rule header: {text} may stand for another path, method or host than is decided about.",
                next="Leave it out, and ask for what is meant.",
            )
        if plain in OURS or plain.startswith(b"proxy-"):
            raise InvalidArgument(f"The header {text} is the core's to write.", next="Leave it out.")
        if name == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                raise InvalidArgument("The length of the body is one number.", next="Leave it out, or mend it.")
            length = int(value)
            continue
        kept.append((text.encode(), value))
    if len(kept) > HEADERS or size > HEADER_BYTES:
        raise _too_many()
    return kept, length


def check_filled(headers: Headers) -> None:
    """Looks once more at headers into which secrets were put. What is refused is named, never shown.

    Raises:
        InvalidArgument: one cannot be sent as it is now, or together they are too long.
    """
    for name, value in headers:
        if not _VALUE.fullmatch(value):
            raise InvalidArgument(f"The header {name.decode()} cannot hold its secret.", next="Rotate the secret.")
    if sum(len(name) + len(value) for name, value in headers) > HEADER_BYTES:
        raise _too_many()


def _too_many() -> InvalidArgument:
    return InvalidArgument(f"A request has at most {HEADERS} headers in {HEADER_BYTES} bytes.", next="Send fewer.")


def framed(method: str, url: Url, headers: Headers, length: int | None) -> h11.Request:
    """The request as it is sent. `length` is of its body; None: it is sent in chunks."""
    framing: list[tuple[bytes, bytes]] = []
    if length is None:
        framing.append((b"Transfer-Encoding", b"chunked"))
    elif length or method in ("POST", "PUT", "PATCH"):
        framing.append((b"Content-Length", b"%d" % length))
    host = (b"Host", url.authority.encode())
    return h11.Request(method=method.encode(), target=url.target.encode(), headers=[host, *headers, *framing])


def check_head(raw: bytes) -> None:
    """Looks at the head of an answer, with the blank line that ends it, before a parser does.

    Raises:
        Unavailable: it is none, or one that two readers could understand differently.
    """
    lines = raw[:-4].split(b"\r\n")
    if not _STATUS_LINE.fullmatch(lines[0]):
        raise nonsense("it begins with no status line")
    if len(lines) - 1 > ANSWER_HEADERS:
        raise nonsense(f"it has more than {ANSWER_HEADERS} headers")
    lengths, is_chunked = 0, False
    for each in lines[1:]:
        if not _FIELD_LINE.fullmatch(each):
            raise nonsense("one of its headers is none: a folded line, a bare line feed, or a blank before the colon")
        name = each.partition(b":")[0].lower()
        lengths += name == b"content-length"
        is_chunked = is_chunked or name == b"transfer-encoding"
    if lengths > 1 or (lengths and is_chunked):
        raise nonsense("it tells its length in more than one way")


def end_to_end(headers: Headers) -> list[tuple[bytes, bytes]]:
    """An answer's headers without those of the one connection."""
    named = {
        each.strip().lower() for name, value in headers if name.lower() == b"connection" for each in value.split(b",")
    }
    gone = HOP_BY_HOP | (named - {b"content-length", b"content-encoding", b"content-type"})
    return [(name, value) for name, value in headers if name.lower() not in gone]


def nonsense(why: str) -> Unavailable:
    """The error for an answer that is no HTTP."""
    return Unavailable(f"The answer cannot be read: {why}.", next="Tell whoever runs that server.")
