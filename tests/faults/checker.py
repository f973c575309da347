"""Judges a run. Pure: evidence in, violations out."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import orjson

from tests.faults.evidence import Attempt, Evidence, Request, Row, Violation, by_event

_TOKEN = re.compile(rb"([?&]token=)[A-Za-z0-9_.-]+")
_ON_THE_WAY_S = 1.0  # how long a request may travel; it arrives also when its sender is gone
_SETTLE_S = 5.0  # how long the relay may take from an answer to the commit that settles it


@dataclass(slots=True)
class Duplicates:
    """Requests that were accepted again, by why: `at_a_kill` in flight when the process ended, `answer_lost` on the way back."""

    at_a_kill: int = 0
    answer_lost: int = 0


@dataclass(slots=True)
class Verdict:
    """What came of a run."""

    violations: list[Violation] = field(default_factory=list)
    duplicates: Duplicates = field(default_factory=Duplicates)
    dead: int = 0


def judge(evidence: Evidence) -> Verdict:
    """All checks."""
    found = Verdict()
    found.violations += _missing(evidence)
    found.violations += _strangers(evidence)
    found.violations += _changed_bodies(evidence)
    found.violations += _disorder(evidence)
    found.violations += _record(evidence)
    found.violations += _duplicates(evidence, found.duplicates)
    found.violations += _rounds(evidence)
    found.violations += _dead(evidence)
    found.violations += _transcripts(evidence)
    found.violations += [Violation("odd rows", text) for text in evidence.odd]
    found.dead = sum(row.state == "dead" for row in evidence.rows)
    return found


def without_tokens(body: bytes) -> bytes:
    """A body without what belongs to one attempt only: the tokens in links to files."""
    return _TOKEN.sub(rb"\1", body)


def _missing(evidence: Evidence) -> Iterator[Violation]:
    """What MongoDB acknowledged is accepted by every endpoint, or dead there."""
    accepted = {(request.endpoint, request.event_id) for request in evidence.requests if request.accepted}
    states = {(row.endpoint, row.event_id): row.state for row in evidence.rows}
    for endpoint in evidence.rules:
        for written in evidence.written.values():
            key = (endpoint, written.event_id)
            state = states.get(key)
            if key not in accepted and state != "dead" and (written.at is not None or state is not None):
                yield Violation("missing", f"written, never accepted, in the outbox {state or 'not known'}", *key)
            elif key in accepted and state not in ("delivered", "dead"):
                yield Violation("missing", f"accepted, in the outbox {state or 'not known'}", *key)


def _strangers(evidence: Evidence) -> Iterator[Violation]:
    """Nothing arrives that nobody wrote, and nothing twice under two ids."""
    of_body: dict[tuple[str, bytes], str] = {}
    for (endpoint, event_id), requests in by_event(evidence.requests).items():
        body = without_tokens(requests[0].body)
        first = of_body.setdefault((endpoint, body), event_id)
        if first != event_id:
            yield Violation("another id", f"the same happening as {first}", endpoint, event_id)
        elif event_id not in evidence.written:
            yield Violation("stranger", "nobody wrote this event", endpoint, event_id)
    known = {(request.endpoint, request.event_id) for request in evidence.requests}
    for row in evidence.rows:
        if row.event_id not in evidence.written and (row.endpoint, row.event_id) not in known:
            yield Violation("stranger", f"in the outbox, but nobody wrote it: {row.state}", row.endpoint, row.event_id)


def _changed_bodies(evidence: Evidence) -> Iterator[Violation]:
    for key, requests in by_event(evidence.requests).items():
        bodies = {without_tokens(request.body) for request in requests}
        if len(bodies) > 1:
            yield Violation("changed body", f"{len(bodies)} bodies in {len(requests)} tries", *key)


def _disorder(evidence: Evidence) -> Iterator[Violation]:
    """In a session no request of an event comes after one of a later event, and none before the earlier ones are settled."""
    furthest: dict[tuple[str, str], Request] = {}
    accepted: dict[tuple[str, str], set[str]] = defaultdict(set)
    states = {(row.endpoint, row.event_id): row.state for row in evidence.rows}
    for request in evidence.requests:
        written = evidence.written.get(request.event_id)
        if written is None:
            continue
        lane = (request.endpoint, written.session)
        last = furthest.get(lane)
        if last is not None and written.place < evidence.written[last.event_id].place:
            text = f"attempt {request.attempt} came after {last.event_id}, which happened later"
            yield Violation("order", text, request.endpoint, request.event_id)
        elif last is not None and last.event_id != request.event_id:
            if request.sequence <= last.sequence:
                text = f"its sequence {request.sequence} is not above {last.sequence} of {last.event_id}"
                yield Violation("order", text, request.endpoint, request.event_id)
            if last.event_id not in accepted[lane] and states.get((request.endpoint, last.event_id)) != "dead":
                yield Violation("order", f"came before {last.event_id} was accepted", request.endpoint, request.event_id)
        furthest[lane] = request
        if request.accepted:
            accepted[lane].add(request.event_id)


def _record(evidence: Evidence) -> Iterator[Violation]:
    """The record of attempts says what the receiver saw, and no attempt is sent twice."""
    recorded = {(attempt.endpoint, attempt.event_id, attempt.number): attempt for attempt in evidence.attempts}
    got: dict[tuple[str, str, int], Request] = {}
    for request in evidence.requests:
        key = (request.endpoint, request.event_id, request.attempt)
        if key in got:
            yield Violation("record", f"attempt {request.attempt} came twice", *key[:2])
        got[key] = request
        if key not in recorded:
            yield Violation("record", f"attempt {request.attempt} is not in the record", *key[:2])
    for key, attempt in recorded.items():
        counterpart = got.get(key)
        if attempt.outcome == "answered" and (counterpart is None or counterpart.status != attempt.status):
            seen = "no request" if counterpart is None else f"an answer of {counterpart.status}"
            yield Violation("record", f"attempt {key[2]} is recorded as answered {attempt.status}, there was {seen}", *key[:2])
    for row in evidence.rows:
        last = recorded.get((row.endpoint, row.event_id, row.attempts))
        if row.state == "delivered" and (last is None or last.outcome != "answered" or last.status != 200):
            yield Violation("record", "delivered, but its last attempt was not answered 200", row.endpoint, row.event_id)


def _duplicates(evidence: Evidence, count: Duplicates) -> Iterator[Violation]:
    """Every request after an accepted one has a reason: the process ended before it could settle it, or the answer was lost."""
    recorded = {(attempt.endpoint, attempt.event_id, attempt.number): attempt for attempt in evidence.attempts}
    at_ending: Counter[tuple[str, float]] = Counter()
    for key, requests in by_event(evidence.requests).items():
        for request, following in pairwise(requests):
            if not request.accepted:
                continue
            attempt = recorded.get((*key, request.attempt))
            if attempt is None:
                continue  # is a violation of its own
            if attempt.outcome == "interrupted":
                ending = _ending_between(evidence, request, following)
                if ending is None:
                    text = (
                        f"attempt {request.attempt} was accepted and settled in peace, and yet attempt {following.attempt} came"
                    )
                    yield Violation("duplicate", text, *key)
                    continue
                count.at_a_kill += 1
                at_ending[key[0], ending] += 1
            elif attempt.outcome in ("timeout", "unreachable") and _answer_lost(evidence, request, following):
                count.answer_lost += 1
            else:
                text = f"attempt {request.attempt} was accepted, recorded as {_outcome(attempt)}, and yet attempt"
                yield Violation("duplicate", f"{text} {following.attempt} came", *key)
    for (endpoint, at), number in at_ending.items():
        if number > evidence.rules[endpoint].concurrency:
            how = next(ending.how for ending in evidence.endings if ending.at == at)
            text = f"{number} duplicates of one end ({how}), more than the {evidence.rules[endpoint].concurrency} in flight"
            yield Violation("duplicate", text, endpoint)


def _ending_between(evidence: Evidence, request: Request, following: Request) -> float | None:
    """When the process ended that could not settle `request`: soon after its answer, but for times in which it stood still."""
    for ending in evidence.endings:
        if not ending.cuts_off or not request.arrived - _ON_THE_WAY_S <= ending.at <= following.arrived:
            continue
        answered = request.answered or request.arrived
        stood_still = sum(min(found.end, ending.at) - found.begin for found in evidence.disturbances if found.begin < ending.at)
        if ending.at - answered <= _SETTLE_S + max(0.0, stood_still):
            return ending.at
    return None


def _answer_lost(evidence: Evidence, request: Request, following: Request) -> bool:
    return request.answer_spoilt or evidence.disturbed(request.endpoint, request.arrived, following.arrived)


def _rounds(evidence: Evidence) -> Iterator[Violation]:
    """No round has more failed tries than `tries`. A round ends when the event is suspended; probes belong to none."""
    for row, attempts in _histories(evidence):
        most = evidence.rules[row.endpoint].tries
        failed, probing = 0, False
        for attempt in attempts:
            if not attempt.failed:
                continue
            verdict = evidence.verdicts.get((row.endpoint, row.event_id, attempt.number))
            if verdict == "suspended":
                failed = failed if probing else failed + 1
                if not probing and failed < most:
                    # The head of a lane may be a probe before it ever had a round of its own.
                    failed = 0
                probing = True
            elif verdict is None and probing:
                continue  # the log lost this line with the process
            else:
                failed = 1 if probing else failed + 1
                probing = False
            if failed > most:
                yield Violation("tries", f"{failed} failed tries in a round, {most} allowed", row.endpoint, row.event_id)
                break
            if failed == most and verdict is None:
                probing = True
        if row.failures > most:
            yield Violation("tries", f"{row.failures} failures are counted, {most} allowed", row.endpoint, row.event_id)


def _dead(evidence: Evidence) -> Iterator[Violation]:
    """Dead is only what a receiver refused: `tries` times while it took others, or for good."""
    for row, attempts in _histories(evidence):
        if row.state != "dead":
            continue
        rules = evidence.rules[row.endpoint]
        failed = [attempt for attempt in attempts if attempt.failed]
        poisoned = (row.endpoint, row.session) in evidence.poisoned
        last = failed[-1] if failed else None
        if poisoned and last is not None and last.status in rules.final:
            continue
        if last is None or row.failures != rules.tries or len(failed) < rules.tries:
            yield Violation(
                "dead", f"after {row.failures} failed tries of {rules.tries}: {row.reason}", row.endpoint, row.event_id
            )
        elif not poisoned and not _others_succeeded(evidence, row, failed[-rules.tries], last):
            yield Violation("dead", f"its endpoint took nothing else meanwhile: {row.reason}", row.endpoint, row.event_id)


def _others_succeeded(evidence: Evidence, row: Row, first: Attempt, last: Attempt) -> bool:
    """Whether the endpoint took something between the first and the last try of a round; what never arrived has no time."""
    mine = [request for request in evidence.requests if (request.endpoint, request.event_id) == (row.endpoint, row.event_id)]
    begin = max((request.arrived for request in mine if request.attempt < first.number), default=0.0)
    end = min((request.arrived for request in mine if request.attempt >= last.number), default=float("inf"))
    return any(
        request.endpoint == row.endpoint and request.status == 200 and begin <= request.arrived <= end
        for request in evidence.requests
    )


def _transcripts(evidence: Evidence) -> Iterator[Violation]:
    """The event of a closed session has every message that was written before it."""
    for (endpoint, event_id), requests in by_event(evidence.requests).items():
        closed = evidence.written.get(event_id)
        if closed is None or not event_id.startswith("LivechatSession:"):
            continue
        payload = orjson.loads(requests[0].body)
        told = {message.get("_id") for message in payload.get("messages") or ()}
        for written in evidence.written.values():
            if written.session == closed.session and written.event_id.startswith("Message:") and written.at is not None:
                message = written.event_id.split(":")[1]
                if message not in told:
                    yield Violation("transcript", f"lacks the message {message}", endpoint, event_id)


def _histories(evidence: Evidence) -> Iterator[tuple[Row, list[Attempt]]]:
    attempts: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
    for attempt in sorted(evidence.attempts, key=lambda found: found.number):
        attempts[attempt.endpoint, attempt.event_id].append(attempt)
    for row in evidence.rows:
        yield row, attempts[row.endpoint, row.event_id]


def _outcome(attempt: Attempt) -> str:
    return f"answered {attempt.status}" if attempt.outcome == "answered" else attempt.outcome
