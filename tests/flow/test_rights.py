"""The user that the README makes is enough for the whole relay, and can change nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pymongo.errors import OperationFailure
from ruamel.yaml import YAML

from daemon.capture.oplog import Oplog
from daemon.check.rights import COLLECTIONS, check_rights
from daemon.demo.receiver import Receiver
from daemon.errors import MongoError
from daemon.mongo import least_rights
from tests.flow import traffic
from tests.flow.harness import TOKEN, accepted, eventually, payloads, running, write_config
from tests.flow.test_mongodb_faults import NOWHERE, failure_of
from tests.guarded import Guarded, guarded_mongod

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
_CREATE_USER = re.compile(r'^db\.getSiblingDB\("(\w+)"\)\.createUser\((\{.*\})\)$', re.MULTILINE)
PASSWORD = "p@ss/wörd"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    """A MongoDB with access control, Rocket.Chat's data, and the README's user."""
    async with guarded_mongod(tmp_path_factory.mktemp("mongod")) as guarded:
        (command,) = _CREATE_USER.findall(README)
        # A JavaScript literal of names, strings and lists is YAML as well; `passwordPrompt()` is a text then.
        user = YAML(typ="safe").load(command[1])
        assert user.pop("pwd") == "passwordPrompt()"
        async with guarded.client() as client:
            await traffic.load_initial(client["rocketchat"])
            await client[command[0]].command("createUser", user.pop("user"), pwd=PASSWORD, **user)
        yield guarded


@pytest.fixture
def uri(guarded: Guarded) -> str:
    """As the README tells to write it."""
    return guarded.uri("livechat-relay", "p%40ss%2Fw%C3%B6rd")


def test_hints_show_the_same_command() -> None:
    assert least_rights("rocketchat") in README


@pytest.mark.asyncio(loop_scope="session")
async def test_whole_relay_runs_with_them(guarded: Guarded, uri: str, tmp_path: Path) -> None:
    """Traffic of all kinds in, deliveries out, the figures of the oplog; the connection string comes from a file."""
    want = traffic.expected("S1", "S2", "S7", "S11")
    file = tmp_path / "uri"
    file.write_text(f"{uri}\n", encoding="utf-8")
    async with Receiver(token=TOKEN) as receiver, guarded.client() as writer:
        config = write_config(tmp_path, uri="", database="rocketchat", url=receiver.url)
        text = config.read_text(encoding="utf-8").replace("uri: ''", f"uri_file: {file}")
        config.write_text(text, encoding="utf-8")
        async with running(config):
            await traffic.write(writer["rocketchat"], traffic.rows("S1", "S2", "S7", "S11"))
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
        assert traffic.by_session(payloads(receiver)) == traffic.by_session(want)
    async with guarded.client(uri) as reader:
        assert (await Oplog(lambda: reader["rocketchat"]).window()).complete


@pytest.mark.asyncio(loop_scope="session")
async def test_no_write_is_allowed(guarded: Guarded, uri: str) -> None:
    async with guarded.client() as admin, guarded.client(uri) as reader:
        names = {*await admin["rocketchat"].list_collection_names(), *COLLECTIONS, "a_new_one"}
        places = [("rocketchat", name) for name in sorted(names)] + [("other", "x"), ("admin", "x"), ("local", "x")]
        for database, name in places:
            for command in _writes(name):
                with pytest.raises(OperationFailure) as refused:
                    await reader[database].command(command)
                assert refused.value.code == 13, (database, command)


def _writes(name: str) -> list[dict[str, Any]]:
    return [
        {"insert": name, "documents": [{"_id": "forged"}]},
        {"update": name, "updates": [{"q": {}, "u": {"$set": {"forged": True}}}]},
        {"delete": name, "deletes": [{"q": {}, "limit": 0}]},
        {"findAndModify": name, "query": {}, "remove": True},
        {"createIndexes": name, "indexes": [{"key": {"forged": 1}, "name": "forged"}]},
        {"drop": name},
        {"create": f"{name}_forged"},
        {"aggregate": name, "pipeline": [{"$out": "forged"}], "cursor": {}},
    ]


@pytest.mark.asyncio(loop_scope="session")
async def test_check_tells_too_few_and_too_many(guarded: Guarded, uri: str) -> None:
    some = [collection for collection in COLLECTIONS if collection != "users"]
    privileges = [{"resource": {"db": "rocketchat", "collection": name}, "actions": ["find"]} for name in some]
    async with guarded.client() as admin:
        await admin.admin.command("createRole", "some", privileges=privileges, roles=[])
    few = await guarded.create_user("few", [{"role": "some", "db": "admin"}])
    many = await guarded.create_user("many", [{"role": "readWrite", "db": "rocketchat"}])
    expected = {
        uri: ("ok", "user livechat-relay@admin can read what is needed, and change nothing"),
        few: ("failure", "user few@admin may not read the change stream, users of database rocketchat"),
        many: ("warning", "user many@admin can do more than read: dropCollection, insert, remove, update"),
        guarded.mongod.uri: ("failure", "without a user the relay may not read"),
    }
    for who, (status, found) in expected.items():
        async with guarded.client(who) as client:
            (finding,) = await check_rights(client, "rocketchat")
            assert finding.status == status
            assert finding.found.startswith(found)
            assert status == "ok" or least_rights("rocketchat") in (finding.remedy or "")


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(
    ("user", "text", "hint"),
    [
        pytest.param(
            "livechat-relay:wr0ng@", "refuses user or password", "check user, password and authSource", id="wrong password"
        ),
        pytest.param("nobody:wr0ng@", "refuses user or password", "check user, password and authSource", id="unknown user"),
        pytest.param("", "MongoDB asks for a user, and mongodb.uri has none", "mongodb://user:password@host", id="no user"),
    ],
)
async def test_errors_tell_what_to_do(guarded: Guarded, tmp_path: Path, user: str, text: str, hint: str) -> None:
    uri = guarded.mongod.uri.replace("mongodb://", f"mongodb://{user}") + ("&authSource=admin" if user else "")
    error = await failure_of(write_config(tmp_path, uri=uri, database="rocketchat", url=NOWHERE))
    assert isinstance(error, MongoError)
    assert text in str(error)
    assert hint in error.hint
    assert "wr0ng" not in str(error) + error.hint


@pytest.mark.asyncio(loop_scope="session")
async def test_rights_on_another_database_only(guarded: Guarded, tmp_path: Path) -> None:
    uri = await guarded.create_user("elsewhere", [{"role": "read", "db": "other"}])
    error = await failure_of(write_config(tmp_path, uri=uri, database="rocketchat", url=NOWHERE))
    assert isinstance(error, MongoError)
    assert "may not open a change stream or read" in str(error)
    assert "grantRolesToUser" in error.hint
