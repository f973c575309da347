from __future__ import annotations

import pytest

from daemon.compose import states
from daemon.compose.documents import Kind
from daemon.compose.states import FoldedStates
from daemon.model import Change, Document, StateRow
from tests.compose.build import (
    DEPARTMENTS,
    ROOMS,
    SETTINGS,
    VISITORS,
    Database,
    Json,
    Store,
    agent,
    deletion,
    insert,
    moment,
    replacement,
    room,
    setting,
    stamp,
    update,
    visitor,
)

FOLDED_VISITOR = {name: value for name, value in visitor().items() if name != "status"}
FOLDED_ROOM = {
    "_id": "room1",
    "t": "l",
    "fname": "Erika Beispiel",
    "ts": moment(),
    "lm": moment(),
    "v": {"_id": "visitor1", "token": "token1"},
    "open": True,
}
CHANNEL = room("channel1", t="c", name="support")


def plain(document: Document | None) -> Json | None:
    """Without the marks that later changes need to know of earlier ones."""
    return None if document is None else {name: value for name, value in document.items() if not name.startswith("~")}


class Known:
    """States over a database and a store that have what the test gives them."""

    def __init__(self, documents: dict[str, list[Json]] | None = None) -> None:
        self.database = Database(documents)
        self.store = Store()
        self.states = FoldedStates(self.store, self.database)

    async def ensure(self, kind: Kind, *ids: str, seconds: float = 0) -> None:
        await self.states.ensure(kind, ids, stamp(seconds))

    def get(self, kind: Kind, id_: object) -> Json | None:
        return plain(self.states.get(kind, id_))

    def apply(self, change: Change) -> Json | None:
        return plain(self.states.apply(change))

    def commit(self) -> tuple[StateRow, ...]:
        rows = self.states.changed_rows()
        self.store.keep(rows)
        return tuple(StateRow(row.kind, row.id, plain(row.document)) for row in rows)

    def restart(self) -> None:
        self.states = FoldedStates(self.store, self.database)

    def reads(self) -> list[tuple[str, set[str]]]:
        """The reads of MongoDB since the last question."""
        found, self.database.reads = self.database.reads, []
        return found


# Following.


@pytest.mark.parametrize(
    "change",
    [
        update(VISITORS, "visitor1", {"name": "New"}),
        replacement(VISITORS, visitor(name="New")),
        deletion(VISITORS, "visitor1"),
    ],
    ids=["update", "replace", "delete"],
)
def test_a_document_nobody_asked_for_is_not_followed(change: Change) -> None:
    known = Known()

    assert known.apply(change) is None
    assert known.get(Kind.VISITOR, "visitor1") is None
    assert known.commit() == ()


def test_a_new_document_is_followed_from_its_insert_on() -> None:
    known = Known()

    assert known.apply(insert(VISITORS, visitor())) == FOLDED_VISITOR
    assert known.apply(update(VISITORS, "visitor1", {"name": "New"})) == {**FOLDED_VISITOR, "name": "New"}
    assert known.get(Kind.VISITOR, "visitor1") == {**FOLDED_VISITOR, "name": "New"}


async def test_an_asked_for_document_is_read_once_and_followed() -> None:
    known = Known({ROOMS: [room()]})

    await known.ensure(Kind.ROOM, "room1")
    await known.ensure(Kind.ROOM, "room1")

    assert known.reads() == [(ROOMS, {"room1"})]
    assert known.get(Kind.ROOM, "room1") == FOLDED_ROOM
    assert known.apply(update(ROOMS, "room1", {"lm": moment(5)})) == {**FOLDED_ROOM, "lm": moment(5)}


async def test_several_are_read_at_once() -> None:
    known = Known({VISITORS: [visitor("a"), visitor("b")]})

    await known.ensure(Kind.VISITOR, "a", "b", "gone")

    assert known.reads() == [(VISITORS, {"a", "b", "gone"})]
    assert known.get(Kind.VISITOR, "b") is not None
    assert known.get(Kind.VISITOR, "gone") is None


async def test_nothing_is_read_for_nobody() -> None:
    known = Known()

    await known.states.ensure(Kind.ROOM, [], stamp())

    assert known.reads() == []
    assert known.store.loads == []


