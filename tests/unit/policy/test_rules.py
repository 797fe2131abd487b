"""Policy files: what they may say, and how a mistake is told."""

import pytest

from core.policy.rules import BUILT_IN, parse_policy, read_policy
from protos.errors import InvalidArgument

RULE = """
[[rules]]
name = "reads"
kinds = ["web.fetch"]
principals = ["mad:marco"]
hosts = ["*"]
verdict = "allow"
"""


def wrong(text: str) -> str:
    """What is said about a file that is wrong."""
    with pytest.raises(InvalidArgument) as raised:
        parse_policy(text, "policy.toml")
    return raised.value.message


def test_the_built_in_file_is_a_policy() -> None:
    assert [each.name for each in read_policy(BUILT_IN).table.rules][-1] == "granted-secrets"


def test_a_rule_says_what_it_says() -> None:
    (rule,) = parse_policy(RULE, "policy.toml").table.rules
    assert (rule.name, rule.kinds, rule.hosts, rule.verdict) == ("reads", ("web.fetch",), ("*",), "allow")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("host = ['x']", "rule reads: host is no field here (allowed: carries, effects, hosts, "),
        ("paths = ['docs']", "rule reads: paths.0: string should match pattern"),
        ("methods = ['get']", "rule reads: methods.0: "),
        ("effects = ['outward']", "rule reads: effects: it means nothing for web.fetch"),
        ("targets = ['x']", "rule reads: targets: for web.fetch say hosts"),
        ("limits = { bytes = 3 }", "rule reads: limits.bytes is no field here (allowed: addresses, bytes_down"),
        ("limits = { addresses = ['10.0.0.1/8'] }", "rule reads: limits.addresses.0: 10.0.0.1/8 has host bits set"),
        (
            "taint = ['network']",
            "rule reads: taint.0: input should be 'worker', 'file', 'web' or 'private', not",
        ),
    ],
)
def test_a_mistake_names_file_rule_and_field(line: str, said: str) -> None:
    assert wrong(RULE + line).startswith(f"policy.toml: {said}")


@pytest.mark.parametrize("host", ["Example.org", "exa mple.org", "https://example.org", "a.*.org", "ex\u00e4mple.org"])
def test_a_host_that_names_none_is_told(host: str) -> None:
    assert f"hosts.0: {host!r} names no hosts" in wrong(RULE.replace('"*"', f'"{host}"'))


def test_a_rule_without_a_name_is_told_by_its_number() -> None:
    assert wrong(RULE.replace('name = "reads"\n', "")) == "policy.toml: rule number 1: name is missing"


def test_a_rule_of_the_web_must_say_which_hosts() -> None:
    assert "rule reads: hosts: for web.fetch say which" in wrong(RULE.replace('hosts = ["*"]\n', ""))


def test_limits_of_what_is_denied_mean_nothing() -> None:
    assert "limits: it means nothing where the verdict is deny" in wrong(
        RULE.replace('"allow"', '"deny"') + "limits = { bytes_up = 0 }"
    )


def test_what_is_no_toml_and_what_cannot_be_read_is_told() -> None:
    assert wrong("rules = [").startswith("policy.toml: ")
    assert wrong("[taint]\nsea = 'deny'").startswith(
        "policy.toml: taint.sea is no field here (allowed: file, private, web, "
    )
    with pytest.raises(InvalidArgument, match=r"nowhere\.toml: No such file"):
        read_policy(BUILT_IN.with_name("nowhere.toml"))
