"""What somebody else said is said again as what it is: theirs."""

import json

from core.grace.door.again import said_again
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, TAINT_FILE, TAINT_WEB, Message, Terms


def asked(sender: str) -> Message:
    arguments = {"goal": "mend it", "repository": "/home/me/project"}
    return Message(
        id=new_id(), conversation=new_id(), sender=sender, recipient="foreman", kind=KIND_CALL, tool="code",
        data=json.dumps(arguments), taint=[TAINT_FILE, TAINT_WEB], terms=Terms(usd=2),
    )  # fmt: skip


def test_ones_own_words_are_said_again_as_they_were() -> None:
    mine = asked("operator")
    again = said_again(mine, new_id(), by="operator")
    assert (again.conversation, again.recipient, again.tool) == (mine.conversation, "foreman", "code")
    assert (again.data, again.terms, again.causation) == (mine.data, mine.terms, mine.id)
    assert list(again.taint) == [TAINT_FILE, TAINT_WEB]


def test_words_of_somebody_else_are_said_elsewhere_and_name_no_place_on_this_machine() -> None:
    theirs = asked("client:ann")
    again = said_again(theirs, new_id(), by="operator")
    assert again.conversation not in ("", theirs.conversation)
    assert json.loads(again.data) == {"goal": "mend it"}
    assert list(again.taint) == [TAINT_FILE, TAINT_WEB]
    prose = Message(id=new_id(), conversation="c", sender="client:ann", recipient="marco", kind=KIND_PROSE, text="{}")
    assert said_again(prose, new_id(), by="operator").text == "{}"
