"""The checker sees every kind of violation: each test breaks one thing in the evidence of a run that is fine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from tests.faults.checker import judge
from tests.faults.evidence import Attempt, Disturbance, Ending, Evidence, Request, Row, Rules, Violation, Written
from tests.faults.plan import make_plan
from tests.faults.story import tell

START, MESSAGE, CLOSE, OTHER = "LivechatSessionStart:r", "Message:m", "LivechatSession:r:9", "LivechatSessionStart:s"
BODIES = {
    START: {"type": "LivechatSessionStart", "_id": "r"},
    MESSAGE: {"type": "Message", "_id": "r", "messages": [{"_id": "m", "file": "http://x/f?token=a.b.c"}]},
    CLOSE: {"type": "LivechatSession", "_id": "r", "messages": [{"_id": "m"}]},
    OTHER: {"type": "LivechatSessionStart", "_id": "s"},
}


def request(event_id: str, at: float, attempt: int = 1, *, status: int | None = 200, **more: object) -> Request:
    sequence = list(BODIES).index(event_id) + 1 if event_id in BODIES else 9
    body = orjson.dumps(BODIES.get(event_id, {"type": event_id}))
    made = Request("crm", event_id, attempt, sequence, body, at, status, status == 200, at)
    return replace(made, **more)  # type: ignore[arg-type]


def attempt(event_id: str, number: int = 1, status: int | None = 200, outcome: str = "answered") -> Attempt:
    return Attempt("crm", event_id, number, outcome, status, None)


def fine() -> Evidence:
    """Three events of one session and one of another, each accepted at its first try."""
    return Evidence(
        rules={"crm": Rules(tries=3, concurrency=2, timeout_s=1.0, final=(410,))},
        written={
            START: Written(START, "r", 0, 1.0),
            MESSAGE: Written(MESSAGE, "r", 1, 2.0),
            CLOSE: Written(CLOSE, "r", 2, 3.0),
            OTHER: Written(OTHER, "s", 0, 1.0),
        },
        requests=[request(START, 11), request(MESSAGE, 12), request(CLOSE, 13), request(OTHER, 30)],
        rows=[Row("crm", event, "s" if event == OTHER else "r", "delivered", 1, 0, None) for event in BODIES],
        attempts=[attempt(event) for event in BODIES],
    )


def tried_twice(evidence: Evidence, event: str, first: Request, record: Attempt) -> None:
    """`event` got a first try before the one that succeeded."""
    place = next(index for index, found in enumerate(evidence.requests) if found.event_id == event)
    evidence.requests[place].attempt = 2
    evidence.requests.insert(place, first)
    evidence.attempts = [found for found in evidence.attempts if found.event_id != event] + [record, attempt(event, 2)]
    set_row(evidence, event, attempts=2)


def set_row(evidence: Evidence, event: str, **changes: object) -> None:
    evidence.rows = [replace(row, **changes) if row.event_id == event else row for row in evidence.rows]  # type: ignore[arg-type]


def make_dead(evidence: Evidence, event: str, statuses: list[int], begin: float = 21.0) -> None:
    evidence.requests = [found for found in evidence.requests if found.event_id != event]
    evidence.requests += [request(event, begin + n / 10, n + 1, status=status) for n, status in enumerate(statuses)]
    evidence.requests.sort(key=lambda found: found.arrived)
    evidence.attempts = [found for found in evidence.attempts if found.event_id != event]
    evidence.attempts += [attempt(event, n + 1, status) for n, status in enumerate(statuses)]
    set_row(evidence, event, state="dead", attempts=len(statuses), failures=len(statuses), reason="refused")


def never_sent(evidence: Evidence) -> None:
    evidence.requests = [found for found in evidence.requests if found.event_id != OTHER]
    evidence.attempts = [found for found in evidence.attempts if found.event_id != OTHER]
    evidence.rows = [row for row in evidence.rows if row.event_id != OTHER]


def uncertain_event_lost_on_the_way(evidence: Evidence) -> None:
    never_sent(evidence)
    evidence.written[OTHER] = replace(evidence.written[OTHER], at=None)
    evidence.rows.append(Row("crm", OTHER, "s", "skipped", 0, 0, None))


def unknown_event(evidence: Evidence) -> None:
    del evidence.written[OTHER]


def unknown_row(evidence: Evidence) -> None:
    evidence.rows.append(Row("crm", "Change:1", "x", "skipped", 0, 0, "odd"))


def two_ids(evidence: Evidence) -> None:
    evidence.requests.append(request("Message:twin", 40, body=evidence.requests[1].body))
    evidence.attempts.append(attempt("Message:twin"))


def other_body(evidence: Evidence) -> None:
    first = request(OTHER, 29, status=500, body=b'{"_id": "s", "other": 1}')
    tried_twice(evidence, OTHER, first, attempt(OTHER, 1, 500))


def wrong_order(evidence: Evidence) -> None:
    evidence.requests[0], evidence.requests[1] = evidence.requests[1], evidence.requests[0]


def too_early(evidence: Evidence) -> None:
    evidence.requests[0] = request(START, 11, status=500)
    evidence.attempts[0] = attempt(START, 1, 500)


def sequence_falls(evidence: Evidence) -> None:
    evidence.requests[2].sequence = 1


def attempt_twice(evidence: Evidence) -> None:
    evidence.requests.append(request(OTHER, 31))


def attempt_unrecorded(evidence: Evidence) -> None:
    evidence.requests.insert(3, request(OTHER, 29, 7, status=500))


def false_record(evidence: Evidence) -> None:
    evidence.attempts[0] = attempt(START, 1, 503)


def sent_after_success(evidence: Evidence) -> None:
    tried_twice(evidence, OTHER, request(OTHER, 29), attempt(OTHER))


def interrupted_without_end(evidence: Evidence) -> None:
    tried_twice(evidence, OTHER, request(OTHER, 29), attempt(OTHER, 1, None, "interrupted"))
    evidence.endings.append(Ending(29.5, "terminated", cuts_off=False))


def interrupted_long_after(evidence: Evidence) -> None:
    tried_twice(evidence, OTHER, request(OTHER, 10), attempt(OTHER, 1, None, "interrupted"))
    evidence.endings.append(Ending(29.5, "killed", cuts_off=True))


def lost_for_no_reason(evidence: Evidence) -> None:
    tried_twice(evidence, OTHER, request(OTHER, 29), attempt(OTHER, 1, None, "unreachable"))
    evidence.disturbances.append(Disturbance("receiver_close", 20, 28, "crm"))
    evidence.disturbances.append(Disturbance("receiver_close", 20, 40, "archive"))


def more_than_in_flight(evidence: Evidence) -> None:
    evidence.endings.append(Ending(39, "killed", cuts_off=True))
    for number in range(3):
        event = f"LivechatSessionStart:{number}"
        evidence.written[event] = Written(event, str(number), 0, 1.0)
        evidence.requests += [request(event, 38), request(event, 41, 2)]
        evidence.attempts += [attempt(event, 1, None, "interrupted"), attempt(event, 2)]
        evidence.rows.append(Row("crm", event, str(number), "delivered", 2, 0, None))
    evidence.requests.sort(key=lambda found: found.arrived)


def too_many_tries(evidence: Evidence) -> None:
    make_dead(evidence, OTHER, [500] * 4)
    evidence.poisoned.add(("crm", "s"))


def too_many_failures(evidence: Evidence) -> None:
    set_row(evidence, OTHER, failures=4)


def dead_too_early(evidence: Evidence) -> None:
    make_dead(evidence, OTHER, [500, 500])
    evidence.poisoned.add(("crm", "s"))


def dead_in_an_outage(evidence: Evidence) -> None:
    make_dead(evidence, OTHER, [500, 500, 500])
    for found in evidence.requests[:3]:
        found.arrived += 50  # others succeed only afterwards


def transcript_with_a_gap(evidence: Evidence) -> None:
    evidence.requests[2].body = b'{"_id": "r", "messages": []}'


def odd_rows(evidence: Evidence) -> None:
    evidence.odd.append("lanes: ('crm', 'r', 1)")


Break = Callable[[Evidence], None]
BREAKS: list[tuple[Break, str]] = [
    (never_sent, "missing"),
    (uncertain_event_lost_on_the_way, "missing"),
    (unknown_event, "stranger"),
    (unknown_row, "stranger"),
    (two_ids, "another id"),
    (other_body, "changed body"),
    (wrong_order, "order"),
    (too_early, "order"),
    (sequence_falls, "order"),
    (attempt_twice, "record"),
    (attempt_unrecorded, "record"),
    (false_record, "record"),
    (sent_after_success, "duplicate"),
    (interrupted_without_end, "duplicate"),
    (interrupted_long_after, "duplicate"),
    (lost_for_no_reason, "duplicate"),
    (more_than_in_flight, "duplicate"),
    (too_many_tries, "tries"),
    (too_many_failures, "tries"),
    (dead_too_early, "dead"),
    (dead_in_an_outage, "dead"),
    (transcript_with_a_gap, "transcript"),
    (odd_rows, "odd rows"),
]


@pytest.mark.parametrize(("break_it", "kind"), BREAKS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_violation_is_seen(break_it: Break, kind: str) -> None:
    evidence = fine()
    break_it(evidence)
    assert kind in {found.kind for found in judge(evidence).violations}


def uncertain_and_never_seen(evidence: Evidence) -> None:
    never_sent(evidence)
    evidence.written[OTHER] = replace(evidence.written[OTHER], at=None)


def other_file_token(evidence: Evidence) -> None:
    first = request(MESSAGE, 11.5, status=500, body=orjson.dumps(BODIES[MESSAGE]).replace(b"a.b.c", b"d.e-_.f"))
    tried_twice(evidence, MESSAGE, first, attempt(MESSAGE, 1, 500))


def in_flight_at_a_kill(evidence: Evidence) -> None:
    tried_twice(evidence, OTHER, request(OTHER, 29), attempt(OTHER, 1, None, "interrupted"))
    evidence.endings.append(Ending(29.5, "killed", cuts_off=True))


def answer_spoilt(evidence: Evidence) -> None:
    lost = request(OTHER, 29, status=None, accepted=True, answer_spoilt=True)
    tried_twice(evidence, OTHER, lost, attempt(OTHER, 1, None, "unreachable"))


def answer_cut_off(evidence: Evidence) -> None:
    tried_twice(evidence, OTHER, request(OTHER, 29), attempt(OTHER, 1, None, "timeout"))
    evidence.disturbances.append(Disturbance("receiver_link_cut", 28, 29.5, "crm"))


def refused_for_good(evidence: Evidence) -> None:
    make_dead(evidence, OTHER, [410])
    evidence.poisoned.add(("crm", "s"))


def dead_among_successes(evidence: Evidence) -> None:
    make_dead(evidence, OTHER, [500, 500, 500], begin=12.95)


def two_rounds(evidence: Evidence) -> None:
    """Three tries, suspended; two probes; the endpoint is back, two more tries, and it is delivered."""
    statuses = [500] * 7 + [200]
    make_dead(evidence, OTHER, statuses)
    set_row(evidence, OTHER, state="delivered", failures=2, reason=None)
    words = ["retry", "retry", "suspended", "suspended", "suspended", "retry", "retry"]
    evidence.verdicts = {("crm", OTHER, number): verdict for number, verdict in enumerate(words, start=1)}


@pytest.mark.parametrize(
    "happens",
    [
        uncertain_and_never_seen,
        other_file_token,
        in_flight_at_a_kill,
        answer_spoilt,
        answer_cut_off,
        refused_for_good,
        dead_among_successes,
        two_rounds,
    ],
)
def test_what_may_happen_is_no_violation(happens: Break) -> None:
    evidence = fine()
    happens(evidence)
    assert judge(evidence).violations == []


def test_duplicates_are_counted_by_why() -> None:
    evidence = fine()
    in_flight_at_a_kill(evidence)
    lost = request(START, 10, status=None, accepted=True, answer_spoilt=True)
    tried_twice(evidence, START, lost, attempt(START, 1, None, "unreachable"))
    duplicates = judge(evidence).duplicates
    assert (duplicates.at_a_kill, duplicates.answer_lost) == (1, 1)


def test_story_tells_what_happened_to_the_event() -> None:
    evidence = fine()
    evidence.moments = [(0.5, "traffic begins"), (1.5, "relay_kill begins")]
    interrupted_long_after(evidence)
    found = [Violation("duplicate", "came again", "crm", OTHER)]
    story = tell(make_plan(7), evidence, found, Path("/somewhere"), "python -m tests.faults --seeds 7")
    for words in (
        "seed 7 broke 1 promises. Again: python -m tests.faults --seeds 7",
        "kept in /somewhere",
        "duplicate: crm LivechatSessionStart:s came again",
        "1.000  relay_kill begins",
        "0.500  written and acknowledged: this event",
        "29.000  the relay was killed",
        "9.500  crm got attempt 1: accepted, answered 200",
        "recorded for crm: attempt 1 interrupted",
    ):
        assert words in story, story
