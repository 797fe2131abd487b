"""One address has one form, and that form is what is sent."""

import random

import pytest

from core.egress.urls import canonical
from core.policy.targets import address_of
from protos.errors import InvalidArgument


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("HTTP://Example.ORG", "http://example.org/"),
        ("http://example.org:80", "http://example.org/"),
        ("https://example.org:443/", "https://example.org/"),
        ("https://example.org:80/", "https://example.org:80/"),
        ("http://example.org:/x", "http://example.org/x"),
        ("http://example.org./x", "http://example.org/x"),
        ("http://example.org#top", "http://example.org/"),
        ("http://example.org?q#x@y", "http://example.org/?q"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://BÜCHER.example/", "http://xn--bcher-kva.example/"),
        ("http://faß.de/", "http://xn--fa-hia.de/"),
        ("http://a_b.example/", "http://a_b.example/"),
        ("http://r3---sn-x.example/", "http://r3---sn-x.example/"),
        ("http://[2001:DB8:0:0::1]:8080/", "http://[2001:db8::1]:8080/"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("http://0300.0250.0.1/", "http://192.168.0.1/"),
        ("http://1.2.3/", "http://1.2.0.3/"),
        ("http://h/a/./b/../c", "http://h/a/c"),
        ("http://h/a/..", "http://h/"),
        ("http://h/a/.", "http://h/a/"),
        ("http://h/../../a", "http://h/a"),
        ("http://h/%2e%2E/a", "http://h/a"),
        ("http://h/%7euser/%c3%a4", "http://h/~user/%C3%A4"),
        ("http://h/ä?ö=ü", "http://h/%C3%A4?%C3%B6=%C3%BC"),
        ("http://h/100%", "http://h/100%25"),
        ("http://h/%zz", "http://h/%25zz"),
        ("http://h/a%2Fb", "http://h/a%2Fb"),
        ("http://h/a//b", "http://h/a//b"),
        ('http://h/"<>`{|}^', "http://h/%22%3C%3E%60%7B%7C%7D%5E"),
        ("http://h/?a[b]=c|d", "http://h/?a[b]=c%7Cd"),
        ("http://h/...", "http://h/..."),
        ("http://h/..a/a..", "http://h/..a/a.."),
    ],
)
def test_what_has_one_meaning_gets_one_form(written: str, form: str) -> None:
    assert str(canonical(written)) == form


def test_the_one_form_is_its_own_form_and_the_policy_reads_it_alike() -> None:
    chance = random.Random(20_260)
    pieces = [
        *"aB.%/?#@:;=&~\\ \t\n[]{}|^\"'<>()*+,-_$!",
        "%2e",
        "%2F",
        "..",
        "ä",
        "%C3",
        "0x7f",
        "127",
        "\u3002",
        "例",
    ]
    found = 0
    for _ in range(20_000):
        text = chance.choice(("http://", "http://h/")) + "".join(chance.choices(pieces, k=chance.randrange(1, 14)))
        try:
            url = canonical(text)
        except InvalidArgument:
            continue
        found += 1
        form = str(url)
        assert canonical(form) == url
        address = address_of(form)
        assert address is not None, form
        assert (address.scheme, address.host.strip("[]"), address.port, address.path) == (
            url.scheme, url.host, url.port, url.path,
        )  # fmt: skip
        assert "/../" not in f"{url.path}/"
    assert found > 500
