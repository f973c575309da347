"""What the running relay observes by itself: the oplog, and endpoints that refuse every event of a type."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from daemon import engine, observe
from daemon.demo.receiver import Answer, Received, Receiver
from tests.flow import traffic
from tests.flow.harness import TOKEN, accepted, eventually, running, write_config
from tests.flow.traffic import Database


def refuse_messages(received: Received) -> Answer:
    return Answer(status=422 if received.payload["type"] == "Message" else 200)


async def test_type_that_is_refused_and_oplog(
    mongodb_uri: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told once, with what to do; nothing is told of the types that are taken. The figures of the oplog are there."""
    monkeypatch.setattr(observe, "_EVERY_S", 0.05)
    monkeypatch.setattr(observe, "_REFUSALS_EVERY_S", 0.0)
    monkeypatch.setattr(engine, "_OPLOG_FIRST_S", 0.05)
    await traffic.load_initial(database)
    want = [payload for payload in traffic.expected("S1", "S2") if payload["type"] != "Message"]
    with capture_logs() as lines:
        async with Receiver(token=TOKEN, behave=refuse_messages) as receiver:
            endpoint = {"retry": {"final": [422], "wait": "50ms"}}
            config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, endpoint=endpoint)
            async with running(config) as app:
                await traffic.write(database, traffic.rows("S1", "S2"))
                await eventually(lambda: len(accepted(receiver)) >= len(want), "what is taken")
                await eventually(lambda: [line for line in lines if line["event"] == "endpoint.refuses_type"], "the warning")
                await eventually(lambda: "oplog_left_seconds NaN" not in app.metrics.render().decode(), "figures of the oplog")
    (line,) = (line for line in lines if line["event"] == "endpoint.refuses_type")
    assert (line["endpoint"], line["type"], line["status"], line["log_level"]) == ("crm", "Message", 422, "warning")
    assert "leave Message out of endpoints.crm.events" in line["hint"]
