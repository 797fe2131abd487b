"""How a secret gets into a request: as a header that a grant adds, or where a handle `secret://NAME` stands in one."""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass

from core.turing.secret import MAX_BYTES, Secret
from protos.errors import Denied, InvalidArgument

NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_])?"
_HANDLE = re.compile(rb"secret://(" + NAME.encode() + rb")")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_CORES_OWN = frozenset(
    ("connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
)
_BASIC = re.compile(rb"(?i)basic +([A-Za-z0-9+/]+=*) *")
_FOR_SECRETS = re.compile(r"authorization|cookie|(?:[a-z0-9]+-)*(?:api)?(?:key|token)")
NEXT = "Write header:NAME='before {} after', or basic:USER."


@dataclass(frozen=True, slots=True)
class Adding:
    """How a value becomes a header."""

    header: str
    before: str = ""
    after: str = ""
    user: str | None = None  # of basic authentication

    def __str__(self) -> str:
        """As whoever holds the grant may know it."""
        return f"header:{self.header}"

    def filled(self, value: Secret) -> Secret:
        """The whole value of the header.

        Raises:
            Denied: the secret cannot stand in a header.
        """
        if self.user is None:
            return checked(value.within(self.before.encode(), self.after.encode()))
        pair = base64.b64encode(f"{self.user}:".encode() + value.reveal())
        return Secret(b"Basic " + pair, name=value.name, version=value.version)


def adding_of(use: str) -> Adding | None:
    """What the `use` of a grant says; None where it is empty.

    Raises:
        InvalidArgument: it says something else.
    """
    if not use:
        return None
    kind, _, rest = use.partition(":")
    if kind == "basic" and rest and ":" not in rest and rest.isprintable():
        return Adding("Authorization", user=rest)
    header, equals, template = rest.partition("=")
    before, braces, after = template.partition("{}") if equals else ("", "{}", "")
    if kind != "header" or not braces or "{}" in after or not template.isprintable() or not template.isascii():
        raise InvalidArgument(f"{use[:100]!r} does not say how the value is added.", next=NEXT)
    if not _TOKEN.fullmatch(header) or header.lower() in _CORES_OWN or header.lower().startswith("proxy-"):
        raise InvalidArgument(f"No secret goes into the header {header[:64]!r}.", next="Name another header.")
    return Adding(header, before, after)


def is_for_secrets(header: str) -> bool:
    """Whether servers keep to themselves what stands there: Authorization, Cookie, and names that end in key or token.

    A `User-Agent` or a `Referer` is shown to others, and what is shown there can be fetched again.
    """
    return header.lower() != "idempotency-key" and _FOR_SECRETS.fullmatch(header.lower()) is not None


def fill_handles(header: str, value: bytes, open_secret: Callable[[str], Secret]) -> Secret | None:
    """`value` of a header with each handle replaced by what it stands for; None where there is none.

    In the pair of basic authentication handles are seen, too.

    Raises:
        Denied: a secret that cannot stand in a header; and whatever `open_secret` raises.
    """
    pair = _basic_pair(value) if header.lower() in ("authorization", "proxy-authorization") else None
    text = value if pair is None else pair
    if b"secret://" not in text:
        return None
    opened: list[Secret] = []
    size = 0

    def replaced(match: re.Match[bytes]) -> bytes:
        nonlocal size
        opened.append(open_secret(match[1].decode()))
        filling = opened[-1].reveal()
        size += len(filling)
        if size > MAX_BYTES:
            raise Denied("rule grant: with its secrets the header is too long.", next="Write each handle once.")
        return filling

    filled = _HANDLE.sub(replaced, text)
    if not opened:
        return None
    whole = filled if pair is None else b"Basic " + base64.b64encode(filled)
    return checked(Secret(whole, name=opened[0].name, version=opened[0].version))


def checked(value: Secret) -> Secret:
    """
    Raises:
        Denied: it has a line break or another control character, or a blank at an end: it cannot stand in a header.
    """
    plain = value.reveal()
    if any(byte < 0x20 or byte == 0x7F for byte in plain) or plain.strip(b" ") != plain:
        raise Denied(
            f"The value of {value.name} cannot stand in a header: it has line breaks, control characters or a blank at"
            " an end.",
            next=f"Give it one line: madlab secret rotate {value.name}",
        )
    return value


def _basic_pair(value: bytes) -> bytes | None:
    match = _BASIC.fullmatch(value)
    if match is None:
        return None
    try:
        return base64.b64decode(match[1], validate=True)
    except binascii.Error:
        return None
