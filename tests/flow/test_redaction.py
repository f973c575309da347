"""What never stands in the log: no secret at any level, and nothing of visitors from `info` on.

A whole replay with every kind of secret, endpoints that fail in every way, and errors that quote what visitors wrote. Nothing is
hidden by its value here (`secrets_of`, see tests/test_log.py): no call may log it in the first place.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from pymongo.errors import OperationFailure
from ruamel.yaml import YAML

from daemon import flow, log
from daemon.app import App
from daemon.compose import composer, lookup
from daemon.compose.channel import ChannelPosts
from daemon.compose.json_text import with_answer
from daemon.config.file import load
from daemon.config.secrets import secrets_of
from daemon.demo.child import free_port
from daemon.demo.receiver import Answer, Received, Receiver
from daemon.model import TOKEN_HEADER
from tests.flow import traffic
from tests.flow.harness import accepted, eventually, query, running
from tests.flow.traffic import Database

TOKEN = "token-of-the-crm"
SECRETS = {
    "token": TOKEN,
    "token in a file": "token-from-a-file",
    "intake token": "token-of-the-intake",
    "header": "value-of-a-header",
    "user of a URL": "user-of-a-url",
    "password of a URL": "p%40ssword-of-a-url",
    "the same, decoded": "p@ssword-of-a-url",
    "the same as a header": "dXNlci1vZi1hLXVybDpwQHNzd29yZC1vZi1hLXVybA==",
    "query of a URL": "key-in-a-query",
    "password of MongoDB": "password-of-mongodb",
    "secret of file links": "secret-of-file-links",
    "wrong intake token": "a-wrong-token",
}
QUERY = f"?apikey={SECRETS['query of a URL']}"
USER = f"{SECRETS['user of a URL']}:{SECRETS['password of a URL']}@"
ENDPOINTS_THAT_FAIL = {"error", "refuses", "refused", "silent", "cut", "echo", "nowhere", "no_tls"}
PRIVATE = {
    "name", "fname", "username", "address", "phoneNumber", "token", "msg", "message", "email", "phone", "comment", "topic",
}  # fmt: skip
# Words that lines of the log hold for reasons of their own; `Message:` is the label of an empty form, and begins an event id.
TOO_COMMON = {"connected", "carla", "lunch", "Long", "erin", "dave", "Erin", "Dave", "Omar", "Message:"}
INTAKE = {"name": "Ines Intake", "email": "ines@client.example", "message": "what Ines wrote in the form"}


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before, handlers, level = structlog.get_config(), logging.root.handlers[:], logging.root.level
    yield
    structlog.configure(**before)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def private_texts() -> set[str]:
    """Names, addresses, phone numbers, tokens and texts of the visitors, and everything that was written."""
    found: set[str] = {*INTAKE.values()}

    def collect(name: str, value: object) -> None:
        if isinstance(value, Mapping):
            for key, member in value.items():
                collect(str(key), member)
        elif isinstance(value, list):
            for member in value:
                collect(name, member)
        elif isinstance(value, str) and name in PRIVATE:
            found.update(part.strip() for part in value.splitlines())

    for row in traffic.rows("S1", "S2", "S7"):
        if row["collection"].startswith(("rocketchat_livechat", "rocketchat_message", "rocketchat_room", "rocketchat__trash")):
            collect("", row.get("document") or row.get("updated"))
    for payload in traffic.expected("S1", "S2", "S7"):
        collect("", payload.get("visitor"))
        collect("", payload.get("messages"))
    return {text for text in found if len(text) >= 4} - TOO_COMMON


def config_of(folder: Path, uri: str, database: str, receiver: Receiver, echo: int) -> dict[str, Any]:
    (folder / "token").write_text(f"{SECRETS['token in a file']}\n")
    address = receiver.url.removeprefix("http://")
    short = {"timeout": "150ms", "retry": {"tries": 2, "wait": "20ms", "outage_probe": "50ms"}}

    def endpoint(url: str, **more: object) -> dict[str, Any]:
        return {"url": url, "secret_token": TOKEN, **short, **more}

    return {
        "mongodb": {"uri": uri, "database": database},
        "outbox": {"url": f"sqlite:///{folder / 'outbox.db'}"},
        "endpoints": {
            "fine": endpoint(f"http://{USER}{address}{QUERY}&as=fine", timeout="20s", crm_data="text", retry={"wait": "20ms"}),
            "error": endpoint(f"http://{USER}{address}{QUERY}&as=error"),
            "refuses": endpoint(
                f"http://{address}{QUERY}&as=refuses",
                headers={"Authorization": f"Bearer {SECRETS['header']}", "X-Key": SECRETS["header"]},
            ),
            "refused": {**short, "url": f"http://{USER}127.0.0.1:1/{QUERY}", "secret_token_file": str(folder / "token")},
            "silent": endpoint(f"http://{USER}{address}{QUERY}&as=silent"),
            "cut": endpoint(f"http://{USER}{address}{QUERY}&as=cut"),
            "echo": endpoint(f"http://{USER}127.0.0.1:{echo}/{QUERY}", headers={"X-Key": SECRETS["header"]}),
            "nowhere": endpoint(f"http://{USER}nowhere.invalid/{QUERY}"),
            "no_tls": endpoint(f"https://{USER}{address}{QUERY}"),
        },
        "intake": {"enabled": True, "secret_token": SECRETS["intake token"]},
        "serve": {"listen": f"127.0.0.1:{free_port()}"},
    }


def behave(received: Received) -> Answer:
    """Answers hold what came, as receivers that are being developed do."""
    same = json.dumps(received.headers) + received.body.decode()
    return Answer(400 if "X-Key" in received.headers else 200, body=same)


class Capricious(Receiver):
    """Answers as the query of its URL says."""

    async def _handle(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        how = request.query.get("as")
        self.behave = {
            "fine": behave,
            "error": lambda received: Answer(500, body=str(received.headers)),
            "refuses": behave,
            "silent": lambda _: Answer(delay_s=0.4),
            "cut": lambda _: Answer(None),
        }.get(how or "", behave)
        return await super()._handle(request)


@asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    """Gives back what it gets, which is no HTTP answer."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(65536))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def break_things(monkeypatch: pytest.MonkeyPatch) -> None:
    """Defects and errors of MongoDB whose texts quote documents, one of each kind."""
    broken: set[str] = set()

    def once(kind: str) -> bool:
        return kind not in broken and not broken.add(kind)  # type: ignore[func-returns-value]

    take, finish, run = ChannelPosts.take, composer.Composer.finish, lookup.Lookup._run

    def broken_take(self: ChannelPosts, change: Any, message: Any, room: Any) -> Any:
        if once("take"):
            raise KeyError(message["msg"])
        return take(self, change, message, room)

    async def broken_finish(self: composer.Composer, intent: Any) -> Any:
        if once("finish"):
            raise ValueError(f"cannot encode {json.dumps(traffic.expected('S1'))}")
        return await finish(self, intent)

    def broken_answer(body: Any, answer: Any) -> Any:
        if once("answer"):
            raise ValueError(body.content.decode())
        return with_answer(body, answer)

    async def broken_run(self: lookup.Lookup, find: Any, read_concern: Any) -> Any:
        if once("run"):
            text = (
                'Failed to parse { name: "Vera Visitor", v: { token: \'voJnNStsXczd6naEj\' } }: near "Hello, is anybody there?"'
            )
            raise OperationFailure(text, 91, {"errmsg": text, "secret": SECRETS["password of MongoDB"]})
        return await run(self, find, read_concern)

    monkeypatch.setattr(ChannelPosts, "take", broken_take)
    monkeypatch.setattr(composer.Composer, "finish", broken_finish)
    monkeypatch.setattr(flow, "with_answer", broken_answer)
    monkeypatch.setattr(lookup.Lookup, "_run", broken_run)


