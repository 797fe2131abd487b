"""Redaction of what goes into the journal: the body of an entry, by what it is, and the words of its header.

A body is looked through as it will lie on the disk. Only where something is found it is opened: of a protobuf each text
is redacted and the whole serialized again, so that lengths are right; of JSON each string, so that it stays JSON. The
header's words are identities, which cannot be changed: with a value in one of them the entry is refused. All that holds
for values that are certain. One that is some program's word ("operator", "cancelled") is taken out of running text and
left where programs read: who keeps such a word secret must not stop the lab with it.
"""

import json
from collections.abc import Callable, Sequence

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Proto

from core.redaction.redactor import Hit, Redactor
from core.rogers.entry import Entry
from protos.errors import InvalidArgument
from protos.v1.llm_pb2 import Answer
from protos.v1.message_pb2 import Message

PROTOS: dict[str, type[Proto]] = {"message": Message, "event": Message, "answer": Answer}

IDENTITIES = frozenset(  # what programs go by: only a value that cannot stand there by chance is taken out of them
    {"id", "conversation", "sender", "recipient", "tool", "in_reply_to", "causation", "digest", "media_type", "name"}
    | {"model", "provider", "alias", "tool_call_id"}
)

Noticed = Callable[[Entry, Sequence[Hit]], None]


def unnoticed(entry: Entry, hits: Sequence[Hit]) -> None:
    """Where nobody wants to know."""


class Clerk:
    """Cleans entries before they are written, and tells of what it found: the entry as cleaned, and the values."""

    def __init__(self, redactor: Redactor) -> None:
        self.noticed: Noticed = unnoticed
        self._redactor = redactor

    def clean(self, entry: Entry) -> Entry:
        """The entry as it may be written; itself if there is nothing in it.

        Raises:
            InvalidArgument: its id, its kind, its conversation, or who said it to whom, holds a value.
        """
        redactor = self._redactor
        if redactor.is_empty:
            return entry
        id, kind, body, conversation, sender, recipient, _ = entry
        words = f"{id} {kind} {conversation} {sender} {recipient}\0".encode("utf-8", "surrogatepass")
        hits = redactor.scan(words + body)
        if not hits:
            return entry
        of_words = [each for each in hits if each.offset < len(words)]
        if any(each.certain for each in of_words):
            raise InvalidArgument(
                "rule secret: an id, a conversation or a name holds the value of a secret.", next="Choose another."
            )
        cleaned = self._clean_body(kind, body)
        if cleaned == body:
            return entry
        entry = entry._replace(body=cleaned)
        within = hits[len(of_words) :]
        self.noticed(entry, [each._replace(offset=each.offset - len(words)) for each in within])
        return entry

    def _clean_body(self, kind: str, body: bytes) -> bytes:
        redactor = self._redactor
        try:
            if kind in PROTOS:
                message = PROTOS[kind].FromString(body)
                redact_proto(redactor, message)
                cleaned = message.SerializeToString()
            else:
                tree = json.loads(body)
                redacted = redactor.redact_tree(tree)
                if redacted == tree:
                    return body
                cleaned = json.dumps(redacted, ensure_ascii=False).encode("utf-8", "surrogatepass")
        except (DecodeError, ValueError):
            return redactor.redact(body)  # it is something else; so it has no form to be kept
        # A value that spans two fields is in none of them: nothing of such a text is kept.
        left = any(each.certain for each in redactor.scan(cleaned))
        return _emptied(kind, body) if left else cleaned


def redact_proto(redactor: Redactor, message: Proto) -> None:
    """Redacts every text and every run of bytes in a protobuf, in place. Maps are not among the contract's fields."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in value if field.is_repeated else (value,):
                redact_proto(redactor, each)
        elif field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            if field.is_repeated:
                value[:] = [_redacted(redactor, each) for each in value]
            else:
                setattr(message, field.name, _redacted(redactor, value, certain=field.name in IDENTITIES))


def _redacted(redactor: Redactor, value: object, *, certain: bool = False) -> object:
    if isinstance(value, str):
        return redactor.redact_text(value, certain=certain)
    return redactor.redact(value, certain=certain) if isinstance(value, bytes) else value


def _emptied(kind: str, body: bytes) -> bytes:
    if kind not in PROTOS:
        return b"{}"
    message = PROTOS[kind].FromString(body)
    for name in ("text", "data", "blobs", "events"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    return message.SerializeToString()
