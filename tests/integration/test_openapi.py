"""The door does what its OpenAPI document says: a fuzzer asks a real lab over TCP, as the operator's page does.

Each operation gets requests that fit the document and requests that do not. No answer is a 5xx, none has a status, a
media type or a shape that the document does not name; what fits is not refused for its form (400), and what does not
fit is refused.
The seed is fixed. A few requests for each operation in an ordinary run; many with MADLAB_FULL=1.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok

from core.grace.cli.client import Client
from core.grace.door.api import endpoints
from core.grace.door.openapi import document, operation_id
from tests.commands import ECHO, Madlab, a_lab
from tests.sizes import full

EXAMPLES = 25 if full() else 3
SEED = 20261122
LEFT_OUT = {
    "post_shutdown": "it ends the lab, as it should",
    "delete_sessions_current": "it ends the session that asks",
    "get_events": "a stream that has no end",
}
BEYOND_WORDS = {  # what fits the document may be refused for what no JSON Schema can say
    "get_search": "a quotation mark that is never closed, a field that is none of ours, a day such as 30 February",
    "post_journal_verify": "a line is signed",
    "post_policy_backtest": "the text is a policy, in TOML",
    "post_secrets_by_name_rotate": "blanks at the ends of a value do not count, and no plain word is one",
    "put_secrets_by_name": "likewise",
    "post_secrets_by_name_grants": "a place has an address of the web in one of many forms; `use` is a line of ours",
}
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
    "negative_data_rejection",
    "positive_data_acceptance",
)

load_all_checks()
DOCUMENT = document(endpoints())
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT | {"security": []})  # it is always the operator who asks
OPERATIONS: dict[str, Any] = {}
for _found in SCHEMA.get_all_operations():
    assert isinstance(_found, Ok)
    OPERATIONS[_found.ok().definition.raw["operationId"]] = _found.ok()
CHECKS_HERE = {each: CHECKS.get_one(each) for each in CHECKED}


@dataclass(frozen=True)
class Door:
    """A lab's address on loopback, and a session's token for it."""

    address: str
    token: str


@pytest.fixture(scope="module")
def madlab() -> Iterator[Madlab]:
    with a_lab(ECHO) as lab:
        yield lab


@pytest.fixture(scope="module")
def door(madlab: Madlab) -> Door:
    client = Client(madlab.home)
    ticket = client.post("/api/v1/tickets", {})
    session = client.post("/api/v1/sessions", {"ticket": ticket["ticket"]})
    client.publish({"recipient": "echo", "kind": "prose", "text": "hello"})
    return Door(ticket["url"].partition("/#")[0], session["token"])


def test_the_document_that_is_served_is_the_one_of_the_table(madlab: Madlab) -> None:
    assert Client(madlab.home).get("/api/v1/openapi.json") == json.loads(json.dumps(DOCUMENT))


def test_every_endpoint_is_in_the_document_once_with_a_sentence() -> None:
    shown = [each for each in endpoints() if each.shown and each.base]
    assert len(OPERATIONS) == len(shown) == len({operation_id(each) for each in shown})
    for each in shown:
        assert each.summary.endswith("."), each.path


def test_a_body_may_be_left_out_where_the_document_says_so(door: Door) -> None:
    """Of what there is not, too: whether there is a body is seen first."""
    asked = set()
    with httpx2.Client(headers={"Authorization": f"Bearer {door.token}"}, timeout=30) as client:
        for name, operation in OPERATIONS.items():
            body = operation.definition.raw.get("requestBody")
            if body is None or name in LEFT_OUT:
                continue
            path = re.sub(r"\{\w+\}", "x", operation.path)
            status = client.request(operation.method, f"{door.address}/api/v1{path}").status_code
            if status != 403:  # over the lab's own socket only
                assert (status == 400) is body["required"], (name, status)
                asked.add(body["required"])
    assert asked == {True, False}


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - set(LEFT_OUT)))
def test_the_door_does_what_its_document_says(door: Door, name: str) -> None:
    operation = OPERATIONS[name]
    checks = [each for each in CHECKED if each != "positive_data_acceptance" or name not in BEYOND_WORDS]
    cases = st.one_of(
        operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
        operation.as_strategy(generation_mode=GenerationMode.NEGATIVE) if _can_be_wrong(operation) else st.nothing(),
    )

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def ask(case: Any) -> None:
        headers = {"Authorization": f"Bearer {door.token}", "Accept": "*/*"}
        run = [CHECKS_HERE[each] for each in checks]
        case.call_and_validate(f"{door.address}/api/v1", headers=headers, checks=run, timeout=30)

    ask()


def _can_be_wrong(operation: Any) -> bool:
    return bool(operation.body or operation.query or operation.path_parameters)
