"""What an act that did not happen would need: in a sentence for whoever runs the lab, and as a rule to be copied.

A rule is told only where it helps: it is read and decided with before anybody sees it. What a manifest, the terms, a
grant or a form refuse, no rule allows. What is said here is the operator's to know: a run hears one answer for a name
that nobody knows and for one that leads inside (`core/egress/README.md`).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

from core.egress.addresses import METADATA, Address, is_within, meant, network, parse, special
from core.policy.acts import Act, Decision
from core.policy.policy import Policy
from core.policy.rules import parse_policy
from core.policy.targets import address_of
from protos.errors import InvalidArgument

NAME_CHARACTERS = 40
TARGET_CHARACTERS = 255  # of a target that a rule may name
LATER = (
    "To which address the name leads is judged when it is reached: one that is not public is refused, unless the rule"
    " names it in limits.addresses."
)


def reached(act: Act, decision: Decision) -> Decision:
    """`decision` with what the broker will add to it: of a host that is a number at once, of a name only that it will.

    A host with an address that may not be reached is refused after every rule, so whoever asks what would happen is
    told so, and nobody is told to approve it.
    """
    address = address_of(act.target) if act.kind == "web.fetch" else None
    if address is None or decision.verdict == "deny":
        return decision
    try:
        where = parse(address.host.strip("[]"))
    except ValueError:
        return replace(decision, next=f"{decision.next} {LATER}".strip())
    what = special(where)
    if not what or is_within(where, [network(each) for each in decision.limits.addresses]):
        return decision
    why = f"the address is {what}"
    return Decision("deny", "address", why, unreached(why, [where]))


def unreached(why: str, addresses: Sequence[Address]) -> str:
    """What a request that went nowhere would need: `why` it did, and where it would have gone."""
    if not addresses:
        return (
            "Check the name, and that this machine can resolve it; [egress.names] in madlab.toml gives a host its"
            " addresses. No rule is missing."
        )
    if METADATA.intersection(map(meant, addresses)):
        return "That is where a cloud hands out credentials. A rule that lets anybody ask there is not suggested."
    shown = ", ".join(map(str, addresses))
    return f"The policy lets it be asked, but {why} ({shown}): a rule has to name that in limits.addresses."


def addresses_in(text: str) -> list[Address]:
    """The addresses that a journal tells, as `Traffic.address` does."""
    return [ip_address(each) for each in text.split(", ") if each]


def rule_for(policy: Policy, act: Act, *, refused_by: str = "", addresses: Sequence[Address] = ()) -> str:
    """The narrowest rule with which `act` would be allowed, as TOML; empty where none would, or none is needed.

    `refused_by` is the rule that said no; `addresses` are those that it led to and that a rule has to name.
    """
    lifted = refused_by in ("default", "taint") or bool(policy.file_of(refused_by))
    if not (lifted or addresses) or METADATA.intersection(map(meant, addresses)):
        return ""
    if _is_allowed(policy, act, addresses):
        return ""
    for is_narrow in (True, False):  # a path that servers read in several ways fits no rule with paths
        text = _written(act, _name(policy, act), addresses, is_narrow=is_narrow)
        try:
            if _is_allowed(Policy([parse_policy(text, "the rule"), *policy.files]), act, addresses):
                return text
        except InvalidArgument:
            continue  # what it would have to name is nothing that a rule may
    return ""


def _is_allowed(policy: Policy, act: Act, addresses: Sequence[Address]) -> bool:
    decision = policy.decide(act)
    named = [network(each) for each in decision.limits.addresses]
    return decision.verdict == "allow" and all(is_within(each, named) for each in addresses)


def _written(act: Act, name: str, addresses: Sequence[Address], *, is_narrow: bool) -> str:
    lines = ["[[rules]]", f'name = "{name}"', f'kinds = ["{act.kind}"]', f"principals = {_list(act.principals[-1])}"]
    address = address_of(act.target) if act.kind == "web.fetch" else None
    if address is not None:
        usual = address_of(f"{address.scheme}://{address.host}")
        port = "" if usual is not None and usual.port == address.port else f":{address.port}"
        lines.append(f"hosts = {_list(address.host + port)}")
        if is_narrow and address.path.strip("/"):
            lines.append(f"paths = {_list(address.path)}")
        lines.append(f"schemes = {_list(address.scheme)}")
        lines.append(f"methods = {_list(str(act.details.get('method', 'GET')))}")
    elif not act.kind.startswith("files."):
        lines.append(f"targets = {_list(act.target[:TARGET_CHARACTERS])}")
    if act.leaves and act.taint - {"worker"}:
        lines.append(f"carries = {_list(*sorted(act.taint))}")
    lines.append('verdict = "allow"')
    if addresses:
        lines.append(f"limits = {{ addresses = {_list(*dict.fromkeys(_alone(each) for each in addresses))} }}")
    return "\n".join(lines)


def _alone(address: Address) -> str:
    """An address as a network that holds nothing else, with where a packet to it ends."""
    where = meant(address)
    return f"{where}/{where.max_prefixlen}"


def _list(*texts: str) -> str:
    return json.dumps(texts, ensure_ascii=False)


def _name(policy: Policy, act: Act) -> str:
    """A name that no rule has yet."""
    address = address_of(act.target) if act.kind == "web.fetch" else None
    what = address.host if address is not None else act.kind if act.kind.startswith("files.") else act.target
    who = act.principals[-1].rpartition(":")[2]
    name = re.sub(r"[^a-z0-9]+", "-", f"{who} {what}".lower()).strip("-")[:NAME_CHARACTERS].strip("-") or "allowed"
    number = 1
    while policy.file_of(name if number == 1 else f"{name}-{number}"):
        number += 1
    return name if number == 1 else f"{name}-{number}"
