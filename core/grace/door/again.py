"""Saying once more what somebody said: in the name of whoever asks now, and with no more than is believed of them.

Words of somebody else do not become one's own by being repeated. They keep the labels of where they came from; they are
said in a conversation of their own, for whoever began the old one reads it and may cancel what runs there; and they
lose the one argument that is believed of the operator alone: where on this machine a repository lies.
"""

import json

from protos.ids import id_from
from protos.v1.message_pb2 import KIND_CALL, Message

PLACE = "repository"  # of foreman.code: where its patch is applied unless another place is named


def said_again(asked: Message, id: str, *, by: str) -> Message:
    """The same for the same MAD, under a new id; without its blobs, which may be gone."""
    again = Message(id=id, recipient=asked.recipient, kind=asked.kind, tool=asked.tool, text=asked.text)
    again.conversation = asked.conversation if asked.sender == by else id_from(id, "conversation")
    again.data, again.causation = arguments_again(asked, by=by), asked.id
    again.taint[:] = asked.taint
    if asked.HasField("terms"):
        again.terms.CopyFrom(asked.terms)
    return again


def arguments_again(asked: Message, *, by: str) -> str:
    """What a call was asked with, as JSON, for `by` to ask with."""
    if asked.kind != KIND_CALL or asked.sender == by:
        return asked.data
    arguments = json.loads(asked.data or "{}")
    if PLACE not in arguments:
        return asked.data
    return json.dumps({name: each for name, each in arguments.items() if name != PLACE}, ensure_ascii=False)
