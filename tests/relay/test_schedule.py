"""The retry rule, row by row."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.model import Answered, Body, Dead, Delivered, Delivery, Outcome, RetryAt, Suspended, TimedOut, Unreachable, Verdict
from daemon.relay.schedule import RetryPolicy, decide, describe, is_outage
from tests.clocks import START

AGAIN = RetryAt(START + timedelta(seconds=10))
GUIDE = RetryPolicy()
NO_OUTAGE = RetryPolicy(outage=False)
ROUND = START - timedelta(seconds=90)
TRY = Delivery(
    endpoint="crm",
    sequence=1,
    event_id="Message:m1",
    type="Message",
    session="room",
    attempt=1,
    failures=0,
    happened_at=ROUND,
    recorded_at=ROUND,
    round_at=ROUND,
    body=Body(b"{}"),
)


def verdict_on(
    outcome: Outcome,
    *,
    failures: int = 0,
    policy: RetryPolicy = NO_OUTAGE,
    probe: bool = False,
    recorded_at: datetime = ROUND,
    last_success_at: datetime | None = None,
    chance: float = 0.0,
) -> Verdict:
    delivery = TRY._replace(attempt=failures + 1, failures=failures, probe=probe, recorded_at=recorded_at)
    return decide(outcome, delivery, policy, now=START, last_success_at=last_success_at, chance=chance)


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
@pytest.mark.parametrize("policy", [GUIDE, NO_OUTAGE], ids=["can be down", "cannot"])
def test_anything_but_200_is_tried_again_ten_seconds_later(
    outcome: Outcome, words: str, failures: int, policy: RetryPolicy
) -> None:
    assert verdict_on(outcome, failures=failures, policy=policy) == AGAIN


@pytest.mark.parametrize(("outcome", "words"), FAILING)
@pytest.mark.parametrize("failures", [9, 10, 500], ids=["tenth try", "eleventh try", "after tries was made smaller"])
def test_the_tenth_failure_is_the_last(outcome: Outcome, words: str, failures: int) -> None:
    assert verdict_on(outcome, failures=failures) == Dead(f"{failures + 1} tries failed, the last one: {words}")


@pytest.mark.parametrize("failures", [0, 8, 9, 100])
@pytest.mark.parametrize("probe", [False, True], ids=["try", "probe"])
def test_200_is_delivered_on_any_try(failures: int, probe: bool) -> None:
    assert verdict_on(Answered(200, b"anything", 19.9), failures=failures, probe=probe) == Delivered()


@pytest.mark.parametrize(("outcome", "words"), FAILING)
def test_outcomes_in_words(outcome: Outcome, words: str) -> None:
    assert describe(outcome) == words


def test_one_try_is_one_request() -> None:
    policy = RetryPolicy(tries=1, outage=False)
    assert isinstance(verdict_on(TimedOut(1), policy=policy), Dead)
    assert verdict_on(Answered(200, b"", 1), policy=policy) == Delivered()


@given(tries=st.integers(1, 1000), wait_s=st.integers(1, 86_400), status=st.integers(100, 599).filter(lambda code: code != 200))
def test_an_event_gets_exactly_its_tries(tries: int, wait_s: int, status: int) -> None:
    policy = RetryPolicy(tries, (timedelta(seconds=wait_s),), outage=False)
    verdicts = [verdict_on(Answered(status, b"", 0.1), failures=failures, policy=policy) for failures in range(tries)]
    assert verdicts[:-1] == [RetryAt(START + timedelta(seconds=wait_s))] * (tries - 1)
    assert isinstance(verdicts[-1], Dead)


@pytest.mark.parametrize(
    ("policy", "longest_s"),
    [
        pytest.param(GUIDE, 10, id="default"),
        pytest.param(RetryPolicy(waits=(timedelta(seconds=9), timedelta(seconds=3))), 9, id="a list"),
        pytest.param(RetryPolicy(jitter=0.5), 15, id="jitter"),
        pytest.param(RetryPolicy(honour_retry_after=True), 3600, id="Retry-After"),
        pytest.param(RetryPolicy(waits=(timedelta(hours=2),), honour_retry_after=True), 7200, id="longer than Retry-After"),
    ],
)
def test_no_wait_is_longer_than_the_longest(policy: RetryPolicy, longest_s: int) -> None:
    longest = timedelta(seconds=longest_s)
    assert policy.longest_wait == longest
    outcome = Answered(500, b"", 0.1, retry_after="999999")
    for failures in range(5):
        verdict = verdict_on(outcome, failures=failures, policy=policy, chance=1.0)
        assert isinstance(verdict, RetryAt)
        assert verdict.due <= START + longest


OUTAGE = {"429", "500", "503", "time-out", "unreachable"}


@pytest.mark.parametrize(
    ("outcome", "words", "down"), [pytest.param(*row.values, row.id in OUTAGE, id=row.id) for row in FAILING]
)
def test_the_last_try_of_an_endpoint_that_may_be_down_suspends(outcome: Outcome, words: str, down: bool) -> None:
    verdict = Suspended if down else Dead
    assert is_outage(outcome) is down
    assert verdict_on(outcome, failures=9, policy=GUIDE) == verdict(f"10 tries failed, the last one: {words}")


@pytest.mark.parametrize(
    ("last_success_at", "verdict"),
    [
        pytest.param(None, Suspended, id="never"),
        pytest.param(ROUND - timedelta(seconds=1), Suspended, id="before the first try"),
        pytest.param(ROUND + timedelta(seconds=1), Dead, id="since the first try"),
        pytest.param(START, Dead, id="just now"),
        pytest.param(START + timedelta(hours=1), Suspended, id="before the clock was set back"),
    ],
)
def test_an_endpoint_that_took_others_meanwhile_is_not_down(last_success_at: datetime | None, verdict: type[Verdict]) -> None:
    found = verdict_on(Answered(500, b"", 0.1), failures=9, policy=GUIDE, last_success_at=last_success_at)
    assert isinstance(found, verdict)


@pytest.mark.parametrize("failures", [0, 9, 50])
@pytest.mark.parametrize(("outcome", "words"), FAILING)
def test_a_probe_costs_no_try(outcome: Outcome, words: str, failures: int) -> None:
    found = verdict_on(outcome, failures=failures, policy=GUIDE, probe=True)
    assert found == Suspended(f"the endpoint is down: {words}")


@pytest.mark.parametrize("probe", [False, True], ids=["try", "probe"])
@pytest.mark.parametrize(
    ("age", "alive"), [(timedelta(days=3), True), (timedelta(days=3, seconds=1), False)], ids=["at max_age", "beyond"]
)
def test_an_event_that_is_too_old_is_dead(age: timedelta, alive: bool, probe: bool) -> None:
    found = verdict_on(Answered(500, b"", 0.1), policy=GUIDE, recorded_at=START - age, probe=probe)
    assert isinstance(found, Dead) is not alive


@pytest.mark.parametrize("probe", [False, True], ids=["try", "probe"])
def test_a_final_answer_is_dead_at_once(probe: bool) -> None:
    policy = RetryPolicy(final=frozenset({410}))
    assert verdict_on(Answered(410, b"", 0.1), policy=policy, probe=probe) == Dead("answered 410, which is final")
    assert not isinstance(verdict_on(Answered(400, b"", 0.1), policy=policy, probe=probe), Dead)


@pytest.mark.parametrize(("status", "success"), [(199, False), (200, True), (204, True), (299, True), (300, False)])
def test_any_2xx_can_be_a_success(status: int, success: bool) -> None:
    found = verdict_on(Answered(status, b"", 0.1), policy=RetryPolicy(any_2xx=True))
    assert isinstance(found, Delivered) is success


def wait_s(verdict: Verdict) -> float:
    assert isinstance(verdict, RetryAt)
    return (verdict.due - START).total_seconds()


def test_the_last_wait_of_a_list_is_repeated() -> None:
    policy = RetryPolicy(waits=tuple(timedelta(seconds=seconds) for seconds in (1, 5, 60)))
    found = [wait_s(verdict_on(TimedOut(1), failures=failures, policy=policy)) for failures in range(5)]
    assert found == [1, 5, 60, 60, 60]


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 10.0), (0.5, 11.0), (1.0, 12.0)])
def test_jitter_only_adds(chance: float, expected: float) -> None:
    assert wait_s(verdict_on(TimedOut(1), policy=RetryPolicy(jitter=0.2), chance=chance)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("60", 60),
        (" 60 ", 60),
        ("5", 10),
        ("0", 10),
        ("-5", 10),
        ("3600", 3600),
        ("86400", 3600),
        ("9" * 30, 3600),
        ("Mon, 23 Nov 2026 08:01:00 GMT", 60),
        ("Mon, 23 Nov 2026 07:00:00 GMT", 10),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        ("Mon, 23 Nov 2026 08:01:00 -0000", 10),
        ("soon", 10),
        ("1.5", 10),
        ("\u0661\u0662\u0660", 10),
        ("", 10),
        (None, 10),
    ],
    ids=repr,
)
def test_retry_after(text: str | None, expected: float) -> None:
    """At least the own wait, an hour at most; what cannot be read counts as nothing."""
    outcome = Answered(503, b"", 0.1, text)
    assert wait_s(verdict_on(outcome, policy=RetryPolicy(honour_retry_after=True))) == expected
    assert wait_s(verdict_on(outcome)) == 10
