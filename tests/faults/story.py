"""What went wrong in a run, as short as it can be told: the faults, and the history of the event in question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults.evidence import Evidence, Request, Violation
from tests.faults.plan import RunPlan

_MOST_STORIES = 3
_MOST_VIOLATIONS = 20


def tell(plan: RunPlan, evidence: Evidence, violations: Sequence[Violation], kept: Path, command: str) -> str:
    """The text of a failed run."""
    lines = [f"seed {plan.seed} broke {len(violations)} promises. Again: {command}", f"kept in {kept}"]
    for found in violations[:_MOST_VIOLATIONS]:
        about = " ".join(part for part in (found.endpoint, found.event_id, found.text) if part)
        lines.append(f"  {found.kind}: {about}")
    events = list(dict.fromkeys(found.event_id for found in violations if found.event_id))[:_MOST_STORIES]
    begun = min((at for at, _ in evidence.moments), default=0.0)
    for event_id in events:
        lines.append(f"the story of {event_id}, seconds since the run began:")
        lines += [f"  {at - begun:8.3f}  {text}" for at, text in sorted(_moments(evidence, event_id))]
        lines += [f"            {text}" for text in _records(evidence, event_id)]
    if not events:
        lines.append("what happened, seconds since the run began:")
        lines += [f"  {at - begun:8.3f}  {text}" for at, text in sorted(_moments(evidence, ""))]
    return "\n".join(lines)


def _moments(evidence: Evidence, event_id: str) -> Iterator[tuple[float, str]]:
    yield from evidence.moments
    for ending in evidence.endings:
        yield ending.at, f"the relay was {ending.how}"
    written = evidence.written.get(event_id)
    if written is not None:
        for other in evidence.written.values():
            if other.session == written.session and abs(other.place - written.place) <= 1 and other.at is not None:
                yield other.at, f"written and acknowledged: {'this event' if other is written else other.event_id}"
    for request in evidence.requests:
        if request.event_id == event_id:
            yield request.arrived, f"{request.endpoint} got attempt {request.attempt}: {_receipt(request)}"


def _records(evidence: Evidence, event_id: str) -> Iterator[str]:
    for attempt in evidence.attempts:
        if attempt.event_id == event_id:
            what = attempt.status if attempt.outcome == "answered" else attempt.error or ""
            verdict = evidence.verdicts.get((attempt.endpoint, event_id, attempt.number), "")
            yield f"recorded for {attempt.endpoint}: attempt {attempt.number} {attempt.outcome} {what} {verdict}".rstrip()
    for row in evidence.rows:
        if row.event_id == event_id:
            yield f"in the outbox for {row.endpoint}: {row.state} {row.reason or ''}".rstrip()


def _receipt(request: Request) -> str:
    done = "accepted" if request.accepted else "not accepted"
    return f"{done}, answered {request.status if request.status is not None else 'nothing that is HTTP'}"
