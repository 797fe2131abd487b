"""Redaction of what goes into the journal: the body of an entry, by what it is, and the words of its header.

A body is looked through as it will lie on the disk. Only where something is found it is opened: of a protobuf each text
is redacted and the whole serialized again, so that lengths are right; of JSON each string, so that it stays JSON. The
header's words are identities, which cannot be changed: with a value in one of them the entry is refused.
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
        if hits[0].offset < len(words):
            raise InvalidArgument(
                "rule secret: an id, a conversation or a name holds the value of a secret.", next="Choose another."
            )
        hits = [each._replace(offset=each.offset - len(words), end=each.end - len(words)) for each in hits]
        entry = entry._replace(body=self._clean_body(kind, body))
        self.noticed(entry, hits)
        return entry

    def _clean_body(self, kind: str, body: bytes) -> bytes:
        redactor = self._redactor
        try:
            if kind in PROTOS:
                message = PROTOS[kind].FromString(body)
                redact_proto(redactor, message)
                cleaned = message.SerializeToString()
            else:
                tree = redactor.redact_tree(json.loads(body))
                cleaned = json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass")
        except (DecodeError, ValueError):
            return redactor.redact(body)  # it is something else; so it has no form to be kept
        # A value that spans two fields is in none of them: nothing of such a text is kept.
        return cleaned if not redactor.scan(cleaned) else _emptied(kind, body)


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
                setattr(message, field.name, _redacted(redactor, value))


def _redacted(redactor: Redactor, value: object) -> object:
    if isinstance(value, str):
        return redactor.redact_text(value)
    return redactor.redact(value) if isinstance(value, bytes) else value


def _emptied(kind: str, body: bytes) -> bytes:
    if kind not in PROTOS:
        return b"{}"
    message = PROTOS[kind].FromString(body)
    for name in ("text", "data", "blobs", "events"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    return message.SerializeToString()
