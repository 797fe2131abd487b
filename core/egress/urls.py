"""An address of the web in the one form that is decided about, sent and written down.

Rules of the file. Whatever two programs could read in two ways is refused, not guessed: userinfo, backslashes, control
characters, blanks, dots that only a second decoding shows. What has one meaning and many spellings becomes its usual
spelling: letters of scheme and host, IPv4 in octal, hexadecimal or as one number (WHATWG URL, 3.5), IPv6, international
names (UTS 46), the usual port, dot segments, percent encodings (RFC 3986, 6.2.2). The result is what goes out on the
wire, so nothing that is decided about can differ from what is asked for.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import unquote

import idna

from protos.errors import InvalidArgument

URL_CHARACTERS = 8192
PORTS = {"http": 80, "https": 443}
UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
ENCODED = frozenset(b'"<>^`{|}')  # beside everything that is no visible ASCII
DECODINGS = 4  # how often a path is decoded to see whether dots hide in it

_PARTS = re.compile(r"(?is)(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?")
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{0,5}))?")
_UNSEEN = re.compile(
    r"[\x00-\x20\x7f\\]|[\u0080-\u009f\u00a0\u00ad\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ud800-\udfff\ufeff]"
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Url:
    """An absolute http or https address in its canonical form, without a fragment."""

    scheme: str
    host: str  # lower case, ASCII; an IPv6 address without brackets
    port: int
    target: str  # path and query, as they are sent

    @property
    def authority(self) -> str:
        """What stands in the Host header: the port only where it is not the usual one."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == PORTS[self.scheme] else f"{name}:{self.port}"

    @property
    def path(self) -> str:
        """Without the query."""
        return self.target.partition("?")[0]

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def canonical(text: str) -> Url:
    """The one form of `text`.

    Raises:
        InvalidArgument: it is no absolute http or https address, or one that can be read in two ways.
    """
    if len(text) > URL_CHARACTERS:
        raise _refused(f"an address has at most {URL_CHARACTERS} characters")
    if _UNSEEN.search(text):
        raise _refused("an address holds no blanks, control characters or backslashes")
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise _refused("an address begins with http:// or https:// and a host")
    scheme, authority, path, query = parts[1].lower(), parts[2], parts[3], parts[4] or ""
    if "@" in authority:
        raise _refused("an address holds no user name or password")
    split = _AUTHORITY.fullmatch(authority)
    if split is None:
        raise _refused("its host is none")
    port = int(split[2]) if split[2] else PORTS[scheme]
    if not 0 < port < 65536:
        raise _refused(f"there is no port {port}")
    url = Url(scheme, _host(split[1]), port, _path(_encoded(path)) + _encoded(query))
    if len(url.target) > URL_CHARACTERS:
        raise _refused(f"an address has at most {URL_CHARACTERS} characters")
    return url


def _refused(why: str) -> InvalidArgument:
    return InvalidArgument(f"The address cannot be asked for: {why}.", next="Write it as RFC 3986 does.")


def _host(text: str) -> str:
    if text.startswith("["):
        try:
            return IPv6Address(text[1:-1] if "%" not in text else "").compressed  # a zone is this machine's business
        except AddressValueError:
            raise _refused("what stands in brackets is no IPv6 address") from None
    if not text.isascii():
        try:
            text = idna.encode(text, uts46=True, transitional=False).decode("ascii")
        except idna.IDNAError:
            raise _refused("its host is no international name") from None
    labels = text.lower().removesuffix(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(labels)
    if len(".".join(labels)) > 253 or not all(_LABEL.fullmatch(each) for each in labels):
        raise _refused("its host is no name")
    return ".".join(labels)


def _ipv4(labels: list[str]) -> str:
    """One to four numbers, the last filling what is left: as inet_aton and browsers read them."""
    if len(labels) > 4 or not all(_NUMBER.fullmatch(each) for each in labels):
        raise _refused("its host ends in a number and is no IPv4 address")
    try:
        numbers = [_number(each) for each in labels]
    except ValueError:
        raise _refused("its host ends in a number and is no IPv4 address") from None
    *first, last = numbers
    if any(each > 255 for each in first) or last >= 256 ** (5 - len(numbers)):
        raise _refused("its host is beyond the last IPv4 address")
    value = last
    for place, each in enumerate(first):
        value += each << 8 * (3 - place)
    return str(IPv4Address(value))


def _number(text: str) -> int:
    if len(text) > 64:
        raise ValueError(text)
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8) if text.startswith("0") else int(text)


def _encoded(text: str) -> str:
    """Percent encodings in their one form; what needs one and has none gets it, a lone % too."""
    data, result, at = text.encode(), bytearray(), 0
    while at < len(data):
        byte = data[at]
        at += 1
        if byte == 0x25:
            try:
                byte = int(data[at : at + 2].decode("ascii"), 16) if data[at : at + 2].isalnum() else -1
            except (UnicodeDecodeError, ValueError):
                byte = -1
            if byte < 0 or len(data) < at + 2:
                result += b"%25"
                continue
            at += 2
            result += bytes((byte,)) if byte in UNRESERVED else b"%%%02X" % byte
        elif byte in ENCODED or not 0x20 < byte < 0x7F:
            result += b"%%%02X" % byte
        else:
            result.append(byte)
    return result.decode("ascii")


def _path(path: str) -> str:
    """Without dot segments.

    Raises:
        InvalidArgument: a server that decodes once more, or reads "\\" or ";" its own way, would find some in the rest.
    """
    kept: list[str] = []
    segments = path.split("/")[1:] or [""]
    for place, each in enumerate(segments):
        is_last = place == len(segments) - 1
        if each == "..":
            del kept[-1:]
        elif each != ".":
            kept.append(each)
            continue
        if is_last:
            kept.append("")
    plain = "/" + "/".join(kept)
    decoded = plain
    for _ in range(DECODINGS):
        segments = decoded.replace("\\", "/").split("/")
        if "\0" in decoded or any(each.partition(";")[0] in ("..", ".") for each in segments):
            raise _refused("dots or a NUL hide in its path")
        decoded, before = unquote(decoded), decoded
        if decoded == before:
            break
    else:
        raise _refused("its path is encoded many times over")
    return plain
