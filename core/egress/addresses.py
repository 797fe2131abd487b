"""What an IP address means: one of the public internet, or one that nobody may be sent to unless a rule names it.

An address can be written inside another (IPv4 in IPv6, behind a NAT64); what counts is where a packet would end.
Source of the ranges: the IANA special-purpose registries for IPv4 and IPv6 (RFC 6890 and its updates), and the
addresses under which clouds hand out the credentials of a machine.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

METADATA = frozenset(
    ip_address(each)
    for each in (
        "169.254.169.254",  # AWS, Azure, Google, OpenStack and others
        "169.254.170.2",  # AWS, tasks of ECS
        "169.254.170.23",  # AWS, pods of EKS
        "169.254.0.23",  # Tencent
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's WireServer, which looks like any public address
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS, pods of EKS
        "fd20:ce::254",  # Google
    )
)

SPECIAL_V4: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a carrier's NAT"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "for documentation"),
        ("192.31.196.0/24", "reserved for AS112"),
        ("192.52.193.0/24", "reserved for AMT"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "reserved for AS112"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved or broadcast"),
    )
)
SPECIAL_V6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), what)
    for network, what in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "an IPv4 address in an obsolete form"),
        ("64:ff9b:1::/48", "behind a NAT64 of its own"),
        ("100::/64", "discarded"),
        ("2001::/32", "a Teredo tunnel"),
        ("2001::/23", "reserved for protocols"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "a 6to4 tunnel"),
        ("3fff::/20", "for documentation"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
GLOBAL_V6 = IPv6Network("2000::/3")  # all that is given out for the internet; whatever lies outside is special
NAT64 = IPv6Network("64:ff9b::/96")  # the well-known prefix: the IPv4 address is in its last four bytes


def parse(text: str) -> Address:
    """The address that `text` is, as a resolver writes it: no zone, no short forms of IPv4.

    Raises:
        ValueError: it is none.
    """
    return ip_address(text)


def meant(address: Address) -> Address:
    """Where a packet to `address` ends: the IPv4 address inside a mapped or translated one, else itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def special(address: Address) -> str:
    """Why nobody is sent to `address` without a rule that names it; empty where it is of the public internet."""
    where = meant(address)
    if where in METADATA:
        return "where a cloud hands out credentials"
    if isinstance(where, IPv4Address):
        return next((what for network, what in SPECIAL_V4 if where in network), "")
    found = next((what for network, what in SPECIAL_V6 if where in network), "")
    return found or ("" if where in GLOBAL_V6 else "not of the public internet")


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether one of `networks` names the address. A metadata address is named by itself only, never by a range."""
    where = meant(address)
    return any(
        network.version == where.version
        and where in network
        and (where not in METADATA or network.prefixlen == network.max_prefixlen)
        for network in networks
    )


def network(text: str) -> Network:
    """
    Raises:
        ValueError: `text` is neither an address nor a range such as 10.1.0.0/16.
    """
    return ip_network(text)