@asynccontextmanager
async def account(database: Database, uri: str) -> AsyncIterator[str]:
    """A connection string with a password."""
    name = f"reader-{database.name}"
    admin = database.client.admin
    await admin.command("createUser", name, pwd=SECRETS["password of MongoDB"], roles=[{"role": "read", "db": database.name}])
    try:
        yield uri.replace("mongodb://", f"mongodb://{name}:{SECRETS['password of MongoDB']}@")
    finally:
        await admin.command("dropUser", name)


async def intake(url: str) -> list[int]:
    """A wrong token, nonsense that quotes the visitor, and a right one."""
    right = {TOKEN_HEADER: SECRETS["intake token"]}
    form = {
        "type": "LivechatOfflineMessage",
        "visitor": {"name": INTAKE["name"], "email": INTAKE["email"]},
        "message": INTAKE["message"],
    }
    statuses = []
    async with aiohttp.ClientSession() as http:
        for body, headers in (
            (form, {TOKEN_HEADER: SECRETS["wrong intake token"]}),
            ({**form, "type": INTAKE["message"], "sentAt": INTAKE["email"], "visitor": INTAKE["name"]}, right),
            ({**form, "sentAt": "2026-11-23T08:00:00Z"}, right),
        ):
            async with http.post(url, json=body, headers=headers) as answer:
                statuses.append(answer.status)
    return statuses


