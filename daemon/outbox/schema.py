"""The tables of the outbox, and how a file of an older version becomes one of this version."""

from __future__ import annotations

import sqlite3

from daemon.errors import OutboxError

# One script per version; a file of version n has run the first n. Never change one that was released: add the next.
MIGRATIONS = (
    """
    -- Where the change stream is read from. One row.
    CREATE TABLE position (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        seconds INTEGER NOT NULL,       -- cluster time
        increment INTEGER NOT NULL,
        token BLOB,                     -- resume token (BSON); NULL: from the cluster time on
        saved_at REAL NOT NULL          -- seconds since 1970, as all times here
    );

    -- Folded documents of Rocket.Chat.
    CREATE TABLE states (
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        document BLOB NOT NULL,         -- BSON
        changed_at REAL NOT NULL,
        PRIMARY KEY (kind, id)
    );
    CREATE INDEX states_by_age ON states (changed_at);

    -- What happened, once. The rowid is the sequence that rises with delivery order.
    CREATE TABLE events (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        type TEXT NOT NULL,
        session TEXT NOT NULL,
        happened_at REAL NOT NULL,
        recorded_at REAL NOT NULL,
        recovered INTEGER NOT NULL DEFAULT 0    -- 1: made from stored data, after its change was lost
    );
    CREATE INDEX events_of_session ON events (session);

    -- Events that have their place but no body yet.
    CREATE TABLE intents (
        sequence INTEGER PRIMARY KEY,
        started_seconds INTEGER NOT NULL,
        started_increment INTEGER NOT NULL,
        completed_seconds INTEGER,      -- NULL: waits for a later change
        completed_increment INTEGER,
        cut REAL NOT NULL,
        context BLOB NOT NULL           -- BSON
    );
    CREATE INDEX intents_complete ON intents (sequence) WHERE completed_seconds IS NOT NULL;

    CREATE TABLE bodies (
        sequence INTEGER NOT NULL,
        profile TEXT NOT NULL,
        content BLOB NOT NULL,          -- JSON, without file tokens
        slots TEXT NOT NULL,            -- JSON: where file tokens and a CRM's answer go
        PRIMARY KEY (sequence, profile)
    );

    -- What is owed to an endpoint, and what became of it.
    -- state: intent, pending, suspended (owed) | delivered, dead, skipped, cancelled (settled)
    CREATE TABLE deliveries (
        endpoint TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        session TEXT NOT NULL,
        profile TEXT NOT NULL,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0,    -- attempts with a recorded failing outcome, in this round of tries
        round_at REAL,                          -- when this round began
        settled_at REAL,
        reason TEXT,
        answer BLOB,                    -- JSON: the CRM's answer in the payload, as of the first attempt; empty: none
        PRIMARY KEY (endpoint, sequence)
    ) WITHOUT ROWID;
    CREATE INDEX deliveries_owed ON deliveries (endpoint, session, sequence, state)
        WHERE state IN ('intent', 'pending', 'suspended');
    CREATE INDEX deliveries_suspended ON deliveries (endpoint, sequence) WHERE state = 'suspended';
    CREATE INDEX deliveries_of_event ON deliveries (sequence);
    -- For the operator: what is not delivered, in the order in which it happened.
    CREATE INDEX deliveries_unfinished ON deliveries (sequence, endpoint, state) WHERE state <> 'delivered';

    -- The head of each lane: the first owed event of a session at an endpoint, and when its next attempt is due.
    -- due NULL: not to be claimed, because the event has no body yet or an attempt is in flight.
    CREATE TABLE lanes (
        endpoint TEXT NOT NULL,
        session TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        due REAL,
        retry INTEGER NOT NULL DEFAULT 0,       -- 1: the head failed before
        PRIMARY KEY (endpoint, session)
    ) WITHOUT ROWID;
    CREATE INDEX lanes_due ON lanes (endpoint, retry, due, sequence) WHERE due IS NOT NULL;
    CREATE INDEX lanes_of_event ON lanes (sequence);

    CREATE TABLE endpoints (
        name TEXT PRIMARY KEY,
        down_since REAL,                -- NULL: up
        probe_at REAL NOT NULL,         -- when the next probe of an endpoint that is down is due
        last_success_at REAL
    ) WITHOUT ROWID;

    -- The last answer of an endpoint in a session, where it is returned as crmData.
    CREATE TABLE answers (
        endpoint TEXT NOT NULL,
        session TEXT NOT NULL,
        answer BLOB NOT NULL,           -- JSON
        received_at REAL NOT NULL,
        PRIMARY KEY (endpoint, session)
    ) WITHOUT ROWID;

    CREATE INDEX answers_by_age ON answers (received_at);

    -- Arrivals of what can arrive by two ways; twin: the id of the one by the other way.
    CREATE TABLE arrivals (
        id TEXT PRIMARY KEY,
        way TEXT NOT NULL,
        key TEXT NOT NULL,
        at REAL NOT NULL,
        twin TEXT
    ) WITHOUT ROWID;
    CREATE INDEX arrivals_by_age ON arrivals (at);
    CREATE INDEX arrivals_by_key ON arrivals (key, way, at) WHERE twin IS NULL;

    CREATE TABLE attempts (
        endpoint TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        number INTEGER NOT NULL,
        started_at REAL NOT NULL,
        duration REAL,                  -- seconds; NULL: in flight, or interrupted
        outcome TEXT,                   -- answered, timeout, unreachable, broken, interrupted; NULL: in flight
        status INTEGER,
        error TEXT,
        answer BLOB,                    -- the beginning of the answer's body
        PRIMARY KEY (endpoint, sequence, number)
    ) WITHOUT ROWID;
    """,
    """
    -- An attempt in flight is counted in its lane. It has a row in `attempts`, and is in the numbers of `deliveries`, from its
    -- outcome on. Those in flight when the file was left are interrupted.
    ALTER TABLE lanes ADD COLUMN started_at REAL;
    UPDATE attempts SET outcome = 'interrupted' WHERE outcome IS NULL;
    UPDATE lanes SET due = 0 WHERE due IS NULL AND EXISTS (SELECT 1 FROM deliveries d
        WHERE d.endpoint = lanes.endpoint AND d.sequence = lanes.sequence AND d.state IN ('pending', 'suspended'));
    DROP INDEX lanes_of_event;
    """,
    """
    -- Nearly every commit changes folded state, and old state is looked for once in a while.
    DROP INDEX states_by_age;
    """,
)
VERSION = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the file to this version, or raise `OutboxError` when it is of a newer one."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise OutboxError(
            f"{path} was written by a newer livechat-relay (schema {version}, this one knows {VERSION})",
            hint="run the newer version again, or put back the copy of the outbox that was made before the upgrade; another file"
            " (outbox.url) would begin with nothing",
        )
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
