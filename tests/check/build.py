"""Configurations and Rocket.Chat settings to look at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from daemon.check.findings import Finding, Status
from daemon.check.rocketchat import Workspace
from daemon.config.root import Config

INTAKE = {"enabled": True, "secret_token": "s3cret"}


def config(endpoint: dict[str, Any] | None = None, **sections: Any) -> Config:
    """One endpoint `crm`."""
    return Config(endpoints={"crm": {"url": "https://crm.example.org/hook", **(endpoint or {})}}, **sections)


def workspace(settings: dict[str, Any] | None = None, **members: Any) -> Workspace:
    """A Rocket.Chat 7.2 with nothing to complain of, but for what is given."""
    good = {
        "Livechat_enabled": True,
        "Livechat_webhookUrl": "",
        "Site_Url": "https://chat.example.org/",
        "FileUpload_ProtectFiles": True,
        "FileUpload_Enable_json_web_token_for_files": True,
        "Livechat_OfflineMessageToChannel_enabled": True,
        "Livechat_OfflineMessageToChannel_channel_name": "offline",
    }
    return Workspace(**{"settings": good | (settings or {}), "version": "7.2.0", "rooms": frozenset({"offline"})} | members)


def statuses(findings: Iterable[Finding]) -> list[Status]:
    return [finding.status for finding in findings]


def texts(findings: Iterable[Finding]) -> str:
    """All that is said."""
    return "\n".join(f"{finding.found}\n{finding.remedy}" for finding in findings)
