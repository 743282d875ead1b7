"""The schema of a store, step by step: one script a version, in SQL that SQLite reads and `for_postgres` translates.

A script, once released, is never edited: a change is a new one at the end. `rank`, `time` and `timestamp` are names of
columns in both databases.
"""

MIGRATIONS = (
    """
    CREATE TABLE histories (
        tenant TEXT NOT NULL, release TEXT NOT NULL, user_id TEXT NOT NULL,
        item_ids TEXT NOT NULL, timestamps TEXT,
        PRIMARY KEY (tenant, release, user_id)
    ) WITHOUT ROWID;
    CREATE TABLE history_sets (
        tenant TEXT NOT NULL, release TEXT NOT NULL, num_users INTEGER NOT NULL,
        PRIMARY KEY (tenant, release)
    ) WITHOUT ROWID;
    CREATE TABLE answers (
        tenant TEXT NOT NULL, request_id TEXT NOT NULL, time INTEGER NOT NULL, user_id TEXT,
        items TEXT NOT NULL, release TEXT NOT NULL, variant TEXT, source TEXT,
        PRIMARY KEY (tenant, request_id)
    );
    CREATE INDEX answers_by_time ON answers (tenant, time, request_id);
    CREATE TABLE reports (
        tenant TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (tenant, kind)
    );
    """,
    """
    CREATE TABLE changes (tenant TEXT NOT NULL PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE items (
        tenant TEXT NOT NULL, item_id TEXT NOT NULL, change INTEGER NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (tenant, item_id)
    ) WITHOUT ROWID;
    CREATE INDEX items_by_change ON items (tenant, change);
    CREATE TABLE item_vectors (
        tenant TEXT NOT NULL, encoder TEXT NOT NULL, content BLOB NOT NULL, vector BLOB NOT NULL,
        PRIMARY KEY (tenant, encoder, content)
    ) WITHOUT ROWID;
    """,
    # `place` counts what arrives, from 1, in the order in which it is seen: who has seen one has seen all before it.
    # `is_made`: the event came without an id, and what stands as its id is made of its content.
    """
    CREATE TABLE events (
        tenant TEXT NOT NULL, event_id TEXT NOT NULL, place INTEGER NOT NULL, user_id TEXT NOT NULL,
        item_id TEXT NOT NULL, timestamp INTEGER NOT NULL, received_at INTEGER NOT NULL, event TEXT NOT NULL,
        value REAL, request_id TEXT, rank INTEGER, session_id TEXT, context TEXT, is_made INTEGER NOT NULL,
        PRIMARY KEY (tenant, event_id)
    );
    CREATE UNIQUE INDEX events_by_place ON events (tenant, place);
    CREATE INDEX events_by_user ON events (tenant, user_id, place);
    CREATE INDEX events_by_request ON events (tenant, request_id);
    CREATE TABLE last_events (tenant TEXT NOT NULL PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
    ALTER TABLE history_sets ADD COLUMN events_until INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX answers_by_user ON answers (tenant, user_id);
    CREATE TABLE erasures (
        tenant TEXT NOT NULL, place INTEGER NOT NULL, user_hash TEXT NOT NULL, erased_at INTEGER NOT NULL,
        PRIMARY KEY (tenant, place)
    ) WITHOUT ROWID;
    CREATE TABLE secrets (tenant TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (tenant, name));
    CREATE TABLE audit (
        tenant TEXT NOT NULL, place INTEGER NOT NULL, time INTEGER NOT NULL, what TEXT NOT NULL, facts TEXT NOT NULL,
        PRIMARY KEY (tenant, place)
    ) WITHOUT ROWID;
    """,
    # `place` of an answer counts with those of events, so that what is new since a look is all that the next one reads.
    """
    ALTER TABLE answers ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX answers_by_place ON answers (tenant, place);
    """,
)


def for_postgres(script: str) -> str:
    """The same in PostgreSQL's types: 64-bit whole numbers and doubles, as SQLite has them."""
    for theirs, ours in (
        (" WITHOUT ROWID", ""),
        ("INTEGER", "BIGINT"),
        ("BLOB", "BYTEA"),
        (" REAL", " DOUBLE PRECISION"),
    ):
        script = script.replace(theirs, ours)
    return script
