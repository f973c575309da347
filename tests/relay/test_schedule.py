"""The retry rule, row by row."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.model import Answered, Dead, Delivered, Outcome, RetryAt, TimedOut, Unreachable
from daemon.relay.schedule import RetryPolicy, decide, describe
from tests.clocks import START

AGAIN = RetryAt(START + timedelta(seconds=10))
GUIDE = RetryPolicy()

FAILING = [
    pytest.param(Answered(100, b"", 0.1), "answered 100", id="100"),
    pytest.param(Answered(201, b"", 0.1), "answered 201", id="201"),
    pytest.param(Answered(202, b"", 0.1), "answered 202", id="202"),
    pytest.param(Answered(204, b"", 0.1), "answered 204", id="204"),
    pytest.param(Answered(206, b"", 0.1), "answered 206", id="206"),
    pytest.param(Answered(301, b"", 0.1), "answered 301", id="301"),
    pytest.param(Answered(307, b"", 0.1), "answered 307", id="307"),
    pytest.param(Answered(400, b"", 0.1), "answered 400", id="400"),
    pytest.param(Answered(410, b"", 0.1), "answered 410", id="410"),
    pytest.param(Answered(429, b"", 0.1), "answered 429", id="429"),
    pytest.param(Answered(500, b"", 0.1), "answered 500", id="500"),
    pytest.param(Answered(503, b"", 0.1), "answered 503", id="503"),
    pytest.param(TimedOut(20.04), "no answer within 20.0 s", id="time-out"),
    pytest.param(Unreachable("ClientConnectorError: refused", 0.1), "ClientConnectorError: refused", id="unreachable"),
]


@pytest.mark.parametrize(("outcome", "words"), FAILING)
@pytest.mark.parametrize("failures", [0, 1, 8], ids=["first try", "second try", "ninth try"])
def test_anything_but_200_is_tried_again_ten_seconds_later(outcome: Outcome, words: str, failures: int) -> None:
    assert decide(outcome, failures=failures, policy=GUIDE, now=START) == AGAIN


@pytest.mark.parametrize(("outcome", "words"), FAILING)
@pytest.mark.parametrize("failures", [9, 10, 500], ids=["tenth try", "eleventh try", "after tries was made smaller"])
def test_the_tenth_failure_is_the_last(outcome: Outcome, words: str, failures: int) -> None:
    verdict = decide(outcome, failures=failures, policy=GUIDE, now=START)
    assert verdict == Dead(f"{failures + 1} tries failed, the last one: {words}")


@pytest.mark.parametrize("failures", [0, 8, 9, 100])
def test_200_is_delivered_on_any_try(failures: int) -> None:
    assert decide(Answered(200, b"anything", 19.9), failures=failures, policy=GUIDE, now=START) == Delivered()


@pytest.mark.parametrize(("outcome", "words"), FAILING)
def test_outcomes_in_words(outcome: Outcome, words: str) -> None:
    assert describe(outcome) == words


def test_one_try_is_one_request() -> None:
    policy = RetryPolicy(tries=1)
    assert isinstance(decide(TimedOut(1), failures=0, policy=policy, now=START), Dead)
    assert decide(Answered(200, b"", 1), failures=0, policy=policy, now=START) == Delivered()


@given(tries=st.integers(1, 1000), wait_s=st.integers(1, 86_400), status=st.integers(100, 599).filter(lambda code: code != 200))
def test_an_event_gets_exactly_its_tries(tries: int, wait_s: int, status: int) -> None:
    policy = RetryPolicy(tries, timedelta(seconds=wait_s))
    outcome = Answered(status, b"", 0.1)
    verdicts = [decide(outcome, failures=failures, policy=policy, now=START) for failures in range(tries)]
    assert verdicts[:-1] == [RetryAt(START + timedelta(seconds=wait_s))] * (tries - 1)
    assert isinstance(verdicts[-1], Dead)
