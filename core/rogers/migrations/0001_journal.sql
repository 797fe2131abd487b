-- Headers and bodies lie apart, so that removing bodies gives whole pages back while the chain stays as it is.
CREATE TABLE journal (
    sequence     INTEGER PRIMARY KEY,
    at           REAL    NOT NULL,
    kind         TEXT    NOT NULL,
    id           TEXT    NOT NULL UNIQUE,
    conversation TEXT    NOT NULL,
    sender       TEXT    NOT NULL,
    recipient    TEXT    NOT NULL,
    size         INTEGER NOT NULL,
    digest       BLOB    NOT NULL,
    hash         BLOB    NOT NULL
);
CREATE INDEX journal_by_conversation ON journal (conversation) WHERE kind IN ('message', 'event');
CREATE INDEX journal_by_recipient ON journal (recipient) WHERE kind IN ('message', 'event') AND recipient <> '';

CREATE TABLE body (
    sequence INTEGER PRIMARY KEY,
    body     BLOB NOT NULL
);

-- Old headers, sealed: `headers` is compressed, `anchor` is the hash they stand on, `head` their last.
CREATE TABLE segment (
    first    INTEGER PRIMARY KEY,
    last     INTEGER NOT NULL,
    anchor   BLOB    NOT NULL,
    head     BLOB    NOT NULL,
    messages INTEGER NOT NULL,  -- how many of them are messages or events
    checksum BLOB    NOT NULL,
    headers  BLOB    NOT NULL
);
-- Sealed or not, an id is known for ever.
CREATE TABLE sealed (
    id       TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL
) WITHOUT ROWID;

-- How far each participant has come: not history, so not entries.
CREATE TABLE cursor (
    participant  TEXT    NOT NULL,
    conversation TEXT    NOT NULL,
    sequence     INTEGER NOT NULL,
    PRIMARY KEY (participant, conversation)
) WITHOUT ROWID;

-- Which form of each view the tables hold.
CREATE TABLE view (
    name        TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL
) WITHOUT ROWID;
