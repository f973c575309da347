"""Rocket.Chat's settings: what each combination means for the relay."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.check import rocketchat
from daemon.check.findings import Status
from tests.check.build import INTAKE, config, statuses, texts, workspace

OK, WARNING, FAILURE = Status.OK, Status.WARNING, Status.FAILURE
URL, ON, OFFLINE_ON = "Livechat_webhookUrl", "Livechat_webhook_on_close", "Livechat_webhook_on_offline_msg"
TO_CHANNEL, CHANNEL = "Livechat_OfflineMessageToChannel_enabled", "Livechat_OfflineMessageToChannel_channel_name"
TO_INTAKE = {URL: "http://127.0.0.1:8940/intake/offline", "Livechat_secret_token": "s3cret", OFFLINE_ON: True}
NO_CHANNEL = {TO_CHANNEL: False}


def test_nothing_to_complain_of() -> None:
    found = rocketchat.check_workspace(workspace(), config())
    assert set(statuses(found)) == {OK}
    assert all(finding.remedy is None for finding in found)


@pytest.mark.parametrize(
    ("version", "given", "status", "says"),
    [
        pytest.param("7.2.0", "auto", OK, "Rocket.Chat 7.2.0", id="known"),
        pytest.param("5.4.0", "auto", WARNING, "known from 6.0 on", id="too old"),
        pytest.param(None, "auto", WARNING, "compose.server_version", id="not noted"),
        pytest.param("develop", "auto", WARNING, "compose.server_version", id="no version"),
        pytest.param("7.2.0", "6.5", WARNING, "but Rocket.Chat is 7.2.0", id="another one given"),
        pytest.param(None, "6.5", OK, "Rocket.Chat 6.5", id="given"),
    ],
)
def test_version(version: str | None, given: str, status: Status, says: str) -> None:
    found = rocketchat.check_version(workspace(version=version), config(compose={"server_version": given}))
    assert statuses(found) == [status]
    assert says in texts(found)


def test_livechat_is_off() -> None:
    found = rocketchat.check_livechat(workspace({"Livechat_enabled": False}))
    assert statuses(found) == [WARNING]
    assert "Livechat_enabled" in texts(found)


@pytest.mark.parametrize(
    ("settings", "intake", "status", "says"),
    [
        pytest.param({}, {}, [OK], "is off", id="off"),
        pytest.param({ON: True}, {}, [OK], "has no URL", id="switches without a URL"),
        pytest.param({URL: None}, {}, [OK], "is off", id="no value"),
        pytest.param({URL: "https://u:pw@crm.example.org/x?key=1", ON: True}, {}, [WARNING], f"{ON}", id="on"),
        pytest.param({URL: "https://crm.example.org/x"}, {}, [WARNING], "LivechatEdit (it has no switch)", id="only edits"),
        pytest.param(TO_INTAKE, INTAKE, [OK], "to the intake, and nothing else", id="intake"),
        pytest.param(TO_INTAKE, {}, [FAILURE], "set intake.enabled to true", id="intake not enabled"),
        pytest.param(
            TO_INTAKE | {"Livechat_secret_token": "other"}, INTAKE, [FAILURE], "Livechat_secret_token", id="wrong token"
        ),
        pytest.param(TO_INTAKE | {OFFLINE_ON: False}, INTAKE, [WARNING], f"{OFFLINE_ON} is off", id="intake gets nothing"),
        pytest.param(TO_INTAKE | {ON: True}, INTAKE, [WARNING], f"more than it takes: {ON}", id="intake gets too much"),
    ],
)
def test_own_webhook(settings: dict[str, Any], intake: dict[str, Any], status: list[Status], says: str) -> None:
    found = rocketchat.check_webhook(workspace(settings), config(intake=intake))
    assert statuses(found) == status
    assert says in texts(found)
    assert not any(secret in texts(found) for secret in ("pw@", "key=1", "s3cret"))


@pytest.mark.parametrize(
    ("settings", "members", "intake", "status", "says"),
    [
        pytest.param({}, {}, {}, [OK], "seen by channel offline", id="channel"),
        pytest.param({}, {"rooms": frozenset()}, {}, [WARNING], "channel offline does not exist", id="channel is missing"),
        pytest.param({CHANNEL: ""}, {}, {}, [WARNING], f"{CHANNEL} is empty", id="channel not named"),
        pytest.param(NO_CHANNEL, {}, {}, [WARNING], "either switch on", id="neither"),
        pytest.param(NO_CHANNEL, {}, INTAKE, [WARNING], "or enable the intake", id="intake without URL"),
        pytest.param(NO_CHANNEL | TO_INTAKE, {}, INTAKE, [OK], "seen by the intake", id="intake"),
        pytest.param(TO_INTAKE, {}, INTAKE, [OK], "seen by the intake, channel offline", id="both"),
        pytest.param(
            {},
            {"channels": {"Sales": "sales-offline"}},
            {},
            [WARNING, OK],
            "channel sales-offline of department Sales",
            id="department",
        ),
        pytest.param({"Livechat_display_offline_form": False}, {}, {}, [OK, OK], "offline form is off", id="no form"),
    ],
)
def test_offline_messages(
    settings: dict[str, Any], members: dict[str, Any], intake: dict[str, Any], status: list[Status], says: str
) -> None:
    found = rocketchat.check_offline(workspace(settings, **members), config(intake=intake))
    assert statuses(found) == status
    assert says in texts(found)


def test_offline_messages_that_nobody_wants() -> None:
    found = rocketchat.check_offline(workspace(NO_CHANNEL), config({"events": ["Message"]}))
    assert statuses(found) == [OK]


@pytest.mark.parametrize(
    ("settings", "site", "status", "says"),
    [
        pytest.param({}, None, OK, "https://chat.example.org/, and carry a token", id="protected, with tokens"),
        pytest.param({"FileUpload_ProtectFiles": False}, None, OK, "everybody can open them", id="not protected"),
        pytest.param(
            {"FileUpload_Enable_json_web_token_for_files": False},
            None,
            WARNING,
            "links carry no token",
            id="protected, no tokens",
        ),
        pytest.param({"Site_Url": ""}, None, WARNING, "Site_Url is empty", id="no address"),
        pytest.param({"Site_Url": ""}, "https://chat.example.com", OK, "https://chat.example.com/", id="address given"),
        pytest.param({"Site_Url": "http://localhost:3000"}, None, WARNING, "only this machine", id="localhost"),
    ],
)
def test_file_links(settings: dict[str, Any], site: str | None, status: Status, says: str) -> None:
    found = rocketchat.check_files(workspace(settings), config(compose={"site_url": site}))
    assert statuses(found) == [status]
    assert says in texts(found)


@pytest.mark.parametrize(
    ("departments", "says"),
    [
        pytest.param(["Sales"], None, id="by name"),
        pytest.param(["d1"], None, id="by id"),
        pytest.param(["Sales", "Seles"], "do not exist: Seles", id="one of two"),
        pytest.param(["Seles"], "do not exist: Seles; it gets no event", id="the only one"),
    ],
)
def test_departments(departments: list[str], says: str | None) -> None:
    found = rocketchat.check_departments(workspace(departments={"d1": "Sales"}), config({"departments": departments}))
    assert statuses(found) == ([] if says is None else [WARNING])
    assert says is None or (says in texts(found) and "departments here: Sales" in texts(found))
