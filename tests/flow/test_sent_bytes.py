"""What is put into a payload as it is sent, and signed: file tokens at every attempt, and the answer of the endpoint."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from daemon.demo.receiver import Answer, Received, Receiver
from tests.flow import traffic
from tests.flow.harness import TOKEN, accepted, eventually, payloads, query, running, write_config
from tests.flow.traffic import Database

SIGNING_SECRET = "whsec_" + base64.b64encode(b"signs what is sent, tokens too").decode()


async def test_file_links_get_a_new_token_at_each_attempt(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    """The secret is read from the settings and is nowhere in the outbox; the rest of the body stays the same."""
    await traffic.load_initial(database)
    secret = "sup3r-s3cret-of-files"
    await database["rocketchat_settings"].update_one({"_id": "FileUpload_ProtectFiles"}, {"$set": {"value": True}}, upsert=True)
    name = "FileUpload_Enable_json_web_token_for_files"
    await database["rocketchat_settings"].update_one({"_id": name}, {"$set": {"value": True}}, upsert=True)
    name = "FileUpload_json_web_token_secret_for_files"
    await database["rocketchat_settings"].update_one({"_id": name}, {"$set": {"value": secret}}, upsert=True)
    want = traffic.expected("S2")

    def behave(received: Received) -> Answer:
        return Answer(status=500 if "fileUpload" in received.body.decode() and received.attempt < 3 else 200)

    async with Receiver(token=TOKEN, behave=behave) as receiver:
        slow = {"retry": {"wait": "600ms"}, "events": ["Message"], "signing_secrets": [SIGNING_SECRET]}
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, endpoint=slow)
        async with running(config):
            await traffic.write(database, traffic.rows("S2"))
            await eventually(lambda: len(accepted(receiver)) >= sum(payload["type"] == "Message" for payload in want))
    _all_are_signed(receiver)
    files = [exchange.received.payload for exchange in receiver.exchanges if b"fileUpload" in exchange.received.body]
    by_message: dict[str, list[dict[str, Any]]] = {}
    for payload in files:
        by_message.setdefault(payload["messages"][0]["_id"], []).append(payload)
    assert len(by_message) == 3
    for attempts in by_message.values():
        links = [attempt["messages"][0]["fileUpload"]["publicFilePath"] for attempt in attempts]
        paths, tokens = zip(*(link.split("?token=") for link in links), strict=True)
        assert len(links) == 3
        assert len(set(paths)) == 1
        issued = [_claims(token)["iat"] for token in tokens]
        assert issued == sorted(issued)
        assert issued[0] < issued[-1]
        context = _claims(tokens[0])["context"]
        message = attempts[0]["messages"][0]
        assert context == {"rid": message["rid"], "userId": message["u"]["_id"], "fileId": message["file"]["_id"]}
    assert not any(secret.encode() in content for content in _contents(tmp_path))


@pytest.mark.parametrize(
    "case",
    [("text", "ticket 4711", "ticket 4711"), ("object", '{"data":{"id":7}}', {"id": 7}), ("off", "ticket 4711", None)],
    ids=["text", "object", "off"],
)
async def test_the_answer_comes_back(mongodb_uri: str, database: Database, tmp_path: Path, case: tuple[str, str, object]) -> None:
    """The answer to the first event is the `crmData` of the following ones, the same at each of their attempts."""
    mode, answer, returned = case
    await traffic.load_initial(database)
    want = traffic.expected("S1")

    def behave(received: Received) -> Answer:
        return Answer(status=500 if received.attempt == 1 and "Message" in received.event_id else 200, body=answer)

    async with Receiver(token=TOKEN, behave=behave) as receiver:
        endpoint = {"crm_data": mode, "signing_secrets": [SIGNING_SECRET]}
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, endpoint=endpoint)
        async with running(config):
            await traffic.write(database, traffic.rows("S1"))
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
        _all_are_signed(receiver)
        sessions: dict[str, list[dict[str, Any]]] = {}
        for payload in payloads(receiver):
            sessions.setdefault(payload["_id"], []).append(payload)
        for first, *others in sessions.values():
            assert "crmData" not in first
            assert [payload.get("crmData") for payload in others] == [returned] * len(others)
        for exchange in receiver.exchanges:
            keys = list(json.loads(exchange.received.body))
            assert "crmData" not in keys or keys.index("crmData") + 1 == keys.index("type")
        without = [{key: value for key, value in payload.items() if key != "crmData"} for payload in payloads(receiver)]
        assert traffic.by_session(without) == traffic.by_session(want)
    kept = {bytes(row[0]) for row in query(tmp_path, "SELECT answer FROM answers")}
    assert kept == (set() if returned is None else {json.dumps(returned, separators=(",", ":")).encode()})


def _all_are_signed(receiver: Receiver) -> None:
    """Over what was received, tokens and answers included."""
    assert receiver.exchanges
    for exchange in receiver.exchanges:
        Webhook(SIGNING_SECRET).verify(exchange.received.body, exchange.received.headers)


def _contents(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.iterdir()]


def _claims(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims
