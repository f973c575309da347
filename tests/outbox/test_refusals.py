"""Endpoints that answer the same 4xx to every event of a type are found, and said once."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from daemon.metrics import Metrics
from daemon.model import Answered, Dead, Delivered, Outcome
from daemon.outbox.refusals import Refusal, report_refusals
from daemon.outbox.sqlite import SqliteOutbox
from tests.clocks import FakeClock
from tests.outbox.events import DOWN, OK, commit, event, settle

DAY_S = 86400.0
_MANY_EVENTS = """
    WITH RECURSIVE n(i) AS (VALUES (100) UNION ALL SELECT i + 1 FROM n WHERE i < 100099)
    INSERT INTO events SELECT i, 'm' || i, 'Message', 'r', ?, ?, 0 FROM n
"""
_MANY_DELIVERIES = """
    WITH RECURSIVE n(i) AS (VALUES (100) UNION ALL SELECT i + 1 FROM n WHERE i < 100099)
    INSERT INTO deliveries (endpoint, sequence, session, profile, state, settled_at) SELECT ?, i, 'r', 'guide', ?, ? FROM n
"""
LEAD, MESSAGE = "LeadCapture", "Message"


def answer(status: int) -> Answered:
    return Answered(status, b"no", 0.1)


async def happen(outbox: SqliteOutbox, *story: tuple[str, Outcome]) -> None:
    """One event after the other, each with its type and what came of it."""
    for number, (event_type, outcome) in enumerate(story):
        await outbox.append(commit(event(f"e{number}", f"room{number}")._replace(type=event_type)))
        ((delivery,), _) = await outbox.claim("crm", 10, 10)
        verdict = Delivered() if outcome == OK else Dead("refused")
        await settle(outbox, delivery, outcome, verdict)


@pytest.mark.parametrize(
    ("story", "found"),
    [
        pytest.param([(LEAD, answer(422))] * 5, [Refusal("crm", LEAD, 422, others=False)], id="five, and nothing else taken"),
        pytest.param([(LEAD, answer(422))] * 4, [], id="four are too few"),
        pytest.param(
            [(LEAD, answer(422)), (MESSAGE, OK)] * 5, [Refusal("crm", LEAD, 422, others=True)], id="other types are taken"
        ),
        pytest.param([(LEAD, answer(422))] * 5 + [(LEAD, OK)], [], id="one was delivered since"),
        pytest.param(
            [(LEAD, OK)] + [(LEAD, answer(422))] * 5, [Refusal("crm", LEAD, 422, others=False)], id="delivered before that"
        ),
        pytest.param([(LEAD, answer(422))] * 3 + [(LEAD, answer(400))] * 2, [], id="not the same status"),
        pytest.param([(LEAD, answer(500))] * 6, [], id="5xx is an outage"),
        pytest.param([(LEAD, answer(429))] * 6, [], id="429 is a busy receiver"),
        pytest.param([(LEAD, DOWN)] * 6, [], id="no answer at all"),
        pytest.param(
            [(LEAD, answer(422)), (MESSAGE, answer(404))] * 5,
            [Refusal("crm", LEAD, 422, others=False), Refusal("crm", MESSAGE, 404, others=False)],
            id="two types",
        ),
    ],
)
async def test_refusals(outbox: SqliteOutbox, story: Sequence[tuple[str, Outcome]], found: list[Refusal]) -> None:
    await happen(outbox, *story)
    assert await outbox.refusals() == found


async def test_a_day_later_it_is_over(outbox: SqliteOutbox, clock: FakeClock) -> None:
    await happen(outbox, *[(LEAD, answer(422))] * 5)
    clock.advance(DAY_S - 1)
    assert len(await outbox.refusals()) == 1
    clock.advance(2)
    assert await outbox.refusals() == []


def test_said_once_until_it_changes() -> None:
    lead, message = Refusal("crm", LEAD, 422, others=True), Refusal("crm", MESSAGE, 404, others=False)
    with capture_logs() as lines:
        known = report_refusals([lead], set())
        known = report_refusals([lead], known)
        assert len(lines) == 1
        known = report_refusals([lead, message, replace(lead, others=False)], known)
        known = report_refusals([], known)
        report_refusals([lead], known)
    assert [(line["event"], line["type"], line["status"]) for line in lines] == [
        ("endpoint.refuses_type", LEAD, 422),
        ("endpoint.refuses_type", MESSAGE, 404),
        ("endpoint.refuses_type", LEAD, 422),
    ]
    assert "endpoints.crm.retry.final" in lines[0]["hint"]
    assert "leave LeadCapture out of endpoints.crm.events" in lines[0]["hint"]
    assert "secret_token" in lines[1]["hint"]


async def test_looking_is_cheap_in_a_large_outbox(path: Path, clock: FakeClock, metrics: Metrics) -> None:
    """A hundred thousand deliveries since, and as many dead letters that are too old to count."""
    outbox = SqliteOutbox(path, clock=clock, metrics=metrics)
    try:
        await happen(outbox, *[(LEAD, answer(422))] * 5)
        now = clock.now().timestamp()

        def fill(connection: sqlite3.Connection) -> None:
            connection.execute(_MANY_EVENTS, [now, now])
            connection.execute(_MANY_DELIVERIES, ["crm", "delivered", now])
            connection.execute(_MANY_DELIVERIES, ["archive", "dead", now - 2 * DAY_S])

        await outbox._writer.run(fill)
        started = time.perf_counter()
        assert await outbox.refusals() == [Refusal("crm", LEAD, 422, others=True)]
        assert time.perf_counter() - started < 1.0
    finally:
        await outbox.close()