async def test_a_seed_is_as_of_the_moment_asked_for() -> None:
    known = Known({VISITORS: [visitor(name="Before")]})
    known.database.log = [update(VISITORS, "visitor1", {"name": "Between"}, seconds=5)]
    known.database.log += [update(VISITORS, "visitor1", {"name": "After"}, seconds=10)]

    await known.ensure(Kind.VISITOR, "visitor1", seconds=7)

    assert known.get(Kind.VISITOR, "visitor1") == {**FOLDED_VISITOR, "name": "Between"}


async def test_what_does_not_exist_is_asked_for_once_until_it_is_inserted() -> None:
    known = Known()
    await known.ensure(Kind.VISITOR, "visitor1")
    await known.ensure(Kind.VISITOR, "visitor1")
    assert known.reads() == [(VISITORS, {"visitor1"})]
    assert known.commit() == ()

    assert known.apply(insert(VISITORS, visitor())) == FOLDED_VISITOR
    assert known.get(Kind.VISITOR, "visitor1") == FOLDED_VISITOR


@pytest.mark.parametrize("id_", [None, 7, {"$oid": "x"}, ["room1"], "unknown"], ids=repr)
async def test_an_id_that_is_none_is_of_no_document(id_: object) -> None:
    known = Known({ROOMS: [room()]})
    await known.ensure(Kind.ROOM, "room1")

    assert known.get(Kind.ROOM, id_) is None


async def test_kinds_do_not_mix() -> None:
    known = Known({ROOMS: [room("same")], VISITORS: [visitor("same")]})

    await known.ensure(Kind.ROOM, "same")

    assert known.get(Kind.VISITOR, "same") is None
    assert known.apply(update(VISITORS, "same", {"name": "x"})) is None


# Kept with the outbox.


async def test_each_change_is_kept_once() -> None:
    known = Known({ROOMS: [room()]})
    await known.ensure(Kind.ROOM, "room1")
    assert known.commit() == (StateRow(Kind.ROOM, "room1", FOLDED_ROOM),)
    assert known.commit() == ()

    known.apply(update(ROOMS, "room1", {"lm": moment(1)}))
    known.apply(update(ROOMS, "room1", {"lm": moment(2)}))
    known.apply(insert(VISITORS, visitor()))

    assert {row.id for row in known.commit()} == {"room1", "visitor1"}
    assert known.store.kept[Kind.ROOM, "room1"] == {**FOLDED_ROOM, "lm": moment(2)}
    assert known.commit() == ()


@pytest.mark.parametrize(
    "change",
    [update(ROOMS, "room1"), update(ROOMS, "room1", {"msgs": 2, "v.status": "away"}), update(ROOMS, "room1", {}, ["onHold"])],
    ids=["bare _updatedAt", "other fields", "removed what is not there"],
)
async def test_a_change_that_changes_nothing_is_not_kept(change: Change) -> None:
    known = Known({ROOMS: [room()]})
    await known.ensure(Kind.ROOM, "room1")
    known.commit()

    assert known.apply(change) == FOLDED_ROOM
    assert known.commit() == ()


async def test_a_deleted_document_is_forgotten() -> None:
    known = Known({ROOMS: [room()]})
    await known.ensure(Kind.ROOM, "room1")
    known.commit()
    gone = deletion(ROOMS, "room1", 5)
    known.database.log.append(gone)

    assert known.apply(gone) is None
    assert known.get(Kind.ROOM, "room1") is None
    assert known.commit() == (StateRow(Kind.ROOM, "room1", None),)
    assert known.apply(update(ROOMS, "room1", {"lm": moment(6)})) is None
    assert known.commit() == ()


async def test_a_document_that_comes_and_goes_between_two_commits() -> None:
    known = Known()
    known.apply(insert(VISITORS, visitor()))
    known.apply(deletion(VISITORS, "visitor1"))

    assert known.commit() == (StateRow(Kind.VISITOR, "visitor1", None),)


