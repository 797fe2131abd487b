"""One function decides: the first rule that matches, then taint; what no rule allows is denied."""

import random
from collections.abc import Mapping

import pytest

from core.policy.acts import Act
from core.policy.policy import Policy, load_policy
from core.policy.rules import BUILT_IN, parse_policy, read_policy
from core.policy.targets import NOWHERE, address_of, meet, named, within
from protos.errors import InvalidArgument

MARCO = ("run:marco-1", "mad:marco")
WEB = frozenset({"web"})


def fetch(
    url: str, method: str = "GET", *, by: tuple[str, ...] = MARCO, taint: frozenset[str] = frozenset(), **details: int
) -> Act:
    given: Mapping[str, str | int] = {"method": method, **details}
    return Act("web.fetch", by, url, given, taint)


def of(*rules: str, taint: str = "") -> Policy:
    """A policy of rules that say only what matters; they are called r0, r1, ..."""
    text = "".join(f'[[rules]]\nname = "r{number}"\n{rule}\n' for number, rule in enumerate(rules))
    return Policy([parse_policy(f"{text}\n[taint]\n{taint}", "policy.toml"), read_policy(BUILT_IN)])


def rule(hosts: str = "'*'", verdict: str = "allow", more: str = "", who: str = "mad:marco") -> str:
    return f"kinds = ['web.fetch']\nprincipals = ['{who}']\nhosts = [{hosts}]\nverdict = '{verdict}'\n{more}"


def decided(policy: Policy, act: Act) -> str:
    decision = policy.decide(act)
    return f"{decision.verdict} {decision.rule}"


def test_what_holds_where_the_operator_says_nothing() -> None:
    policy = load_policy([])
    assert decided(policy, fetch("https://example.org/a?b=c")) == "allow marco-reads"
    assert decided(policy, fetch("https://example.org/", "POST")) == "ask marco-writes"
    assert decided(policy, fetch("https://example.org:8443/")) == "deny default"
    assert decided(policy, fetch("https://example.org/", by=("run:x", "mad:hopper"))) == "deny default"
    assert decided(policy, fetch("https://example.org/", by=("operator",))) == "deny default"
    for kind, target in (("llm.complete", "small"), ("files.put", "a"), ("bus.call", "hopper.work")):
        assert policy.decide(Act(kind, ("run:x", "mad:any"), target)).verdict == "allow"  # type: ignore[arg-type]


def test_the_first_rule_that_matches_decides_and_the_operators_come_before_the_built_in() -> None:
    policy = of(rule("'a.test'", "deny"), rule("'*.test'"), rule("'b.test'", "deny"))
    assert decided(policy, fetch("https://a.test/")) == "deny r0"
    assert decided(policy, fetch("https://b.test/", "POST")) == "allow r1"
    assert decided(policy, fetch("https://c.org/", "POST")) == "ask marco-writes"


@pytest.mark.parametrize(
    ("hosts", "url", "fits"),
    [
        ("'example.org'", "https://example.org/", True),
        ("'example.org'", "http://example.org/", True),
        ("'example.org'", "https://example.org:443/", True),
        ("'example.org'", "https://example.org:80/", False),
        ("'example.org'", "https://www.example.org/", False),
        ("'*.example.org'", "https://a.b.example.org/", True),
        ("'*.example.org'", "https://example.org/", False),
        ("'*.example.org'", "https://badexample.org/", False),
        ("'example.org:8443'", "https://example.org:8443/", True),
        ("'example.org:8443'", "https://example.org/", False),
        ("'*:*'", "http://example.org:22/", True),
        ("'*'", "http://example.org:22/", False),
        ("'[::1]:8080'", "http://[::1]:8080/", True),
    ],
)
def test_which_hosts_a_rule_is_about(hosts: str, url: str, fits: bool) -> None:
    policy = of(rule(hosts, who="mad:other"))
    assert (policy.decide(fetch(url, by=("mad:other",))).verdict == "allow") is fits


