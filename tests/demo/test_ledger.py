"""The judgement: what is missing, late, twice or out of order is found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from daemon.demo.ledger import Ledger, judge

START = datetime(2026, 1, 1, tzinfo=UTC)


class Stopped:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Request:
    event_id: str
    after_s: float
    accepted: bool = True

    @property
    def at(self) -> datetime:
        return START + timedelta(seconds=self.after_s)


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger(Stopped())
    for event, session in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("a3", "a")):
        with ledger.writing(event, session):
            pass
    return ledger


def test_all_well(ledger: Ledger) -> None:
    judgement = judge(ledger, [Request("a1", 1), Request("a2", 2), Request("b1", 3), Request("a3", 4)])
    assert (judgement.written, judgement.delivered, judgement.missing, judgement.out_of_order) == (4, 4, [], [])
    assert judgement.latencies_s == [1, 2, 3, 4]
    assert (judgement.latency_s(0.5), judgement.latency_s(0.99)) == (3, 4)


def test_what_is_missing_is_named_even_when_it_was_tried(ledger: Ledger) -> None:
    judgement = judge(ledger, [Request("a1", 1), Request("a2", 2, accepted=False), Request("b1", 3)])
    assert judgement.missing == ["a2", "a3"]
    assert judgement.failed_requests == 1
    assert judgement.retried == 0


def test_an_event_after_a_later_one_of_its_session_is_out_of_order(ledger: Ledger) -> None:
    judgement = judge(ledger, [Request("a1", 1), Request("a3", 2), Request("a2", 3), Request("b1", 4)])
    assert judgement.out_of_order == ["a2"]
    assert judgement.missing == []


def test_retries_duplicates_and_strangers_are_counted(ledger: Ledger) -> None:
    requests = [Request("a1", 1, accepted=False), Request("a1", 2), Request("a1", 3), Request("x", 4), Request("b1", -1)]
    judgement = judge(ledger, requests)
    assert (judgement.retried, judgement.failed_requests, judgement.duplicates, judgement.strangers) == (1, 1, 1, ["x"])
    assert judgement.latencies_s == [0, 2], "an event can arrive before its writer hears of the acknowledgement"


def test_an_event_whose_write_failed_is_not_owed_but_known(ledger: Ledger) -> None:
    with pytest.raises(ConnectionError), ledger.writing("b2", "b"):
        raise ConnectionError
    judgement = judge(ledger, [Request(event, 1) for event in ("a1", "a2", "a3", "b1", "b2")])
    assert (judgement.written, judgement.missing, judgement.strangers) == (4, [], [])


def test_nothing_written_is_nothing_to_judge() -> None:
    judgement = judge(Ledger(Stopped()), [])
    assert (judgement.written, judgement.missing, judgement.latency_s(0.99)) == (0, [], 0.0)