async def test_rooms_that_are_not_livechat_are_told_apart_and_never_kept() -> None:
    known = Known({ROOMS: [CHANNEL]})
    await known.ensure(Kind.ROOM, "channel1")
    known.apply(insert(ROOMS, room("direct1", t="d")))
    known.apply(update(ROOMS, "channel1", {"name": "help"}))

    assert known.commit() == ()
    channel, direct = known.get(Kind.ROOM, "channel1"), known.get(Kind.ROOM, "direct1")
    assert channel is not None
    assert direct is not None
    assert (channel["t"], channel["name"], direct["t"]) == ("c", "help", "d")


async def test_after_a_restart_the_kept_state_is_used_and_not_the_database() -> None:
    known = Known({ROOMS: [room()]})
    await known.ensure(Kind.ROOM, "room1")
    known.apply(update(ROOMS, "room1", {"lm": moment(5)}))
    known.commit()
    known.reads()

    known.restart()
    await known.ensure(Kind.ROOM, "room1")

    assert known.reads() == []
    assert known.get(Kind.ROOM, "room1") == {**FOLDED_ROOM, "lm": moment(5)}
    assert known.commit() == ()


async def test_what_is_recalled_is_followed_again() -> None:
    known = Known({VISITORS: [visitor()]})
    await known.ensure(Kind.VISITOR, "visitor1")
    known.commit()
    known.restart()

    await known.states.recall(Kind.VISITOR, ["visitor1", "stranger"])

    assert known.apply(update(VISITORS, "visitor1", {"name": "New"})) == {**FOLDED_VISITOR, "name": "New"}
    assert known.apply(update(VISITORS, "stranger", {"name": "New"})) is None
    assert known.reads() == [(VISITORS, {"visitor1"})]


async def test_a_recall_of_the_unknown_does_not_hide_it() -> None:
    known = Known({VISITORS: [visitor()]})
    await known.states.recall(Kind.VISITOR, ["visitor1"])

    await known.ensure(Kind.VISITOR, "visitor1")

    assert known.get(Kind.VISITOR, "visitor1") == FOLDED_VISITOR


async def test_the_kept_state_is_not_changed_in_place() -> None:
    known = Known({ROOMS: [room()]})
    await known.ensure(Kind.ROOM, "room1")
    (row,) = known.commit()
    before = known.get(Kind.ROOM, "room1")

    known.apply(update(ROOMS, "room1", {"v.token": "token2", "tags": ["x"]}))

    assert row.document == before == FOLDED_ROOM


# Departments and settings are held whole.


async def test_every_department_and_setting_is_read_at_the_start() -> None:
    departments = [{"_id": "d1", "name": "Sales", "email": "x@y"}, {"_id": "d2", "name": "Support"}]
    known = Known({DEPARTMENTS: departments, SETTINGS: [setting("Site_Url", "https://a"), setting("Unrelated", 1)]})

    await known.states.prepare(stamp())

    assert known.states.all(Kind.DEPARTMENT) == [{"_id": "d1", "name": "Sales"}, {"_id": "d2", "name": "Support"}]
    assert known.states.all(Kind.SETTING) == [setting("Site_Url", "https://a")]
    assert {"d1", "d2", "Site_Url"} <= {row.id for row in known.commit()}


async def test_after_a_restart_departments_and_settings_are_those_that_were_kept() -> None:
    known = Known({DEPARTMENTS: [{"_id": "d1", "name": "Sales"}], SETTINGS: [setting("Site_Url", "https://a")]})
    await known.states.prepare(stamp())
    known.apply(update(DEPARTMENTS, "d1", {"name": "Old sales"}))
    known.apply(insert(DEPARTMENTS, {"_id": "d2", "name": "New"}))
    known.apply(update(SETTINGS, "Site_Url", {"value": "https://b"}))
    known.commit()

    known.restart()
    await known.states.prepare(stamp(99))

    assert known.states.all(Kind.DEPARTMENT) == [{"_id": "d1", "name": "Old sales"}, {"_id": "d2", "name": "New"}]
    assert known.states.all(Kind.SETTING) == [setting("Site_Url", "https://b")]


async def test_a_removed_department_is_no_longer_listed() -> None:
    known = Known({DEPARTMENTS: [{"_id": "d1", "name": "Sales"}, {"_id": "d2", "name": "Support"}]})
    await known.states.prepare(stamp())

    known.apply(deletion(DEPARTMENTS, "d1"))

    assert known.states.all(Kind.DEPARTMENT) == [{"_id": "d2", "name": "Support"}]


