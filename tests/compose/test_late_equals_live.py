"""However the changes are cut into batches, and whatever is restarted between them: the same bytes in the same order, and those
that a plain model of Rocket.Chat sends.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bson.timestamp import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from daemon.compose.documents import AGENT_FIELDS, FILE_TOKENS, NAVIGATION_AS_MESSAGE, NAVIGATION_IN_WEBHOOK, PROTECT_FILES
from daemon.model import Change
from tests.compose.build import START_MS, UPLOADS, Json, Workspace, endpoint
from tests.compose.scenarios import (
    ALICE,
    BRUNO,
    CARLA,
    CAT,
    EVERY_EVENT,
    HELPER,
    MESSAGES,
    ROOMS,
    SALES,
    SUPPORT,
    USERS,
    Agent,
    Chat,
    Guest,
    captured,
    workspace_documents,
)
from tests.compose.sequential_model import BROWSERS, Histories, LabelledTraffic, SequentialModel, Step

PAUSES_S = (0, 0, 0.004, 0.03, 0.2, 1, 5)
LONG_S = 5
ALL_IN_TIME_S = 4  # without any change for so long, nothing waits any more
TEXTS = ("Hello", "Grüße 😀", "", "One\nmore", "my number is 12")
LEADS: tuple[tuple[str, Json], ...] = (
    ("vera@home.test", {"email": "vera@home.test"}),
    ("or second@home.test", {"email": "second@home.test"}),
    ("call 089 12345 6789", {"phone": "12345 6789"}),
)
SAVES: tuple[Json, ...] = (
    {"tags": ["billing"]},
    {"tags": ["vip", "late"], "topic": "Parcel"},
    {"tags": []},
    {"fields": {"order": "1"}},
    {"fields": {"plan": "gold"}, "guest": {"email": "saved@home.test"}},
    {"guest": {"name": "Vera Venus"}},
    {"topic": "Refund", "guest": {"name": "Vera Visitor", "email": "vera@client.test"}},
    {},
)
AGENTS = (ALICE, BRUNO, HELPER)

Move = tuple[int, int, int]
Action = Callable[["Person", Chat, int], None]


@dataclass
class Person:
    """A guest and the chats of the guest, which do one thing after the other."""

    traffic: LabelledTraffic
    number: int
    chats: list[Chat] = field(default_factory=list)
    messages: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    gone: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.guest = Guest(self.traffic, f"guest{self.number}")
        self.guest.register()
        self.guest.touch(userAgent=next(iter(BROWSERS)), ip="203.0.113.7", department=SALES, livechatData={"customer": "C-1"})

    def begin(self, kind: int) -> None:
        """Another chat of the guest."""
        chat = Chat(self.traffic, self.guest, f"room{self.number}{'ab'[len(self.chats)]}", department=(None, SALES)[kind % 2])
        self.chats.append(chat)
        status = ("queued", "ready", "verifying")[kind % 3]
        chat.start(status)
        if status == "verifying":
            self.traffic.pause(0.1)
            chat.verify(("queued", "ready")[kind % 2])

    def act(self, moves: Sequence[Move]) -> None:
        """Do what these moves mean where the chats are by then."""
        for number, (choice, variant, rest) in enumerate(moves):
            self.traffic.pause(PAUSES_S[rest % len(PAUSES_S)])
            self.traffic.action = f"{self.number}.{number}"
            present = [chat for chat in self.chats if chat.id not in self.gone]
            if not present or (len(self.chats) < 2 and choice % 11 == 0):
                if len(self.chats) < 2:
                    self.begin(variant)
                continue
            chat = present[choice % len(present)]
            possible = CLOSED if chat.closed else HELD if chat.id in self.held else SERVED if chat.agent else UNSERVED
            possible[choice % len(possible)](self, chat, variant)

    def other_agent(self, chat: Chat, variant: int) -> Agent:
        others = [agent for agent in AGENTS if agent is not chat.agent]
        return others[variant % len(others)]

    def save(self, chat: Chat, variant: int) -> None:
        self.traffic.pause(0.2)
        self.traffic.action = f"save{self.traffic.number()}"
        saved = SAVES[variant % len(SAVES)]
        guest = {"name": self.guest.name, **saved.get("guest", {})}  # the form always sends the name
        chat.save(("ivn", "inv", "vin")[variant % 3], **{**saved, "guest": guest})
        self.traffic.pause(0.2)


def say(person: Person, chat: Chat, variant: int) -> None:
    person.messages[chat.id].append(chat.say(TEXTS[variant % len(TEXTS)]))


def answer(person: Person, chat: Chat, variant: int) -> None:
    person.messages[chat.id].append(chat.answer(TEXTS[variant % len(TEXTS)], (None, CARLA)[variant % 2]))


def lead(person: Person, chat: Chat, variant: int) -> None:
    text, found = LEADS[variant % len(LEADS)]
    between = (lambda: person.guest.touch(status="away")) if variant > 5 else None
    person.messages[chat.id].append(chat.say(text, lead=found, between=between))


def lead_that_is_never_saved(person: Person, chat: Chat, variant: int) -> None:
    chat.say(LEADS[variant % len(LEADS)][0])
    person.traffic.pause(LONG_S)


def send_file(person: Person, chat: Chat, variant: int) -> None:
    name = f"upload{person.traffic.number()}"
    person.traffic.insert(UPLOADS, {"_id": name, "name": "parcel box.jpg", "type": "image/jpeg", "size": 48213})
    file = {"_id": name, "name": "parcel box.jpg", "type": "image/jpeg"}
    more: Json = {"file": file, "attachments": [{"title": "parcel box.jpg"}]}
    person.messages[chat.id].append(chat.say("", **more) if variant % 2 else chat.answer("", **more))
    if variant % 4 == 0:
        person.traffic.delete(UPLOADS, name)


def correct(person: Person, chat: Chat, variant: int) -> None:
    if person.messages[chat.id]:
        id_ = person.messages[chat.id][variant % len(person.messages[chat.id])]
        chat.edit_message(id_, f"corrected {person.traffic.number()}", keep_history=variant % 3 == 0)


def take_back(person: Person, chat: Chat, variant: int) -> None:
    if person.messages[chat.id]:
        found = person.messages[chat.id]
        chat.delete_message(found.pop(variant % len(found)), history=variant % 2 == 0, mark=variant % 4 < 2)


def view(person: Person, chat: Chat, variant: int) -> None:
    chat.view("prices", hidden=variant % 2 == 0)


def take(person: Person, chat: Chat, variant: int) -> None:
    chat.take(person.other_agent(chat, variant))


def to_agent(person: Person, chat: Chat, variant: int) -> None:
    scope = "autoTransferUnansweredChatsToAgent" if variant % 4 == 0 else "agent"
    chat.forward_to_agent(person.other_agent(chat, variant), scope)


def other_department(chat: Chat) -> str:
    return SUPPORT if chat.department == SALES else SALES


def to_department(person: Person, chat: Chat, variant: int) -> None:
    chat.forward_to_department(other_department(chat), person.other_agent(chat, variant), fallback=variant % 3 == 0)


def to_full_department(person: Person, chat: Chat, variant: int) -> None:
    chat.forward_to_full_department(other_department(chat), person.other_agent(chat, variant))


def to_queue_of_department(person: Person, chat: Chat, variant: int) -> None:
    order = ((0, 1, 2), (1, 2, 0), (2, 0, 1))[variant % 3]
    chat.forward_to_queue_of((SALES, SUPPORT)[variant % 2], order=order)


def to_queue(person: Person, chat: Chat, variant: int) -> None:
    scope = "autoTransferUnansweredChatsToQueue" if variant % 5 == 0 else "queue"
    chat.return_to_queue((None, SALES, SUPPORT)[variant % 3] if scope == "queue" else None, scope)


def hold(person: Person, chat: Chat, variant: int) -> None:
    chat.hold(((0, 1, 2), (2, 1, 0))[variant % 2])
    person.held.add(chat.id)


def resume(person: Person, chat: Chat, variant: int) -> None:
    person.held.discard(chat.id)
    match variant % 3:
        case 0:
            chat.resume()
        case 1:
            chat.resume_without_agent()
        case _:
            chat.resume_without_agent(person.other_agent(chat, variant))


def close(person: Person, chat: Chat, variant: int) -> None:
    person.held.discard(chat.id)
    who = (chat.agent or CARLA, None, CAT)[variant % 3]
    chat.close(who, tags=((), ("billing", "vip"))[variant % 2], late=(0, 0, 0.5)[variant % 3], message=variant != 4)
    if variant == 4:
        person.traffic.pause(LONG_S)


def save(person: Person, chat: Chat, variant: int) -> None:
    person.save(chat, variant)


def presence(person: Person, chat: Chat, variant: int) -> None:
    person.guest.touch(status=("away", "online")[variant % 2])
    person.traffic.update(ROOMS, chat.id, {"v.status": ("away", "online")[variant % 2]})


def rename(person: Person, chat: Chat, variant: int) -> None:
    opened = [found for found in person.chats if not found.closed and found.id not in person.gone]
    person.guest.rename(("Vera Venus", "Vera Visitor")[variant % 2], *opened)


def set_field(person: Person, chat: Chat, variant: int) -> None:
    sets = {"livechatData.order": str(variant)} if chat.fields else {"livechatData": {"order": str(variant)}}
    chat.fields["order"] = str(variant)
    person.traffic.update(ROOMS, chat.id, sets)


def answer_of_crm(person: Person, chat: Chat, variant: int) -> None:
    person.traffic.update(ROOMS, chat.id, {"crmData": f"answer {variant}"})


def server_writes(person: Person, chat: Chat, variant: int) -> None:
    chat.write_after_close()


def merge_contacts(person: Person, chat: Chat, variant: int) -> None:
    chat.fname = f"Merged {variant}"
    person.traffic.update(ROOMS, chat.id, {"contactId": f"contact{person.traffic.number()}", "fname": chat.fname})


def reopen(person: Person, chat: Chat, variant: int) -> None:
    chat.reopen(("queued", "ready")[variant % 2])


def remove_room(person: Person, chat: Chat, variant: int) -> None:
    person.traffic.pause(LONG_S)
    for id_ in person.messages[chat.id]:
        person.traffic.delete(MESSAGES, id_)
    chat.said = []
    chat.remove()
    person.gone.add(chat.id)


def remove_guest(person: Person, chat: Chat, variant: int) -> None:
    person.traffic.pause(LONG_S)
    person.guest.remove()
    person.traffic.pause(LONG_S)
    person.traffic.update(ROOMS, chat.id, {"tags": ["too late"]})
    person.gone |= {found.id for found in person.chats}


TALK: list[Action] = [say, answer, lead, send_file, correct, take_back]
AROUND: list[Action] = [view, presence, rename, set_field, answer_of_crm, lead_that_is_never_saved, save]
MOVES: list[Action] = [to_agent, to_department, to_full_department, to_queue_of_department]
UNSERVED: list[Action] = [take, *TALK, take, *MOVES, close, *AROUND]
SERVED: list[Action] = [close, *TALK, *MOVES, to_queue, hold, close, *AROUND]
HELD: list[Action] = [resume, say, answer, view, close]
CLOSED: list[Action] = [
    save, reopen, save, answer, correct, server_writes, save, merge_contacts, take_back, answer_of_crm, remove_room, save,
    presence, reopen, remove_guest,
]  # fmt: skip


def beginning() -> dict[str, list[Json]]:
    exported = {AGENT_FIELDS: '{"extension":{"sendToIntegrations":true},"pin":{"sendToIntegrations":false}}'}
    files = {PROTECT_FILES: True, FILE_TOKENS: True, NAVIGATION_AS_MESSAGE: True, NAVIGATION_IN_WEBHOOK: True}
    found = workspace_documents(**exported, **files)
    found[USERS][0]["customFields"] = {"extension": "4711", "pin": "0000"}
    return found


def interleaved(people: Sequence[Sequence[Move]]) -> list[Step]:
    """What these people do at the same time: every change between those of the others, by the moment it was made."""
    stories = []
    for number, moves in enumerate(people):
        traffic = LabelledTraffic(at_s=10, numbers=(number + 1) * 10_000)
        Person(traffic, number).act(moves)
        stories.append(traffic.steps)
    steps = [(step.change.cluster_time, number, step) for number, story in enumerate(stories) for step in story]
    steps.sort(key=lambda found: found[:2])
    result: list[Step] = []
    inc, before = 0, None
    for time, number, step in steps:
        # A transaction has one cluster time, and nothing else has the same.
        inc, before = (inc if before == (time, number) else inc + 1), (time, number)
        result.append(Step(step.change._replace(cluster_time=Timestamp(time.time, inc)), step.action))
    return result


@dataclass(frozen=True)
class Cut:
    """How the next batch is read."""

    size: int
    restart: bool = False
    idle: bool = False


ONE_BY_ONE = (Cut(1),)


@dataclass(frozen=True)
class Told:
    """What a composer said: ids and bytes in order, by session."""

    events: dict[str, list[tuple[str, bytes]]]
    unreadable: list[str | None]

    @property
    def texts(self) -> dict[str, list[str]]:
        return {session: [content.decode() for _, content in found] for session, found in self.events.items()}


async def told(steps: Sequence[Step], cuts: Sequence[Cut]) -> Told:
    changes = [step.change for step in steps]
    relay = Workspace(Histories(changes, beginning()), {"crm": endpoint(EVERY_EVENT)})
    left = captured(changes)
    number = 0
    while left:
        cut = cuts[number % len(cuts)]
        number += 1
        if cut.restart:
            relay.restart()
        batch, left = left[: cut.size], left[cut.size :]
        await relay.read(*batch, idle=cut.idle)
        if cut.idle and (not left or _seconds_between(batch[-1], left[0]) > ALL_IN_TIME_S):
            await idle(relay, batch[-1])
    await relay.read(seconds=100_000)
    sessions: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for event in relay.events:
        if event.skipped is None:
            sessions[event.session].append((event.id, (await relay.body(event.id)).content))
    return Told(dict(sessions), [event.skipped for event in relay.events if event.type == "Change"])


async def idle(relay: Workspace, last: Change) -> None:
    """Nothing more to read for some seconds of real time."""
    now_s = last.cluster_time.time + 1 - START_MS // 1000
    await relay.read(idle=True, seconds=now_s)
    relay.clock.advance(2)
    await relay.read(idle=True, seconds=now_s + 1)


def _seconds_between(one: Change, other: Change) -> int:
    return int(other.cluster_time.time - one.cluster_time.time)


def check(people: Sequence[Sequence[Move]], cuts: Sequence[Cut]) -> None:
    steps = interleaved(people)
    expected = SequentialModel(beginning()).tell(steps)
    with capture_logs():
        live = asyncio.run(told(steps, ONE_BY_ONE))
        assert live.unreadable == []
        assert live.texts == expected
        late = asyncio.run(told(steps, cuts))
        assert late == live


MOVE = st.tuples(st.integers(0, 400), st.integers(0, 60), st.integers(0, len(PAUSES_S) - 1))
PEOPLE = st.lists(st.lists(MOVE, min_size=4, max_size=16), min_size=2, max_size=3)
CUTS = st.lists(st.builds(Cut, st.integers(1, 12), st.booleans(), st.booleans()), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(people=PEOPLE, cuts=CUTS)
def test_however_it_is_read_it_says_the_same(people: list[list[Move]], cuts: list[Cut]) -> None:
    check(people, cuts)


def test_a_chat_that_was_verified_and_assigned_after_a_restart_returns_to_the_queue_once() -> None:
    traffic = LabelledTraffic(at_s=10, numbers=0)
    guest = Guest(traffic)
    guest.register()
    chat = Chat(traffic, guest)
    chat.start("verifying")
    chat.verify("ready")
    chat.take(ALICE)
    chat.return_to_queue()
    with capture_logs():
        live = asyncio.run(told(traffic.steps, ONE_BY_ONE))
        assert live.texts == SequentialModel(beginning()).tell(traffic.steps)
        assert asyncio.run(told(traffic.steps, [Cut(1, restart=True)])) == live


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(people=PEOPLE)
def test_restarted_before_every_change_it_says_the_same(people: list[list[Move]]) -> None:
    check(people, [Cut(1, restart=True)])
