"""Who writes what when: the traffic as plain data, decided before anything is written, the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from enum import Enum, auto

from daemon.demo.texts import CHANNEL, CONVERSATIONS, FILES, OFFLINE, Conversation, OfflineMessage

_FILES = tuple(FILES)


class Action(Enum):
    """What happens in a session; each but `SAVE_INFO` is one event that must arrive."""

    OPEN = auto()
    VISITOR_TEXT = auto()
    AGENT_TEXT = auto()
    VISITOR_FILE = auto()
    AGENT_FILE = auto()
    TAKE = auto()
    VISITOR_EDIT = auto()
    AGENT_EDIT = auto()
    SAVE_INFO = auto()
    AGENT_CLOSE = auto()
    VISITOR_CLOSE = auto()


@dataclass(frozen=True, slots=True)
class Step:
    """One action, `at_s` seconds after the traffic began at the earliest.

    `text` is what is said, the file's name, the topic or the closing comment; an edit corrects the last message to it.
    """

    at_s: float
    action: Action
    text: str = ""


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """A session from the visitor's registration to its close, unless it is left open on purpose."""

    number: int
    conversation: Conversation
    agent: int
    department: int | None
    steps: tuple[Step, ...]
    left_open: bool

    @property
    def events(self) -> int:
        """How many events must arrive: one for each step but the saving of information, for the opening two (begun, queued)."""
        return sum({Action.SAVE_INFO: 0, Action.OPEN: 2}.get(step.action, 1) for step in self.steps)


@dataclass(frozen=True, slots=True)
class OfflinePlan:
    """One offline message, for a department or for the company."""

    at_s: float
    message: OfflineMessage
    department: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """All that will be written; `noise` are texts in channels that must not lead to events."""

    sessions: tuple[SessionPlan, ...]
    offline: tuple[OfflinePlan, ...]
    noise: tuple[Step, ...]

    @property
    def events(self) -> int:
        """How many events must arrive."""
        return sum(session.events for session in self.sessions) + len(self.offline)


@dataclass(frozen=True, slots=True)
class Traffic:
    """How much is written and how fast. With `seconds` 0 nothing is paced: as fast as MongoDB takes it."""

    sessions: int = 12
    seconds: float = 0.0
    session_seconds: tuple[float, float] = (6.0, 14.0)
    messages: tuple[int, int] = (4, 7)
    offline: int = 3
    noise: int = 10
    left_open_every: int = 6
    at_once: int = 100
    seed: int = 7

    def at_rate(self, events_per_second: float) -> Traffic:
        """The same traffic, stretched to this mean rate."""
        return replace(self, seconds=make_plan(self).events / events_per_second)


def make_plan(traffic: Traffic) -> Plan:
    """The plan for `traffic`; equal for equal traffic."""
    chance = _chance(traffic.seed, "rest")
    return Plan(
        sessions=tuple(_session(traffic, number) for number in range(traffic.sessions)),
        offline=tuple(
            OfflinePlan(_share(traffic, n, traffic.offline), OFFLINE[n % len(OFFLINE)], (None, 0, 1)[n % 3])
            for n in range(traffic.offline)
        ),
        noise=tuple(
            Step(_share(traffic, n, traffic.noise), Action.AGENT_TEXT, chance.choice(CHANNEL)) for n in range(traffic.noise)
        ),
    )


def _chance(*seed: object) -> random.Random:
    return random.Random(repr(seed))  # noqa: S311  (traffic that can be repeated; nothing secret comes from it)


def _share(traffic: Traffic, number: int, of: int) -> float:
    return traffic.seconds * (number + 0.5) / of


def _session(traffic: Traffic, number: int) -> SessionPlan:
    chance = _chance(traffic.seed, number)
    left_open = traffic.left_open_every > 0 and number % traffic.left_open_every == traffic.left_open_every - 1
    conversation = CONVERSATIONS[(number + traffic.seed) % len(CONVERSATIONS)]
    actions = _actions(number, conversation, chance.randint(*traffic.messages), left_open=left_open)
    length = min(chance.uniform(*traffic.session_seconds), traffic.seconds)
    # The first sessions begin at once, so that there is something to see, the last ones end with the traffic.
    room = max(0.0, traffic.seconds - length)
    begin = room * number / max(1, traffic.sessions - 1)
    moments = [begin, *sorted(begin + length * chance.random() for _ in actions[2:]), begin + length]
    steps = tuple(Step(at_s, action, text) for at_s, (action, text) in zip(moments, actions, strict=True))
    return SessionPlan(
        number=number,
        conversation=conversation,
        agent=number % 3,
        department=(None, 0, 1)[number % 3],
        steps=steps,
        left_open=left_open,
    )


def _actions(number: int, talk: Conversation, messages: int, *, left_open: bool) -> list[tuple[Action, str]]:
    """The session's actions in order; files, edits and topics go round by number, so that few sessions show them all."""
    said = [line.split(":", 1) for line in talk.lines]
    said = [said[n if n < len(said) else 2 + n % (len(said) - 2)] for n in range(max(2, messages))]
    actions: list[tuple[Action, str]] = [(Action.OPEN, "")]
    taken = False
    for place, (who, text) in enumerate(said):
        if who == "a" and not taken:
            actions.append((Action.TAKE, ""))
            taken = True
        speaks, edits = (Action.VISITOR_TEXT, Action.VISITOR_EDIT) if who == "v" else (Action.AGENT_TEXT, Action.AGENT_EDIT)
        if (number + place) % 5 == 2:
            actions += [(speaks, _mistyped(text)), (edits, text)]
        else:
            actions.append((speaks, text))
        if place == 1 and number % 3 == 0:
            actions.append((Action.VISITOR_FILE, _FILES[number % len(_FILES)]))
        if taken and place == len(said) - 1 and number % 4 == 1:
            actions.append((Action.AGENT_FILE, _FILES[(number + 2) % len(_FILES)]))
    if not taken:
        actions.append((Action.TAKE, ""))
    if number % 2 == 0:
        actions.append((Action.SAVE_INFO, talk.subject))
    actions.append((Action.VISITOR_TEXT, talk.thanks))
    if not left_open:
        actions.append((Action.VISITOR_CLOSE, "") if number % 3 == 2 else (Action.AGENT_CLOSE, talk.subject))
    return actions


def _mistyped(text: str) -> str:
    """The text with two letters swapped in its middle."""
    middle = len(text) // 2
    return text[: middle - 1] + text[middle : middle + 1] + text[middle - 1 : middle] + text[middle + 1 :]
