"""Folded state that no event came with: saved all the same, and folded again when it was not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import bson
import pytest

from daemon import flow
from daemon.demo.receiver import Receiver
from tests.bench.traffic import Traffic, message_document
from tests.flow.harness import TOKEN, accepted, eventually, payloads, query, running, write_config
from tests.flow.traffic import Database

_EVENTS = {"events": ["Message"]}


async def test_it_is_saved_without_an_event(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    await Traffic(database, sessions=2).prepare()
    async with Receiver(token=TOKEN) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, endpoint=_EVENTS)
        async with running(config):
            await database["rocketchat_message"].insert_one(message_document("r0", 0, datetime.now(UTC)))
            await eventually(lambda: len(accepted(receiver)) == 1)
            await database["rocketchat_room"].update_one({"_id": "r0"}, {"$set": {"topic": "Refund"}})
            await eventually(lambda: _topics(tmp_path) == ["Refund"], "a topic in the outbox")
    assert len(receiver.exchanges) == 1


async def test_what_was_not_saved_is_folded_again(
    mongodb_uri: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay ends between a change and its being saved, and reads the next one, of long ago then, later."""
    await Traffic(database, sessions=2).prepare()
    monkeypatch.setattr(flow, "_STATES_EVERY_S", 3600.0)
    async with Receiver(token=TOKEN) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, endpoint=_EVENTS)
        async with running(config) as app:
            await database["rocketchat_message"].insert_one(message_document("r0", 0, datetime.now(UTC)))
            await eventually(lambda: len(accepted(receiver)) == 1)
            read = app.metrics.changes._value.get()
            await database["rocketchat_room"].update_one({"_id": "r0"}, {"$set": {"topic": "Refund"}})
            await eventually(lambda: app.metrics.changes._value.get() > read, "a change that was read")
        assert _topics(tmp_path) == [None]
        await database["rocketchat_message"].insert_one(message_document("r0", 1, datetime.now(UTC)))
        await database["rocketchat_room"].update_one({"_id": "r0"}, {"$set": {"topic": "Later"}})
        async with running(config):
            await eventually(lambda: len(accepted(receiver)) == 2)
    assert [payload.get("topic") for payload in payloads(receiver)] == [None, "Refund"]


def _topics(folder: Path) -> list[str | None]:
    found = query(folder, "SELECT document FROM states WHERE kind = 'room' AND id = 'r0'")
    return [bson.decode(document).get("topic") for (document,) in found]
