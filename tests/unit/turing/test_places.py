"""Where a secret may be used: one reading of every address, and no where two are possible."""

import pytest

from core.turing.places import address_of, place_of
from protos.errors import InvalidArgument


def holds(place: str, url: str) -> bool:
    """Whether a grant for `place` is for a request to `url`; an address that cannot be read is for nothing."""
    try:
        address = address_of(url)
    except InvalidArgument:
        return False
    return place_of(place).holds(address)


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("api.example.org", "https://api.example.org"),
        ("api.example.org", "https://api.example.org/anything/at?all=1#here"),
        ("api.example.org", "HTTPS://API.Example.ORG:443/x"),
        ("api.example.org/", "https://api.example.org/x"),
        ("api.example.org:8443", "https://api.example.org:8443/x"),
        ("api.example.org/repos", "https://api.example.org/repos"),
        ("api.example.org/repos", "https://api.example.org/repos/"),
        ("api.example.org/repos/", "https://api.example.org/repos"),
        ("api.example.org/repos", "https://api.example.org/repos/a/b?c=/../"),
        ("api.example.org/repos", "https://api.example.org/r%65pos/a"),
        ("api.example.org/r%65pos", "https://api.example.org/repos"),
        ("api.example.org/a%20b", "https://api.example.org/a%20b/c"),
        ("bücher.example", "https://xn--bcher-kva.example/"),
        ("xn--bcher-kva.example", "https://BÜCHER.example/"),
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1/models"),
        ("http://[::1]:8080", "http://[0:0:0:0:0:0:0:1]:8080/"),
        ("192.0.2.7", "https://192.0.2.7/"),
    ],
)
def test_it_holds_there(place: str, url: str) -> None:
    assert holds(place, url)


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("api.example.org", "http://api.example.org/"),  # in clear
        ("api.example.org", "https://api.example.org:8443/"),
        ("api.example.org", "https://example.org/"),
        ("api.example.org", "https://evil.api.example.org/"),
        ("api.example.org", "https://api.example.org.evil.net/"),
        ("api.example.org", "https://api-example.org/"),
        ("api.example.org", "https://api.example.org@evil.net/"),
        ("api.example.org", "https://evil.net@api.example.org/"),
        ("api.example.org", "https://api.example.org:443@evil.net/"),
        ("api.example.org", "https://evil.net\\@api.example.org/"),
        ("api.example.org", "https://evil.net/@api.example.org/"),
        ("api.example.org", "https://evil.net?@api.example.org/"),
        ("api.example.org", "https://evil.net#@api.example.org/"),
        ("api.example.org", "https://api.example.org\t.evil.net/"),
        ("api.example.org", "https://api.example.org%2eevil.net/"),
        ("api.example.org", "https:api.example.org/"),
        ("api.example.org", "https:///api.example.org/"),
        ("api.example.org", "//api.example.org/"),
        ("api.example.org", "ftp://api.example.org/"),
        ("api.example.org", "https://api。example.org.evil.net/"),
        ("api.example.org", "https://аpi.example.org/"),  # noqa: RUF001  a Cyrillic letter is another host
        ("strasse.example", "https://straße.example/"),
        ("192.0.2.7", "https://3221225991/"),
        ("192.0.2.7", "https://0xc0000207/"),
        ("192.0.2.7", "https://0300.0.2.7/"),
        ("127.0.0.1", "https://127.1/"),
        ("127.0.0.1", "https://[::ffff:127.0.0.1]/"),
        ("api.example.org/repos", "https://api.example.org/"),
        ("api.example.org/repos", "https://api.example.org/repository"),
        ("api.example.org/repos", "https://api.example.org/Repos"),
        ("api.example.org/repos", "https://api.example.org//repos"),
        ("api.example.org/repos/a", "https://api.example.org/repos//a"),
        ("api.example.org/repos", "https://api.example.org/repos/../admin"),
        ("api.example.org/repos", "https://api.example.org/repos/%2e%2e/admin"),
        ("api.example.org/repos", "https://api.example.org/repos/.%2E/admin"),
        ("api.example.org/repos", "https://api.example.org/repos/..;/admin"),
        ("api.example.org/repos", "https://api.example.org/repos/%2e%2e;x=1/admin"),
        ("api.example.org/repos", "https://api.example.org/repos/..%3b/admin"),
        ("api.example.org/repos", "https://api.example.org/repos/..%2fadmin"),
        ("api.example.org/repos", "https://api.example.org/repos/..%5cadmin"),
        ("api.example.org/repos", "https://api.example.org/repos/..\\admin"),
        ("api.example.org/repos", "https://api.example.org/repos/%252e%252e/admin"),
        ("api.example.org/repos", "https://api.example.org/repos%2fadmin"),
        ("api.example.org/repos", "https://api.example.org/x/../repos"),
        ("api.example.org/repos", "https://api.example.org/./repos"),
        ("api.example.org/repos", "https://api.example.org/repos%00/x"),
        ("api.example.org/repos", "https://api.example.org/repos/%zz"),
        ("api.example.org/repos", "https://api.example.org/repos;x=1/y"),
        ("api.example.org/repos", "https://api.example.org?/repos"),
        ("api.example.org/a%20b", "https://api.example.org/a+b"),
        ("http://localhost:80", "https://localhost:80/"),
    ],
)
def test_it_does_not_hold_there(place: str, url: str) -> None:
    assert not holds(place, url)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "https://",
        "user@api.example.org",
        "api.example.org?x=1",
        "api.example.org#x",
        "api.example.org:0",
        "api.example.org:65536",
        "api.example.org:x",
        "api.example.org/../x",
        "api.example.org/a//b",
        "api.example.org/a%2fb",
        "*.example.org",
        "api..example.org",
        ".example.org",
        "api.example.org.",
        "-x-.example.org ",
        "1.2.3",
        "0x7f.0.0.1",
        "[::1",
        "[fe80::1%25eth0]",
        "ftp://example.org",
        "exa mple.org",
        "ex\u200bample.org",
    ],
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        place_of(text)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("API.Example.org:443/Repos/", "https://api.example.org/Repos"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("https://[2001:DB8:0::1]/x", "https://[2001:db8::1]/x"),
        ("bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_a_place_has_one_form_which_is_read_as_itself(text: str, form: str) -> None:
    assert str(place_of(text)) == form
    assert place_of(form) == place_of(text)
