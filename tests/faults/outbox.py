"""Reads the outbox of a run: what it holds, and whether its rows fit together."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.faults.evidence import Attempt, Row

# Each gives the rows that must not be; the texts say what they are.
_NEVER = {
    "owed deliveries whose lane is missing or begins elsewhere": """
        SELECT endpoint, session, min(sequence) FROM deliveries
        WHERE state IN ('intent', 'pending', 'suspended') GROUP BY endpoint, session
        EXCEPT SELECT endpoint, session, sequence FROM lanes""",
    "lanes without an owed head": """
        SELECT endpoint, session, sequence FROM lanes
        EXCEPT SELECT endpoint, session, sequence FROM deliveries WHERE state IN ('intent', 'pending', 'suspended')""",
    "intents without context": """
        SELECT endpoint, sequence FROM deliveries WHERE state = 'intent' AND sequence NOT IN (SELECT sequence FROM intents)""",
    "contexts without an intent": """
        SELECT sequence FROM intents WHERE sequence NOT IN (SELECT sequence FROM deliveries WHERE state = 'intent')""",
    "owed deliveries without a body": """
        SELECT endpoint, sequence FROM deliveries d WHERE state IN ('pending', 'suspended')
        AND NOT EXISTS (SELECT 1 FROM bodies b WHERE b.sequence = d.sequence AND b.profile = d.profile)""",
    "lanes that wait for nothing": """
        SELECT l.endpoint, l.session, l.sequence FROM lanes l JOIN deliveries d USING (endpoint, sequence)
        WHERE l.due IS NULL AND l.started_at IS NULL AND d.state <> 'intent'""",
    "attempts in flight of what is not to be claimed": """
        SELECT l.endpoint, l.session, l.sequence FROM lanes l JOIN deliveries d USING (endpoint, sequence)
        WHERE l.started_at IS NOT NULL AND (l.due IS NOT NULL OR d.state NOT IN ('pending', 'suspended'))""",
    "lanes of an intent that can be claimed": """
        SELECT l.endpoint, l.session, l.sequence FROM lanes l JOIN deliveries d USING (endpoint, sequence)
        WHERE l.due IS NOT NULL AND d.state = 'intent'""",
    "events without deliveries": "SELECT id FROM events WHERE sequence NOT IN (SELECT sequence FROM deliveries)",
    "attempts that are miscounted": """
        SELECT endpoint, sequence, attempts FROM deliveries d WHERE attempts <>
        (SELECT count(*) FROM attempts a WHERE a.endpoint = d.endpoint AND a.sequence = d.sequence)""",
    "a damaged file": "SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
}
# After an orderly end with nothing owed.
_NOT_AT_THE_END = {
    "lanes": "SELECT endpoint, session, sequence FROM lanes",
    "intents": "SELECT sequence FROM intents",
    "attempts in flight": "SELECT endpoint, session, sequence FROM lanes WHERE started_at IS NOT NULL",
    "deliveries that are neither delivered nor dead": """
        SELECT endpoint, sequence, state, reason FROM deliveries WHERE state NOT IN ('delivered', 'dead')""",
}
_ROWS = "SELECT endpoint, id, d.session, state, attempts, failures, reason FROM deliveries d JOIN events e USING (sequence)"
_ATTEMPTS = "SELECT endpoint, id, number, outcome, status, error FROM attempts a JOIN events e USING (sequence) ORDER BY number"


def odd_rows_after_a_crash(outbox: Path) -> list[str]:
    """What must not be, whenever the relay ended. Looks at a copy: opening the file itself would mend what the next start has
    to.
    """
    with tempfile.TemporaryDirectory() as folder:
        for file in (outbox, outbox.with_name(f"{outbox.name}-wal")):
            if file.exists():
                shutil.copy(file, folder)
        with _open(Path(folder) / outbox.name) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'lanes'").fetchone():
                return []
            return list(_odd(connection, _NEVER))


def odd_rows_at_the_end(outbox: Path) -> list[str]:
    """The same when everything is done."""
    with _open(outbox) as connection:
        return list(_odd(connection, {**_NEVER, **_NOT_AT_THE_END}))


def owes(outbox: Path, event_ids: set[str]) -> str | None:
    """What is still to come: owed deliveries, or some of these events that the outbox does not know; None when nothing is."""
    with _open(outbox) as connection:
        unknown = event_ids - {event_id for (event_id,) in connection.execute("SELECT id FROM events")}
        if unknown:
            return f"{len(unknown)} events were not read yet, one of them {min(unknown)}"
        query = "SELECT state, count(*) FROM deliveries WHERE state IN ('intent', 'pending', 'suspended') GROUP BY state"
        states = connection.execute(query).fetchall()
        return ", ".join(f"{count} {state}" for state, count in states) or None


def read_rows(outbox: Path) -> tuple[list[Row], list[Attempt]]:
    """Every delivery and every attempt."""
    with _open(outbox) as connection:
        return [Row(*row) for row in connection.execute(_ROWS)], [Attempt(*row) for row in connection.execute(_ATTEMPTS)]


def _odd(connection: sqlite3.Connection, queries: dict[str, str]) -> Iterator[str]:
    for name, query in queries.items():
        found = connection.execute(query).fetchmany(4)
        if found:
            yield f"{name}: {', '.join(map(str, found))}"


@contextmanager
def _open(outbox: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(outbox, timeout=10)) as connection:
        yield connection
