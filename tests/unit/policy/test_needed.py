"""The rule that is told to whoever asks why an act was refused: it is read like any other, and it helps."""

from ipaddress import ip_address
from typing import Any

import pytest

from core.egress.urls import canonical
from core.policy.acts import Act
from core.policy.needed import addresses_in, reached, rule_for, unreached
from core.policy.policy import Policy
from core.policy.rules import BUILT_IN, parse_policy, read_policy

OWN = """
[[rules]]
name = "stores"
kinds = ["files.put"]
principals = ["mad:echo"]
verdict = "ask"

[[rules]]
name = "never-hangs"
kinds = ["bus.call"]
principals = ["operator"]
targets = ["echo.misbehave"]
verdict = "deny"

[[rules]]
name = "hopper-site-test"
kinds = ["web.fetch"]
principals = ["mad:hopper"]
hosts = ["docs.test"]
verdict = "allow"
"""
POLICY = Policy([parse_policy(OWN, "own.toml"), read_policy(BUILT_IN)])
RUN = ("run:r-1", "mad:hopper")


def web(url: str, *, taint: tuple[str, ...] = ("worker",), **details: Any) -> Act:
    return Act("web.fetch", RUN, url, {"method": "GET", **details}, frozenset(taint))


def with_rule(text: str) -> Policy:
    """The policy once somebody has taken the advice."""
    return Policy([parse_policy(text, "new.toml"), *POLICY.files])


@pytest.mark.parametrize(
    ("act", "refused_by", "says"),
    [
        (
            web("https://site.test/a/b?q=1"),
            "default",
            ['hosts = ["site.test"]', 'paths = ["/a/b"]', 'methods = ["GET"]'],
        ),
        (web("http://site.test:8080/"), "default", ['hosts = ["site.test:8080"]', 'schemes = ["http"]']),
        (web("https://[2001:db8::1]/x"), "default", ['hosts = ["[2001:db8::1]"]']),
        (web("https://site.test/a/../b"), "default", ['hosts = ["site.test"]']),
        (web("https://site.test/", method="POST", taint=("worker", "web")), "default", ['carries = ["web", "worker"]']),
        (
            web("https://docs.test/", method="POST", taint=("web",)),
            "taint",
            ['carries = ["web"]', 'methods = ["POST"]'],
        ),
        (Act("bus.call", ("operator",), "echo.misbehave"), "never-hangs", ['targets = ["echo.misbehave"]']),
        (Act("files.put", ("run:r-2", "mad:echo"), "kept.txt"), "stores", ['kinds = ["files.put"]']),
        (
            Act("web.fetch", ("run:r-3", "mad:marco"), "https://site.test/form", {"method": "POST"}),
            "marco-writes",
            ['principals = ["mad:marco"]'],
        ),
    ],
)
def test_the_rule_that_is_told_is_read_as_any_other_and_allows_the_act(
    act: Act, refused_by: str, says: list[str]
) -> None:
    assert POLICY.decide(act).verdict != "allow"
    text = rule_for(POLICY, act, refused_by=refused_by)
    assert [each for each in says if each not in text] == []
    assert with_rule(text).decide(act).verdict == "allow"


def test_the_rule_that_is_told_allows_nothing_else() -> None:
    act = web("https://site.test/a/b")
    opened = with_rule(rule_for(POLICY, act, refused_by="default"))
    for other in (
        web("https://site.test/a"),
        web("http://site.test/a/b"),
        web("https://site.test:8443/a/b"),
        web("https://other.test/a/b"),
        web("https://site.test/a/b", method="POST"),
        Act("web.fetch", ("run:r-9", "mad:other"), act.target, act.details),
    ):
        assert opened.decide(other).verdict == "deny", other


def test_its_name_is_one_that_no_rule_has() -> None:
    assert 'name = "hopper-site-test-2"' in rule_for(POLICY, web("https://site.test/"), refused_by="default")


@pytest.mark.parametrize(
    "refused_by", ["port", "terms", "address", "grant", "secret", "conversation", "recipient", "other", "budget", ""]
)
def test_where_no_rule_helps_none_is_told(refused_by: str) -> None:
    assert rule_for(POLICY, web("https://site.test/"), refused_by=refused_by) == ""


def test_what_is_allowed_by_now_needs_no_rule() -> None:
    assert rule_for(POLICY, web("https://docs.test/"), refused_by="default") == ""


def test_a_host_that_leads_inside_needs_every_address_it_has_named_and_one_of_a_cloud_gets_no_rule() -> None:
    act = web("http://docs.test/")
    inside = addresses_in("127.0.0.1, ::1, ::ffff:10.0.0.1")
    text = rule_for(POLICY, act, addresses=inside)
    assert with_rule(text).decide(act).limits.addresses == ("127.0.0.1/32", "::1/128", "10.0.0.1/32")
    assert rule_for(with_rule(text), act, addresses=inside) == ""
    assert rule_for(POLICY, act, addresses=[ip_address("169.254.169.254")]) == ""


def test_whoever_runs_the_lab_is_told_a_name_nobody_knows_from_one_that_leads_inside() -> None:
    unknown = unreached("nobody knows the name", [])
    assert "Check the name" in unknown
    assert "No rule is missing" in unknown
    inside = unreached("the address is loopback", addresses_in("127.0.0.1"))
    assert "the address is loopback (127.0.0.1)" in inside
    assert "limits.addresses" in inside
    assert "credentials" in unreached("the address is link-local", addresses_in("169.254.169.254"))


MARCO = ("run:r-3", "mad:marco")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1/", "loopback (127.0.0.1)"),
        ("http://2130706433/", "loopback (127.0.0.1)"),
        ("http://0x7f.1/", "loopback (127.0.0.1)"),
        ("http://[::1]/", "loopback (::1)"),
        ("http://[::ffff:10.0.0.1]/", "private"),
        ("http://169.254.169.254/latest/meta-data", "credentials"),
    ],
)
def test_a_host_that_is_a_number_nobody_may_be_sent_to_is_refused_although_a_rule_allows_it(
    url: str, says: str
) -> None:
    act = Act("web.fetch", MARCO, str(canonical(url)), {"method": "GET"})
    allowed = POLICY.decide(act)
    assert (allowed.verdict, allowed.rule) == ("allow", "marco-reads")
    decision = reached(act, allowed)
    assert (decision.verdict, decision.rule) == ("deny", "address")
    assert says in f"{decision.reason}. {decision.next}"


def test_of_a_number_that_is_public_or_named_by_the_rule_nothing_is_added_and_of_a_name_that_it_is_judged_later() -> (
    None
):
    public = Act("web.fetch", MARCO, "https://8.8.8.8/", {"method": "GET"})
    assert reached(public, POLICY.decide(public)) == POLICY.decide(public)
    inside = web("http://127.0.0.1/")
    named = with_rule(rule_for(POLICY, inside, refused_by="default", addresses=addresses_in("127.0.0.1")))
    assert reached(inside, named.decide(inside)).verdict == "allow"
    name = Act("web.fetch", MARCO, "https://localhost/", {"method": "GET"})
    decision = reached(name, POLICY.decide(name))
    assert (decision.verdict, decision.rule) == ("allow", "marco-reads")
    assert "limits.addresses" in decision.next
    denied = web("http://127.0.0.1/")
    assert reached(denied, POLICY.decide(denied)).rule == "default"
