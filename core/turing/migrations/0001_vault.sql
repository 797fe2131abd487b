-- One row: what opens the vault, and its master key, sealed with the key of the lock.
CREATE TABLE vault (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    id        TEXT    NOT NULL,
    created   REAL    NOT NULL,
    lock      TEXT    NOT NULL,  -- JSON: the way, the id of the lock's key, parameters of Argon2id
    spare     TEXT    NOT NULL,  -- JSON: a lock that is not this one, whose key may be kept somewhere; or empty
    master_id TEXT    NOT NULL,
    master    BLOB    NOT NULL
) STRICT;

-- Each version has a data key of its own, sealed with the master key; the value is sealed with the data key.
CREATE TABLE secret (
    name      TEXT    NOT NULL,
    version   INTEGER NOT NULL,
    created   REAL    NOT NULL,
    retires   REAL,           -- seconds since the epoch; NULL: the current version
    key       BLOB,           -- NULL with `value`: destroyed, only listed
    value     BLOB,
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;