@pytest.mark.parametrize(
    "url",
    [
        "https://user@example.org/",
        "https://example.org\\@evil.test/",
        "https://EXAMPLE.org/",
        "https://example.org./",
        "https://ex\u00e4mple.org/",
        "https://example.org/a b",
        "https://example.org/\n",
        "https://example.org:0/",
        "https://example.org:99999/",
        "ftp://example.org/",
        "//example.org/",
        "https:/example.org/",
        "https://example.org/#part",
    ],
)
def test_an_address_that_is_not_in_the_one_form_is_denied_before_any_rule(url: str) -> None:
    assert decided(of(rule("'*:*'")), fetch(url)) == "deny address"


def test_a_path_is_what_it_begins_with_in_whole_segments() -> None:
    policy = of(rule("'a.test'", "allow", "paths = ['/docs/', '/x/y']", who="mad:other"))
    for path, fits in (
        ("/docs", True),
        ("/docs/", True),
        ("/docs/a/b?c=/d", True),
        ("/docs?x", True),
        ("/docsx", False),
        ("/x", False),
        ("/x/y/z", True),
        ("/", False),
        ("", False),
    ):
        assert (policy.decide(fetch(f"https://a.test{path}", by=("mad:other",))).verdict == "allow") is fits, path


@pytest.mark.parametrize(
    "path",
    [
        *("/docs/../admin", "/docs/%2e%2e/admin", "/docs%2fadmin", "/docs//admin", "/docs/.;/a"),
        *("/docs/;/admin", "/docs/admin;x", "/docs%3bx/a", "/docs%3Bx", "/docs%3f", "/docs%23", "/docs/%252fadmin"),
        *("/docs%20/a", "/docs/%20a", "/docs./a", "/docs/a.", "/docs/%00", "/docs%09", "/docs/%c0%afadmin"),
    ],
)
def test_a_path_that_servers_read_in_several_ways_is_allowed_by_no_prefix_and_forbidden_by_every(path: str) -> None:
    policy = of(rule("'a.test'", "allow", "paths = ['/docs']", who="mad:other"))
    assert decided(policy, fetch(f"https://a.test{path}", by=("mad:other",))) == "deny default"
    policy = of(rule("'a.test'", "deny", "paths = ['/admin']"), rule("'a.test'"))
    assert decided(policy, fetch(f"https://a.test{path}")) == "deny r0"
    assert decided(policy, fetch("https://a.test/docs")) == "allow r1"


@pytest.mark.parametrize("path", ["/docs/a.b", "/docs/.x/y", "/docs/a%20b", "/docs/%C3%A4", "/docs/a?b;c=%25."])
def test_a_path_that_all_servers_read_alike_is_what_it_seems(path: str) -> None:
    policy = of(rule("'a.test'", "allow", "paths = ['/docs']", who="mad:other"))
    assert decided(policy, fetch(f"https://a.test{path}", by=("mad:other",))) == "allow r0"


def test_schemes_methods_and_what_has_flowed_in_are_asked_about_where_a_rule_names_them() -> None:
    policy = of(
        rule("'a.test'", "allow", "schemes = ['https']\nmethods = ['GET']\ntaint = ['web']"), rule("'a.test'", "deny")
    )
    assert decided(policy, fetch("https://a.test/", taint=WEB)) == "allow r0"
    assert decided(policy, fetch("https://a.test/")) == "deny r1"
    assert decided(policy, fetch("http://a.test/", taint=WEB)) == "deny r1"
    assert decided(policy, fetch("https://a.test/", "HEAD", taint=WEB)) == "deny r1"


@pytest.mark.parametrize("who", ["run:marco-1", "run:*", "mad:marco", "mad:*", "*"])
def test_a_principal_is_named_alone_by_its_family_or_by_a_star(who: str) -> None:
    assert decided(of(rule("'a.test:1'", who=who)), fetch("https://a.test:1/")) == "allow r0"
    assert decided(of(rule("'a.test:1'", who=who)), fetch("https://a.test:1/", by=("client:x",))) == (
        "allow r0" if who == "*" else "deny default"
    )


