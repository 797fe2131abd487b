"""What Rogers reads instead of the whole journal: members, conversations, dead letters."""

import json
import sqlite3

from core.rogers.apart import SetApartView
from core.rogers.entry import Row, View


class Members:
    """Who belongs to which conversation, from when to when, told by sequences."""

    name = "member"
    kinds = frozenset({"member"})
    tables = ("member",)
    schema = """
        CREATE TABLE IF NOT EXISTS member (
            participant  TEXT    NOT NULL,
            conversation TEXT    NOT NULL,
            since        INTEGER NOT NULL,
            until        INTEGER,
            PRIMARY KEY (participant, conversation, since)
        ) WITHOUT ROWID;
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        act = json.loads(row.body or b"{}").get("act")
        if act == "join":
            db.execute(
                "INSERT INTO member (participant, conversation, since) SELECT ?1, ?2, ?3 WHERE NOT EXISTS"
                " (SELECT 1 FROM member WHERE participant = ?1 AND conversation = ?2 AND until IS NULL)",
                (row.sender, row.conversation, row.sequence),
            )
        elif act == "leave":
            db.execute(
                "UPDATE member SET until = ? WHERE participant = ? AND conversation = ? AND until IS NULL",
                (row.sequence, row.sender, row.conversation),
            )


class DeadLetters:
    """Messages that nobody can ever receive, and why."""

    name = "dead_letter"
    kinds = frozenset({"dead"})
    tables = ("dead_letter",)
    schema = """
        CREATE TABLE IF NOT EXISTS dead_letter (
            sequence     INTEGER PRIMARY KEY,  -- of the verdict
            message      INTEGER NOT NULL,     -- sequence of the message
            id           TEXT    NOT NULL,
            conversation TEXT    NOT NULL,
            sender       TEXT    NOT NULL,
            recipient    TEXT    NOT NULL,
            reason       TEXT    NOT NULL,
            at           REAL    NOT NULL
        );
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        told = json.loads(row.body or b"{}")
        db.execute(
            "INSERT INTO dead_letter VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.sequence,
                told["message"],
                told["id"],
                row.conversation,
                row.sender,
                row.recipient,
                told["reason"],
                row.at,
            ),
        )


VIEWS: tuple[View, ...] = (Members(), DeadLetters(), SetApartView())
