"""Places: where in the world a secret may be used, and whether a request goes there.

A place is a scheme, a host, a port and the segments that a path begins with. Matching has to say no wherever two
readers of an address could disagree, since one of them decides and another one connects. So an address is taken apart
here by one strict rule and not mended: no user, no backslash, no control character, a host in one canonical form. And
where a grant names a path, a request whose path a server might read in another way (dots, encoded slashes and dots,
empty segments, encoded percent signs) goes elsewhere.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import idna

from protos.errors import InvalidArgument

PORTS = {"http": 80, "https": 443}
ADDRESS = re.compile(
    r"(?i)(https?)://([^/?#\\@\s\x00-\x20\x7f]+)(/[^?#\\\s\x00-\x20\x7f]*)?(\?[^#\s\x00-\x20\x7f]*)?(#.*)?"
)
AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?")
LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
NEXT = "Write it as https://HOST[:PORT]/PATH."


@dataclass(frozen=True, slots=True)
class Address:
    """An absolute address of the web, taken apart. `host` is canonical; `path` is as it was written."""

    scheme: str
    host: str  # lower case ASCII, an IPv6 address in brackets
    port: int
    path: str

    @property
    def origin(self) -> str:
        """Scheme, host, and the port where it is not the usual one."""
        return f"{self.scheme}://{self.host}" + ("" if self.port == PORTS[self.scheme] else f":{self.port}")


@dataclass(frozen=True, slots=True)
class Place:
    """What a grant is for: an origin, and the segments with which a path must begin; none: any path."""

    scheme: str
    host: str
    port: int
    segments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def authority(self) -> str:
        """The host, and the port where it is not the usual one."""
        return self.host if self.port == PORTS[self.scheme] else f"{self.host}:{self.port}"

    @property
    def path(self) -> str:
        """What a path begins with; empty for any."""
        return "".join(f"/{each}" for each in self.segments)

    def holds(self, address: Address) -> bool:
        """Whether a request to `address` goes there, for every reader of that address."""
        if (address.scheme, address.host, address.port) != (self.scheme, self.host, self.port):
            return False
        if not self.segments:
            return True
        segments = plain_segments(address.path)
        return segments is not None and segments[: len(self.segments)] == self.segments


def address_of(url: str) -> Address:
    """
    Raises:
        InvalidArgument: `url` is no absolute http or https address, or one that can be read in two ways.
    """
    match = ADDRESS.fullmatch(url)
    if match is None:
        raise InvalidArgument("That is no absolute http or https address.", next=NEXT)
    authority = AUTHORITY.fullmatch(match[2])
    if authority is None:
        raise InvalidArgument("The host of the address cannot be read.", next=NEXT)
    scheme = match[1].lower()
    port = int(authority[2]) if authority[2] else PORTS[scheme]
    if not 0 < port < 65536:
        raise InvalidArgument(f"{port} is no port.", next=NEXT)
    return Address(scheme, canonical_host(authority[1]), port, match[3] or "/")


def place_of(text: str) -> Place:
    """What `--for` says: HOST[:PORT][/PATH], over https; http only where it is written out.

    Raises:
        InvalidArgument: it is no such thing, or its path could be read in two ways.
    """
    address = address_of(text if "://" in text else f"https://{text}")
    if "?" in text or "#" in text:
        raise InvalidArgument("A place ends with its path: no ? and no #.", next="Leave the rest away.")
    segments = plain_segments(address.path)
    if segments is None:
        raise InvalidArgument(
            f"Servers may read the path {address.path[:100]!r} in different ways.",
            next="Write it without dots, empty segments and encoded slashes.",
        )
    if segments and not segments[-1]:
        segments = segments[:-1]  # /repos/ and /repos are one place
    return Place(address.scheme, address.host, address.port, segments)


def canonical_host(host: str) -> str:
    """One form for every way to write a host; names in other scripts as A-labels.

    Raises:
        InvalidArgument: it is neither a name nor an address in its usual form (no octal, no single number).
    """
    if not host.isprintable():
        raise InvalidArgument("A host has no characters that nobody sees.", next=NEXT)
    try:
        if host.startswith("["):
            return f"[{IPv6Address(host[1:-1]).compressed}]"
        name = host if host.isascii() else idna.encode(host, uts46=True, std3_rules=True).decode("ascii")
    except (AddressValueError, idna.IDNAError) as error:
        raise InvalidArgument(f"{host[:100]!r} is no host.", next=NEXT) from error
    name = name.lower()
    labels = name.split(".")
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        try:
            return str(IPv4Address(name))
        except AddressValueError:
            raise InvalidArgument(f"{host[:100]!r} is no host.", next="Write an address as 192.0.2.1.") from None
    if len(name) > 253 or not all(LABEL.fullmatch(each) for each in labels):
        raise InvalidArgument(f"{host[:100]!r} is no host.", next=NEXT)
    return name


def plain_segments(path: str) -> tuple[str, ...] | None:
    """The segments of a path that everybody reads alike; None where somebody may not."""
    found: list[str] = []
    for each in path.removeprefix("/").split("/"):
        if found and not found[-1]:
            return None  # an empty segment before the last
        if "%" in ESCAPE.sub("", each) or not each.isascii():
            return None
        plain = ESCAPE.sub(_unescaped, each)
        codes = {int(code, 16) for code in ESCAPE.findall(plain)}
        if codes & {0x00, 0x25, 0x2F, 0x3B, 0x5C} or any(code < 0x20 or code == 0x7F for code in codes):
            return None
        if plain.partition(";")[0] in (".", ".."):
            return None
        found.append(plain)
    return tuple(found) if found != [""] else ()  # "/" has none


def _unescaped(match: re.Match[str]) -> str:
    """What needs no escape is written without, the rest in upper case."""
    byte = int(match[1], 16)
    return chr(byte) if byte in UNRESERVED else match[0].upper()


def is_loopback(host: str) -> bool:
    """Whether a canonical host is this machine."""
    return host == "localhost" or host == "[::1]" or bool(re.fullmatch(r"127(\.\d{1,3}){3}", host))