def test_calls_are_named_by_mad_and_tool_and_by_their_effects() -> None:
    text = "kinds = ['bus.call']\nprincipals = ['*']\nverdict = '{}'\n{}"
    policy = of(
        text.format("deny", "targets = ['hopper.work']"),
        text.format("ask", "targets = ['marco.*']\neffects = ['outward']"),
    )
    assert decided(policy, Act("bus.call", MARCO, "hopper.work")) == "deny r0"
    assert decided(policy, Act("bus.call", MARCO, "hopper.test")) == "allow calls"
    assert decided(policy, Act("bus.call", MARCO, "marco.click", {"effects": "outward"})) == "ask r1"
    assert decided(policy, Act("bus.call", MARCO, "marco.read", {"effects": "read"})) == "allow calls"


def test_what_leaves_the_lab_with_words_of_the_web_needs_a_person_unless_its_rule_carries_them() -> None:
    policy = of(rule("'a.test'"), rule("'b.test'", "allow", "carries = ['web']"))
    assert decided(policy, fetch("https://a.test/", "POST")) == "allow r0"
    assert decided(policy, fetch("https://a.test/", "POST", taint=WEB)) == "ask taint"
    assert decided(policy, fetch("https://a.test/", "GET", taint=WEB, bytes=1)) == "ask taint"
    assert decided(policy, fetch("https://a.test/", taint=WEB)) == "allow r0"
    assert decided(policy, fetch("https://a.test/", "POST", taint=frozenset({"worker"}))) == "allow r0"
    assert decided(policy, fetch("https://b.test/", "POST", taint=WEB)) == "allow r1"
    assert decided(policy, fetch("https://b.test/", "POST", taint=WEB | {"file"})) == "ask taint"
    assert decided(of(rule(), taint="web = 'deny'"), fetch("https://a.test/", "PUT", taint=WEB)) == "deny taint"
    assert decided(of(rule()), fetch("https://a.test/", "PUT", taint=frozenset({"new"}))) == "ask taint"


def test_a_secret_goes_with_a_request_that_reads_and_needs_a_person_where_it_writes_words_of_the_web() -> None:
    policy = load_policy([])
    assert decided(policy, Act("secret.use", MARCO, "key", {"method": "GET"}, WEB)) == "allow granted-secrets"
    assert decided(policy, Act("secret.use", MARCO, "key", {"method": "POST"}, WEB)) == "ask taint"
    assert decided(policy, Act("secret.use", MARCO, "key", {}, WEB)) == "ask taint"


def test_marco_carries_no_file_and_nothing_that_a_secret_opened_away_in_an_address() -> None:
    policy = load_policy([])
    assert decided(policy, fetch("https://example.org/?all=that", taint=WEB | {"file"})) == "ask marco-with-files"
    assert decided(policy, fetch("https://example.org/?all=that", taint=WEB | {"private"})) == "deny marco-with-secrets"


def test_taint_never_softens_what_a_rule_says() -> None:
    policy = of(rule("'a.test'", "ask"), rule("'*'", "deny"), taint="web = 'allow'")
    assert decided(policy, fetch("https://a.test/", "POST", taint=WEB)) == "ask r0"
    assert decided(policy, fetch("https://b.test/", "POST", taint=WEB)) == "deny r1"


def test_limits_come_with_the_decision() -> None:
    limits = "limits = { bytes_up = 5, addresses = ['127.0.0.1/32'], packages = true }"
    found = of(rule("'a.test'", "allow", limits)).decide(fetch("https://a.test/")).limits
    assert (found.bytes_up, found.addresses, found.packages, found.seconds) == (5, ("127.0.0.1/32",), True, 300)


