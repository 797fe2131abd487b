"""Redaction of what goes into the journal: the body of an entry, by what it is, and the words of its header.

A body is looked through as it will lie on the disk. Only where something is found it is opened: of a protobuf each text
is redacted and the whole serialized again, so that lengths are right; of JSON each string, so that it stays JSON, and a
number becomes another number. The header's words are identities, which cannot be changed: with a value in one of them
the entry is refused. But a value that is uncertain may be the name of a MAD, or of a conversation that has begun. Who
would begin another of that name is refused; the lab's own entries keep the name wherever their header has it.
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

NAMES = ("conversation", "sender", "recipient")  # fields of a message that are words of the header

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
        header = "\n".join(entry[:2] + entry[3:6])
        words = f"{header}\0".encode("utf-8", "surrogatepass")
        hits = redactor.scan(words + entry.body)
        if not hits:
            return entry
        named = [each for each in hits if each.offset < len(words)]
        said = entry.kind in ("message", "event") and entry.sender != "core"
        if any(each.certain for each in named) or (
            said and named and redactor.scan(entry.conversation.encode("utf-8", "surrogatepass"))
        ):
            raise InvalidArgument(
                "rule secret: an id, a conversation or a name holds the value of a secret.", next="Choose another."
            )
        names = {each.name for each in named}
        within = [each._replace(offset=each.offset - len(words)) for each in hits if each.name not in names]
        if within:
            self.noticed(entry, within)
        cleaned = self._clean_body(entry, header)
        return entry if cleaned == entry.body else entry._replace(body=cleaned)

    def _clean_body(self, entry: Entry, header: str) -> bytes:
        redactor = self._redactor
        try:
            if entry.kind in PROTOS:
                message = PROTOS[entry.kind].FromString(entry.body)
                names = {each: getattr(message, each, "") for each in NAMES}
                redact_proto(redactor, message)
                for name, value in names.items():
                    if value and value == getattr(entry, name):
                        setattr(message, name, value)
                cleaned = message.SerializeToString()
            else:
                tree = json.loads(entry.body)
                redacted = redactor.redact_tree(tree, header)
                if redacted == tree:
                    return entry.body
                cleaned = json.dumps(redacted, ensure_ascii=False).encode("utf-8", "surrogatepass")
        except (DecodeError, ValueError):
            return redactor.redact(entry.body)  # it is something else; so it has no form to be kept
        # A value that spans two fields is in none of them: nothing of such a text is kept.
        left = any(each.certain for each in redactor.scan(cleaned))
        return _emptied(entry.kind, entry.body) if left else cleaned


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