@pytest.fixture
async def story(
    mongodb_uri: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    async def tell(level: str, log_format: str) -> str:
        """The log of the whole replay."""
        monkeypatch.setattr(lookup, "hide", lambda _: None)
        break_things(monkeypatch)
        await traffic.load_initial(database)
        await database["rocketchat_settings"].update_one(
            {"_id": "FileUpload_json_web_token_secret_for_files"},
            {"$set": {"value": SECRETS["secret of file links"]}},
            upsert=True,
        )
        async with Capricious() as receiver, echo_server() as echo, account(database, mongodb_uri) as uri:
            content = config_of(tmp_path, uri, database.name, receiver, echo)
            with (tmp_path / "config.yaml").open("w") as file:
                YAML().dump({**content, "log": {"level": level, "format": log_format}}, file)
            config = load(tmp_path / "config.yaml")
            assert set(SECRETS.values()) - set(secrets_of(config)) == {
                SECRETS[kind] for kind in ("secret of file links", "wrong intake token", "the same as a header", "user of a URL")
            }
            log.configure(config.log.level, config.log.format)
            async with running(config) as app:
                assert await intake(f"http://{config.serve.listen}/intake/offline") == [401, 422, 200]
                await traffic.write(database, traffic.rows("S1", "S2", "S7"))
                await everything_happened(app, receiver, tmp_path)
        return capsys.readouterr().out

    return tell


async def everything_happened(app: App, receiver: Receiver, folder: Path) -> None:
    want = len(traffic.expected("S1", "S2", "S7")) + 1 - 2  # the one by the intake; two could not be composed
    fine = "SELECT count(*) FROM deliveries WHERE endpoint = 'fine' AND state = 'delivered'"
    await eventually(lambda: query(folder, fine) == [(want,)], "every event at the endpoint that is fine")
    failing = "SELECT endpoint FROM attempts WHERE outcome IS NOT NULL GROUP BY endpoint HAVING count(*) > 3"
    await eventually(lambda: {name for (name,) in query(folder, failing)} >= ENDPOINTS_THAT_FAIL, "failed tries everywhere")
    assert accepted(receiver)


async def test_no_secret_at_debug(story: Callable[..., Any]) -> None:
    text = await story("debug", "json")
    lines = [json.loads(line) for line in text.splitlines()]
    assert {name: text.count(secret) for name, secret in SECRETS.items() if secret in text} == {}
    events = {line["event"] for line in lines}
    assert events >= {
        "relay.starting", "capture.opened", "intake.refused", "compose.read_failed", "compose.reads_again", "compose.skipped",
        "compose.unreadable_change", "compose.intent_failed", "relay.attempt_broken",
        "delivery.attempted", "delivery.dead", "endpoint.failing", "endpoint.down", "relay.stopping", "relay.stopped",
    }  # fmt: skip
    attempted = {line["endpoint"] for line in lines if line["event"] == "delivery.attempted"}
    assert attempted >= ENDPOINTS_THAT_FAIL


async def test_nothing_of_visitors_and_no_secret_at_info(story: Callable[..., Any]) -> None:
    private = private_texts()
    assert private >= {"Vera Visitor", "vera@client.example", "Can you refund it?", "voJnNStsXczd6naEj", "Ines Intake"}
    assert len(private) > 80
    text = await story("info", "ecs")
    assert {name: text.count(secret) for name, secret in SECRETS.items() if secret in text} == {}
    plain = "\n".join(json.dumps(json.loads(line), ensure_ascii=False) for line in text.splitlines())
    assert sorted(private_text for private_text in private if private_text in plain) == []
    assert_types_agree([json.loads(line) for line in text.splitlines()])
    # An hour of trouble is some lines a minute, whatever the number of events: the story lasts seconds.
    assert len(text.splitlines()) < 120


def assert_types_agree(lines: list[dict[str, Any]]) -> None:
    """Elasticsearch refuses a line whose field has another type than in the line before."""
    types: dict[str, set[str]] = defaultdict(set)

    def walk(path: str, value: object) -> None:
        if isinstance(value, dict):
            for name, member in value.items():
                walk(f"{path}.{name}" if path else name, member)
        elif isinstance(value, list):
            for member in value:
                walk(path, member)
        elif value is not None:
            types[path].add("number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__)
        if isinstance(value, dict):
            types[path].add("object")

    for line in lines:
        walk("", line)
    assert {path: found for path, found in types.items() if len(found) > 1} == {}