def test_two_rules_of_one_name_are_refused_and_so_is_a_name_of_ours() -> None:
    with pytest.raises(InvalidArgument, match=r"rule marco-reads: name: policy\.toml has a rule of that name"):
        Policy([parse_policy(f"[[rules]]\nname='marco-reads'\n{rule()}", "policy.toml"), read_policy(BUILT_IN)])
    with pytest.raises(InvalidArgument, match="rule taint: name: madlab itself has"):
        Policy([parse_policy(f"[[rules]]\nname='taint'\n{rule()}", "policy.toml")])


def test_looking_up_finds_what_reading_downwards_would() -> None:
    """A thousand random policies and acts, against the definition written out."""
    chance = random.Random(4)
    hosts = ["a.test", "b.a.test", "*.a.test", "*.test", "*", "a.test:81", "*:*"]
    for _ in range(150):
        rules = []
        for _ in range(chance.randint(1, 8)):
            more = chance.choice(["", "paths = ['/x']", "paths = ['/x/y', '/z']", "methods = ['GET']"])
            verdict = chance.choice(["allow", "deny", "ask"])
            who = chance.choice(["mad:marco", "run:*", "mad:other", "*"])
            rules.append(rule(", ".join(f"'{each}'" for each in chance.sample(hosts, 2)), verdict, more, who))
        policy = of(*rules)
        for _ in range(10):
            host = chance.choice(["a.test", "b.a.test", "c.b.a.test", "d.test:81"])
            url = f"http://{host}{chance.choice(['', '/x', '/x/y'])}"
            act = fetch(url, chance.choice(["GET", "POST"]), by=chance.choice([MARCO, ("mad:other",)]))
            assert policy.decide(act).rule == downwards(policy, act), (rules, act)


def downwards(policy: Policy, act: Act) -> str:
    """The name of the first rule that matches, by reading all of them."""
    address = address_of(act.target)
    assert address is not None
    names = {"*", *act.principals, *(f"{each.partition(':')[0]}:*" for each in act.principals)}
    for each in policy.rules:
        paths = not each.paths or any(f"{address.path}/".startswith(f"{path}/") for path in each.paths)
        methods = not each.methods or act.details["method"] in each.methods
        of_it = "web.fetch" in each.kinds and names & {*each.principals} and within(address, each.hosts)
        if of_it and paths and methods and not each.taint:  # the acts here have none
            return each.name
    return "default"


PATTERNS = [
    "*",
    "*:*",
    "a.test",
    "*.test",
    "*.a.test",
    "b.a.test",
    "a.test:81",
    "*.test:*",
    "*.a.test:81",
    "c.org",
    NOWHERE,
]


def test_what_two_lists_of_hosts_share_is_within_both_and_delegation_only_shrinks() -> None:
    chance = random.Random(5)
    urls = [
        f"{scheme}://{host}{port}/"
        for scheme in ("http", "https")
        for host in ("a.test", "b.a.test", "x.test", "c.org", "d.b.a.test")
        for port in ("", ":81", ":443", ":80")
    ]
    addresses = [address for each in urls if (address := address_of(each)) is not None]
    for _ in range(500):
        chain = [chance.sample(PATTERNS, chance.randint(1, 4)) for _ in range(3)]
        held: tuple[str, ...] | None = None
        for wished in chain:
            now = meet(wished, held)
            assert now is not None
            for each in addresses:
                if within(each, now):
                    assert within(each, wished)
                    assert held is None or within(each, held)
            held = now
    assert meet(None, None) is None
    assert meet(None, ["a.test"]) == ("a.test",)
    assert meet(["a.test"], ["b.test"]) == (NOWHERE,)
    assert meet(["*.test", "c.org"], ["a.test", "*"]) == ("a.test", "*.test", "c.org")


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("pip.example.org", "pip.example.org"),
        ("words-that-leave.files.example.org", "*.files.example.org"),
        ("words-that-leave.test", ""),
        ("files.example.org", ""),
    ],
)
def test_of_a_host_is_told_what_a_rule_names(host: str, known: str) -> None:
    assert named(host, ("*", "pip.example.org:8443", "*.files.example.org")) == known
