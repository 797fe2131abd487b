"""Where an act goes: addresses and patterns of hosts, in the one form that rules are matched with.

An address that is not written in that form matches nothing and is refused: two programs that read one address in two
ways are how a check is passed by what it was meant to stop.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OWN_PORTS = {"http": 80, "https": 443}
NOWHERE = "!"  # a pattern that names no host: what is left where two narrowings have nothing in common
ANY_PORT, OWN_PORT = -1, 0  # of a pattern: "example.org:*"; "example.org", which means 80 with http and 443 with https

# Printable ASCII, no user, no backslash, no fragment; the host in lower case and without a dot at its end.
_ADDRESS = re.compile(
    r"(https?)://(\[[0-9a-f:.]{2,45}\]|[a-z0-9_](?:[a-z0-9._-]{0,252}[a-z0-9_])?)(?::([0-9]{1,5}))?"
    r"(/[!-\"$->@-\[\]-~]*)?(?:\?[!-\"$-\[\]-~]*)?"
)
_PORT = "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
HOSTS = re.compile(
    r"(\*|(?:\*\.)?[a-z0-9_](?:[a-z0-9._-]{0,252}[a-z0-9_])?|\[[0-9a-f:.]{2,45}\])"
    rf"(?::(\*|{_PORT}))?"
)
# What one server takes for part of a name and another for a step up, a division or its end: "/docs/%2e%2e/admin",
# "/admin;x", "/admin%3fx", "/admin%252fx"; and dots and blanks at the ends of a name, which some cut off.
_UNCLEAR = re.compile(
    r"//|;|%(?:2e|2f|5c|3b|25|3f|23|[01][0-9a-f]|7f|c0|c1)|/%20|(?:%20|\.)(?:/|$)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Address:
    """An http or https address, taken apart."""

    scheme: str
    host: str  # with brackets where it is IPv6
    port: int
    path: str  # "/" at least, as it is sent

    @property
    def is_clear(self) -> bool:
        """Whether every server reads the path's segments alike."""
        path = self.path
        # Quicker than the expression, by far.
        usual = not ("%" in path or ";" in path or "./" in path or "//" in path or path.endswith("."))
        return usual or _UNCLEAR.search(path) is None


@dataclass(frozen=True, slots=True)
class HostPattern:
    """Which hosts: "example.org", "*.example.org" (what is below it, not it) or "*"; each may have ":8443" or ":*"."""

    host: str
    port: int = OWN_PORT


def named(host: str, patterns: Iterable[str]) -> str:
    """What patterns say of a host: its name, or the domain that it is below as "*.example.org"; empty where only "*"
    fits."""
    for each in patterns:
        pattern = host_pattern(each).host
        if pattern == host or (pattern.startswith("*.") and host.endswith(pattern[1:])):
            return pattern
    return ""


def port_fits(wanted: int, address: Address) -> bool:
    """Whether an address has the port that a pattern wants."""
    if wanted == OWN_PORT:
        return address.port == OWN_PORTS[address.scheme]
    return wanted in (ANY_PORT, address.port)


def address_of(url: str) -> Address | None:
    """The parts of an address; None where it is not in the one form."""
    found = _ADDRESS.fullmatch(url)
    if found is None:
        return None
    scheme, host, port, path = found.groups()
    number = int(port) if port else OWN_PORTS[scheme]
    return Address(scheme, host, number, path or "/") if 0 < number < 65536 else None


def host_pattern(text: str) -> HostPattern:
    """
    Raises:
        ValueError: it is no pattern of hosts.
    """
    found = HOSTS.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text[:100]!r} names no hosts; write example.org, *.example.org, example.org:8443 or *,"
            " in lower case, international names in their xn-- form"
        )
    port = found[2]
    return HostPattern(found[1], ANY_PORT if port == "*" else int(port or OWN_PORT))


def host_places(host: str, depth: int = 127) -> list[str]:
    """Every host that a pattern for `host` may name: itself, "*", "*.org", "*.example.org"; of at most `depth` labels
    behind the star."""
    places = [host, "*"]
    if not host.startswith("["):
        end = len(host)
        for _ in range(depth):
            end = host.rfind(".", 0, end)
            if end < 0:
                break
            places.append(f"*{host[end:]}")
    return places


def within(address: Address, patterns: Iterable[str]) -> bool:
    """Whether one of the host patterns names where the address leads. What is no pattern names nothing."""
    places = host_places(address.host)
    for each in patterns:
        try:
            pattern = host_pattern(each)
        except ValueError:
            continue
        if pattern.host in places and port_fits(pattern.port, address):
            return True
    return False


def meet(one: Sequence[str] | None, other: Sequence[str] | None) -> tuple[str, ...] | None:
    """Hosts that both lists of patterns name, `NOWHERE` if there are none; None is no narrowing.

    Where two patterns overlap and neither holds the other, what they share is left out: it may only get less.
    """
    if one is None or other is None:
        return None if one is other else tuple(one or other or ())
    shared = dict.fromkeys(each for first in one for second in other for each in _narrower(first, second))
    return tuple(shared) or (NOWHERE,)


def _narrower(first: str, second: str) -> tuple[str, ...]:
    """Whichever of two patterns lies within the other."""
    try:
        one, other = host_pattern(first), host_pattern(second)
    except ValueError:
        return ()
    if one.host in _holders(other.host) and one.port in (ANY_PORT, other.port):
        return (second,)
    if other.host in _holders(one.host) and other.port in (ANY_PORT, one.port):
        return (first,)
    return ()


def _holders(host: str) -> list[str]:
    """The hosts of patterns that name all that `host` names, itself among them."""
    if host.startswith("*."):
        return [host, *(each for each in host_places(host[2:])[1:])]
    return host_places(host)