async def test_the_secret_that_signs_file_links_is_never_kept() -> None:
    known = Known({SETTINGS: [setting("FileUpload_json_web_token_secret_for_files", "s3cret"), setting("Language", "de")]})

    await known.states.prepare(stamp())

    assert "s3cret" not in repr(known.commit())
    assert "s3cret" not in repr(known.states.all(Kind.SETTING))


# Memory is bounded.


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "_MOST_IN_MEMORY", 2)


@pytest.mark.usefixtures("small_memory")
async def test_what_was_not_used_for_longest_is_forgotten_and_loaded_again() -> None:
    known = Known({VISITORS: [visitor(id_) for id_ in "abc"]})
    await known.ensure(Kind.VISITOR, "a", "b", "c")
    known.apply(update(VISITORS, "a", {"name": "New"}))
    known.commit()
    known.get(Kind.VISITOR, "a")  # used last

    known.states.trim()

    assert known.get(Kind.VISITOR, "b") is None
    assert known.get(Kind.VISITOR, "c") is not None
    assert known.get(Kind.VISITOR, "a") == {**FOLDED_VISITOR, "_id": "a", "name": "New"}
    assert known.commit() == ()  # nothing is lost, so nothing is written

    known.reads()
    await known.ensure(Kind.VISITOR, "b")
    assert known.get(Kind.VISITOR, "b") == {**FOLDED_VISITOR, "_id": "b"}
    assert known.reads() == []


@pytest.mark.usefixtures("small_memory")
async def test_nothing_is_forgotten_before_it_is_stored() -> None:
    known = Known({VISITORS: [visitor(id_) for id_ in "abc"]})
    await known.ensure(Kind.VISITOR, "a", "b", "c")
    known.commit()
    known.apply(update(VISITORS, "a", {"name": "New"}))
    assert known.states.unsaved

    known.states.trim()
    assert [known.get(Kind.VISITOR, id_) is None for id_ in "abc"] == [False, False, False]

    known.commit()
    assert not known.states.unsaved
    known.states.trim()
    assert [known.get(Kind.VISITOR, id_) is None for id_ in "abc"] == [True, False, False]


@pytest.mark.usefixtures("small_memory")
async def test_a_change_of_what_was_trimmed_is_folded_once_recalled() -> None:
    known = Known({VISITORS: [visitor(id_) for id_ in "abc"]})
    await known.ensure(Kind.VISITOR, "a", "b", "c")
    known.commit()
    known.states.trim()

    await known.states.recall(Kind.VISITOR, ["a"])

    assert known.apply(update(VISITORS, "a", {"name": "New"})) == {**FOLDED_VISITOR, "_id": "a", "name": "New"}


@pytest.mark.usefixtures("small_memory")
async def test_a_trimmed_room_that_is_not_livechat_is_read_again() -> None:
    known = Known({ROOMS: [CHANNEL, room("a"), room("b")]})
    await known.ensure(Kind.ROOM, "channel1", "a", "b")
    known.commit()
    known.states.trim()
    known.reads()

    await known.ensure(Kind.ROOM, "channel1")

    assert known.reads() == [(ROOMS, {"channel1"})]
    assert known.get(Kind.ROOM, "channel1") is not None


@pytest.mark.usefixtures("small_memory")
async def test_departments_and_settings_are_never_trimmed() -> None:
    known = Known({DEPARTMENTS: [{"_id": id_, "name": id_} for id_ in "abcd"]})
    await known.states.prepare(stamp())
    known.commit()

    known.states.trim()

    assert len(known.states.all(Kind.DEPARTMENT)) == 4


async def test_agents_are_seeded_and_followed_without_their_secrets() -> None:
    known = Known({"users": [agent(services={"password": {"bcrypt": "s3cret"}})]})

    await known.ensure(Kind.USER, "agent1")
    known.apply(update("users", "agent1", {"name": "New", "services.resume": "s3cret"}))

    assert known.get(Kind.USER, "agent1") == {
        "_id": "agent1",
        "username": "maria.keller",
        "name": "New",
        "emails": agent()["emails"],
    }
    assert "s3cret" not in repr(known.commit())
