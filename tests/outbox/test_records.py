"""What the operator sees and does: in order, in pages, and by an index that fits."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from daemon import ops
from daemon.errors import OutboxError
from daemon.model import Dead, Delivered
from daemon.outbox import records
from daemon.outbox.records import CAN_BE_RETRIED, OWED, Filter, Place, State
from daemon.outbox.sqlite import SqliteOutbox
from tests.outbox.events import OK, REFUSED, TWO, commit, event, look, settle

FILTERS = {
    "all": Filter(),
    "endpoint": Filter(endpoint="crm"),
    "session": Filter(session="r1"),
    "session, owed": Filter(session="r1", states=OWED),
    "owed": Filter(states=OWED),
    "dead": Filter(states=(State.DEAD,)),
    "can be retried, endpoint": Filter(endpoint="crm", states=CAN_BE_RETRIED),
    "delivered": Filter(states=(State.DELIVERED,)),
    "delivered and dead": Filter(states=(State.DELIVERED, State.DEAD)),
    "type": Filter(type="Message"),
    "ids": Filter(event_ids=("e1", "e4", "nothing")),
}
named = pytest.mark.parametrize("wanted", [pytest.param(wanted, id=name) for name, wanted in FILTERS.items()])


async def fill(outbox: SqliteOutbox) -> None:
    """Six events of two rooms for two endpoints: some delivered, dead, cancelled, pending."""
    await outbox.append(commit(*(event(f"e{number}", f"r{number % 2}", endpoints=TWO) for number in range(6))))
    for verdict, outcome in ((Delivered(), OK), (Dead("no"), REFUSED)):
        for delivery in (await outbox.claim("crm", 2, 2))[0]:
            await settle(outbox, delivery, outcome, verdict)


def all_of(path: Path, wanted: Filter, size: int) -> list[tuple[int, str]]:
    """Every delivery, by pages of `size`."""
    found: list[tuple[int, str]] = []
    with ops.opened(path) as connection:
        place = Place()
        while page := records.page(connection, wanted, place, size):
            found += [(record.sequence, record.endpoint) for record in page]
            place = Place(*found[-1])
    return found


def _matches(wanted: Filter, row: Sequence[Any]) -> bool:
    _, endpoint, session, state, event_id = row
    return (
        (not wanted.endpoint or endpoint == wanted.endpoint)
        and (not wanted.session or session == wanted.session)
        and (not wanted.states or state in wanted.states)
        and (not wanted.event_ids or event_id in wanted.event_ids)
    )


@named
async def test_pages_give_each_match_once_in_order(outbox: SqliteOutbox, path: Path, wanted: Filter) -> None:
    await fill(outbox)
    ops.cancel(path, Filter(event_ids=("e5",), endpoint="archive"), "no")
    query = "SELECT d.sequence, endpoint, d.session, state, id FROM deliveries d JOIN events USING (sequence) ORDER BY 1, 2"
    expected = [(row[0], row[1]) for row in look(path, query) if _matches(wanted, row)]
    assert expected
    for size in (1, 3, 100):
        assert all_of(path, wanted, size) == expected
    with ops.opened(path) as connection:
        assert records.count(connection, wanted) == len(expected)


@named
async def test_a_page_sorts_nothing_and_walks_no_table(outbox: SqliteOutbox, path: Path, wanted: Filter) -> None:
    class Plan:
        """Notes how SQLite goes about it."""

        def __init__(self, connection: sqlite3.Connection) -> None:
            self.connection = connection
            self.steps: list[str] = []

        def execute(self, statement: str, values: Any) -> Any:
            self.steps += [row[3] for row in self.connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
            return self.connection.execute(statement, values)

    with ops.opened(path) as connection:
        plan = Plan(connection)
        records.page(plan, wanted, Place(1, "crm"), 10)  # type: ignore[arg-type]
    assert not [step for step in plan.steps if step.startswith("SCAN")]
    assert wanted.event_ids or not [step for step in plan.steps if "TEMP B-TREE" in step]
    first = plan.steps[0]
    if wanted.session:
        assert "events_of_session (session=?" in first
    elif wanted.states and State.DELIVERED not in wanted.states:
        assert "deliveries_unfinished" in first


async def test_many_are_changed_without_holding_them_in_memory(outbox: SqliteOutbox, path: Path) -> None:
    await outbox.append(commit(*(event(f"e{number}", f"r{number}") for number in range(4000))))
    tracemalloc.start()
    try:
        assert ops.cancel(path, Filter(endpoint="crm"), "no") == ops.Changed(4000, 0, None)
        assert ops.retry(path, Filter(states=(State.CANCELLED,))) == ops.Changed(4000, 0, None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_500_000


async def test_what_comes_in_meanwhile_is_left_alone(outbox: SqliteOutbox, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An action on everything owed ends, however fast events come in."""
    monkeypatch.setattr(ops, "_PAGE", 1)
    await outbox.append(commit(event("e0", "r0"), event("e1", "r1")))
    cancel = records.cancel

    def busy(connection: sqlite3.Connection, record: records.Record, reason: str, now: float) -> bool:
        (last,) = connection.execute("SELECT max(sequence) FROM events").fetchone()
        row = [last + 1, f"e{last}", f"r{last}"]
        connection.execute("INSERT INTO events VALUES (?, ?, 'Message', ?, 0, 0, 0)", row)
        row = [last + 1, f"r{last}"]
        connection.execute(
            "INSERT INTO deliveries (endpoint, sequence, session, profile, state) VALUES ('crm', ?, ?, 'guide', 'pending')", row
        )
        return cancel(connection, record, reason, now)

    monkeypatch.setattr(records, "cancel", busy)
    assert ops.cancel(path, Filter(endpoint="crm"), "no").done == 2


async def test_a_read_that_takes_too_long_says_what_helps(outbox: SqliteOutbox, path: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(OutboxError, match=r"longer than 0\.05 s") as caught, ops.opened(path, longest_s=0.05) as connection:
        connection.execute(endless).fetchall()
    assert "session" in caught.value.hint
