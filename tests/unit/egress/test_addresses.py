"""What is of the internet may be reached; what is not must be named; what hands out credentials, exactly."""

from ipaddress import ip_address, ip_network

import pytest

from core.egress.addresses import METADATA, is_within, special


@pytest.mark.parametrize(
    "address",
    [
        *(
            "1.1.1.1",
            "8.8.8.8",
            "93.184.215.14",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "192.167.0.1",
        ),
        *("2606:4700::1111", "2a00:1450:4001::1", "64:ff9b::808:808", "::ffff:8.8.8.8"),
    ],
)
def test_the_internet_is_reached(address: str) -> None:
    assert special(ip_address(address)) == ""


def test_python_knows_no_special_address_that_is_not_known_here() -> None:
    for network in ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
                    "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
                    "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "::/8", "100::/64", "2001:db8::/32", "fc00::/7",
                    "fe80::/10", "ff00::/8", "4000::/3", "2002::/16", "2001::/32"):  # fmt: skip
        whole = ip_network(network)
        for each in (whole[0], whole[whole.num_addresses // 2], whole[-1]):
            assert special(each), each


def test_a_range_lets_in_what_it_names_in_every_spelling() -> None:
    ranges = [ip_network("10.1.0.0/16"), ip_network("fd00:1::/32")]
    for inside in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd00:1::5"):
        assert is_within(ip_address(inside), ranges)
    for outside in ("10.2.0.1", "fd00:2::1", "127.0.0.1", "::ffff:10.2.0.1"):
        assert not is_within(ip_address(outside), ranges)


def test_metadata_is_never_let_in_by_a_range() -> None:
    everything = [ip_network("0.0.0.0/0"), ip_network("::/0")]
    for each in METADATA:
        assert special(each)
        assert not is_within(each, everything)
        assert is_within(each, [ip_network(str(each))])
