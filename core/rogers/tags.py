"""Which conversations have which #tags in what was said in them: a view of the journal's messages."""

import json
import re
import sqlite3
from typing import ClassVar

from google.protobuf.message import DecodeError

from core.rogers.entry import Row
from protos.v1.message_pb2 import Message

TAG = re.compile(r"(?<![\w&#/])#([^\W\d_][\w-]{0,39})")  # "#release", and neither "# Heading" nor "a#b" nor "#12"
MOST = 16  # of one message count


class TagsView:
    """One row for each tag of each conversation. What is said within a conversation (`ID/1`) counts as said in it.

    A rebuild drops nothing: a tag outlives the body of the message that had it, until its conversation is forgotten.
    """

    name = "tag"
    kinds = frozenset({"message", "retention"})
    tables: ClassVar[tuple[str, ...]] = ()
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS tag (
            tag          TEXT    NOT NULL,  -- in small letters
            conversation TEXT    NOT NULL,
            last         INTEGER NOT NULL,  -- sequence of the message that said it last
            PRIMARY KEY (tag, conversation)
        ) WITHOUT ROWID;
        CREATE INDEX IF NOT EXISTS tag_last ON tag (tag, last);
        CREATE INDEX IF NOT EXISTS tag_conversation ON tag (conversation);
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Looks through a message, if there may be one in it; hears of what is forgotten."""
        if row.kind == "retention":
            if gone := json.loads(row.body or b"{}").get("conversation"):
                db.execute("DELETE FROM tag WHERE conversation = ? AND last < ?", (gone, row.sequence))
            return
        if row.body is None or b"#" not in row.body:
            return
        try:
            text = Message.FromString(row.body).text
        except DecodeError:
            return
        conversation = row.conversation.partition("/")[0]
        for tag in list(dict.fromkeys(each.lower() for each in TAG.findall(text)))[:MOST]:
            db.execute(
                "INSERT INTO tag VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET last = max(last, excluded.last)",
                (tag, conversation, row.sequence),
            )
