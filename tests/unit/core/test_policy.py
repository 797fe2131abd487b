"""What no rule allows is denied, and the denial names its rule."""

import pytest

from core.policy.capabilities import RESIDENT_PORTS, Identity, may_enter, may_publish, may_use
from protos.errors import Denied
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, KIND_REPLY, Message

RUN = Identity(
    participant="echo", ports=frozenset({"bus", "files", "files:advisories"}), run="echo-1", conversation="c"
)
RESIDENT = Identity(participant="dewey", ports=RESIDENT_PORTS)


def message(**fields: object) -> Message:
    return Message(**({"conversation": "c", "kind": KIND_PROSE} | fields))  # type: ignore[arg-type]


def test_a_port_that_the_manifest_does_not_name_is_denied() -> None:
    may_use(RUN, "files:advisories")
    with pytest.raises(Denied, match="rule port"):
        may_use(RUN, "files:keys")
    with pytest.raises(Denied, match="rule port"):
        may_use(RUN, "web")


def test_a_port_without_a_family_is_not_opened_by_a_star() -> None:
    with pytest.raises(Denied):
        may_use(Identity(participant="x", ports=frozenset({"files:*"})), "files")


def test_a_run_stays_in_its_conversation_and_a_resident_goes_anywhere() -> None:
    may_enter(RUN, "c")
    may_enter(RESIDENT, "anywhere")
    with pytest.raises(Denied, match="rule conversation"):
        may_enter(RUN, "d")


def test_a_run_answers_only_what_it_was_asked() -> None:
    reply = message(kind=KIND_REPLY, in_reply_to="m", recipient="operator")
    may_publish(RUN, reply, answers=True, knows_recipient=True)
    with pytest.raises(Denied, match="rule answer"):
        may_publish(RUN, reply, answers=False, knows_recipient=True)


def test_a_run_addresses_nobody_it_does_not_know() -> None:
    may_publish(RUN, message(recipient=""), answers=True, knows_recipient=False)
    with pytest.raises(Denied, match="rule recipient"):
        may_publish(RUN, message(recipient="stranger"), answers=True, knows_recipient=False)


def test_calling_a_mad_needs_a_port_of_its_own() -> None:
    call = message(kind=KIND_CALL, recipient="hopper")
    may_publish(RESIDENT, call, answers=True, knows_recipient=True)
    with pytest.raises(Denied, match="call:hopper"):
        may_publish(RUN, call, answers=True, knows_recipient=True)
