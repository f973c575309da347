"""Rocket.Chat's own settings, as far as they decide what the relay can see and whether receivers get things twice."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from daemon.check.findings import Finding, failure, names, ok, warning
from daemon.compose import documents
from daemon.compose.versions import OLDEST, parse
from daemon.config.root import Config
from daemon.config.types import redact_url
from daemon.model import EventType

_URL = "Livechat_webhookUrl"
_TOKEN = "Livechat_secret_token"  # noqa: S105 - the name of a setting
_ENABLED = "Livechat_enabled"
_OFFLINE_SWITCH = "Livechat_webhook_on_offline_msg"
_TO_CHANNEL = "Livechat_OfflineMessageToChannel_enabled"
_FORM = "Livechat_display_offline_form"
# What Rocket.Chat sends by itself; LivechatEdit has no switch of its own.
_SWITCHES = (
    "Livechat_webhook_on_start",
    "Livechat_webhook_on_close",
    "Livechat_webhook_on_chat_taken",
    "Livechat_webhook_on_chat_queued",
    "Livechat_webhook_on_forward",
    _OFFLINE_SWITCH,
    "Livechat_webhook_on_visitor_message",
    "Livechat_webhook_on_agent_message",
    "Livechat_webhook_on_capture",
)
SETTINGS = (
    _URL, _TOKEN, _ENABLED, _TO_CHANNEL, _FORM, *_SWITCHES,
    documents.OFFLINE_CHANNEL, documents.PROTECT_FILES, documents.FILE_TOKENS, documents.SITE_URL,
)  # fmt: skip
_PLACE = "Administration, Workspace, Settings, Omnichannel"
_INTAKE_PATH = "/intake/offline"


@dataclass(frozen=True, slots=True)
class Workspace:
    """What MongoDB says about a Rocket.Chat. `departments`: name by id; `channels`: offline channel by department's name;
    `rooms`: which of the offline channels exist.
    """

    settings: Mapping[str, Any]
    version: str | None = None
    departments: Mapping[str, str] = field(default_factory=dict)
    channels: Mapping[str, str] = field(default_factory=dict)
    rooms: frozenset[str] = frozenset()

    def value(self, name: str, default: Any) -> Any:
        """A setting; `default` is Rocket.Chat's own, for releases that do not have it."""
        value = self.settings.get(name)
        return default if value is None else value


def check_version(workspace: Workspace, config: Config) -> list[Finding]:
    """Which Rocket.Chat it is."""
    given = config.compose.server_version
    version = workspace.version if given == "auto" else given
    release = parse(version)
    if release is None:
        return [
            warning(
                "rocketchat.version",
                "Rocket.Chat has not noted its version (rocketchat_statistics) yet: payloads are those of the newest known",
                "name it in compose.server_version",
            )
        ]
    if release < OLDEST:
        return [
            warning(
                "rocketchat.version",
                f"Rocket.Chat {version}: payloads are known from {OLDEST[0]}.{OLDEST[1]} on",
                "compare what arrives with what this release sends by itself, or upgrade Rocket.Chat",
            )
        ]
    if given != "auto" and parse(workspace.version) not in (None, release):
        return [
            warning(
                "rocketchat.version",
                f"compose.server_version is {given}, but Rocket.Chat is {workspace.version}",
                "set compose.server_version to `auto`, if payloads are to follow the server",
            )
        ]
    return [ok("rocketchat.version", f"Rocket.Chat {version}")]


def check_livechat(workspace: Workspace) -> list[Finding]:
    """Whether livechat is on at all."""
    if workspace.value(_ENABLED, True):
        return [ok("rocketchat.livechat", "livechat is on")]
    return [warning("rocketchat.livechat", f"livechat is off ({_ENABLED}): there are no events", f"switch it on: {_PLACE}")]


def check_webhook(workspace: Workspace, config: Config) -> list[Finding]:
    """Rocket.Chat's own webhook: off, or for the intake only."""
    url = str(workspace.value(_URL, "")).strip()
    on = [name for name in _SWITCHES if workspace.value(name, False)]
    if not url:
        if not on:
            return [ok("rocketchat.webhook", "Rocket.Chat's own webhook is off")]
        return [ok("rocketchat.webhook", f"Rocket.Chat's own webhook has no URL and sends nothing (still on: {names(on)})")]
    if urlsplit(url).path.rstrip("/").endswith(_INTAKE_PATH):
        return _to_intake(workspace, config, on)
    return [
        warning(
            "rocketchat.webhook",
            f"Rocket.Chat's own webhook is still on ({redact_url(url)}): its receiver gets events twice. Switched on:"
            f" {names([*on, 'LivechatEdit (it has no switch)'])}",
            f"clear the webhook URL ({_URL}) in {_PLACE}; or, for offline messages, point it at the intake"
            f" (http://{config.serve.listen}{_INTAKE_PATH}) and leave only {_OFFLINE_SWITCH} on",
        )
    ]


def _to_intake(workspace: Workspace, config: Config, on: list[str]) -> list[Finding]:
    check = "rocketchat.webhook"
    if not config.intake.enabled:
        return [
            failure(
                check,
                f"{_URL} points at the intake, but intake.enabled is false: offline messages are refused",
                "set intake.enabled to true, and intake.secret_token to Rocket.Chat's secret token",
            )
        ]
    findings = []
    theirs = str(workspace.value(_TOKEN, ""))
    if not hmac.compare_digest(theirs.encode(), config.intake.token().encode()):
        remedy = f"make them the same: {_PLACE}"
        findings.append(failure(check, f"the intake's token is not Rocket.Chat's ({_TOKEN}): its requests are refused", remedy))
    if _OFFLINE_SWITCH not in on:
        remedy = f"switch it on: {_PLACE}"
        findings.append(warning(check, f"{_URL} points at the intake, but {_OFFLINE_SWITCH} is off: it gets nothing", remedy))
    others = [name for name in on if name != _OFFLINE_SWITCH]
    if others:
        remedy = f"switch them off in {_PLACE}: the relay has these events from MongoDB"
        findings.append(warning(check, f"Rocket.Chat sends the intake more than it takes: {names(others)}", remedy))
    return findings or [ok(check, "Rocket.Chat's own webhook sends offline messages to the intake, and nothing else")]


def check_offline(workspace: Workspace, config: Config) -> list[Finding]:
    """Whether offline messages can be seen, by the channel or by the intake."""
    check = "rocketchat.offline"
    takers = [name for name, endpoint in config.endpoints.items() if EventType.OFFLINE_MESSAGE in endpoint.events]
    if not takers:
        return [ok(check, "no endpoint gets LivechatOfflineMessage")]
    intake = config.intake.enabled and urlsplit(str(workspace.value(_URL, ""))).path.rstrip("/").endswith(_INTAKE_PATH)
    intake = intake and bool(workspace.value(_OFFLINE_SWITCH, False))
    channel = str(workspace.value(documents.OFFLINE_CHANNEL, ""))
    findings = []
    seen = ["the intake"] if intake else []
    if workspace.value(_TO_CHANNEL, False):
        wanted = {"": channel} if channel else {}
        wanted |= {f" of department {department}": name for department, name in workspace.channels.items()}
        for owner, name in sorted(wanted.items()):
            if name in workspace.rooms:
                seen.append(f"channel {name}{owner}")
            else:
                found = f"the channel {name}{owner} does not exist or is archived: offline messages for it are not seen"
                findings.append(warning(check, found, f"create it, or name another one in {_PLACE}"))
        if not channel and not intake:
            found = (
                f"offline messages without a department that has a channel of its own are not seen: {documents.OFFLINE_CHANNEL}"
            )
            findings.append(warning(check, f"{found} is empty", f"name a channel in {_PLACE}"))
    if seen:
        findings.append(ok(check, f"seen by {', '.join(seen)}"))
    elif not findings:
        findings.append(
            warning(
                check,
                f"offline messages are not seen, though {names(takers)} would get them: Rocket.Chat stores them nowhere",
                f"either switch on {_TO_CHANNEL} and name a channel ({_PLACE}); or enable the intake here and set"
                f" Rocket.Chat's webhook URL to http://{config.serve.listen}{_INTAKE_PATH}, with only {_OFFLINE_SWITCH} on; or"
                " leave LivechatOfflineMessage out of `events`",
            )
        )
    if not workspace.value(_FORM, True):
        findings.append(ok(check, f"the offline form is off ({_FORM}): nobody can leave one"))
    return findings


def check_files(workspace: Workspace, config: Config) -> list[Finding]:
    """Whether links to files in payloads will work."""
    check = "rocketchat.file_links"
    site = str(config.compose.site_url or workspace.value(documents.SITE_URL, "")).strip()
    if not site:
        remedy = f"set compose.site_url, or {documents.SITE_URL} in Rocket.Chat (General)"
        return [warning(check, f"links to files lack their address: {documents.SITE_URL} is empty", remedy)]
    if (urlsplit(site).hostname or "") in ("localhost", "127.0.0.1", "::1"):
        remedy = (
            f"set compose.site_url, or {documents.SITE_URL} in Rocket.Chat (General), to the address that receivers can reach"
        )
        return [warning(check, f"links to files begin with {redact_url(site)}, which only this machine can open", remedy)]
    if not workspace.value(documents.PROTECT_FILES, True):
        return [ok(check, f"links begin with {redact_url(site)}; files are not protected, everybody can open them")]
    if not workspace.value(documents.FILE_TOKENS, True):
        return [
            warning(
                check,
                "files are protected, but links carry no token: receivers cannot open them",
                f"switch on {documents.FILE_TOKENS} in Rocket.Chat (File Upload), or let receivers log in to Rocket.Chat",
            )
        ]
    return [ok(check, f"links begin with {redact_url(site)}, and carry a token that is valid for an hour from each attempt")]


def check_departments(workspace: Workspace, config: Config) -> list[Finding]:
    """Whether the departments that endpoints are narrowed to exist."""
    known = {*workspace.departments, *workspace.departments.values()}
    findings = []
    for name, endpoint in config.endpoints.items():
        missing = set(endpoint.departments) - known
        if missing:
            alone = "" if missing != set(endpoint.departments) else "; it gets no event that belongs to a session"
            findings.append(
                warning(
                    "rocketchat.departments",
                    f"endpoints.{name}.departments names departments that do not exist: {names(missing)}{alone}",
                    f"departments here: {names(workspace.departments.values()) or 'none'}",
                    subject=name,
                )
            )
    return findings


def check_workspace(workspace: Workspace, config: Config) -> list[Finding]:
    """All of them."""
    return [
        *check_version(workspace, config),
        *check_livechat(workspace),
        *check_webhook(workspace, config),
        *check_offline(workspace, config),
        *check_files(workspace, config),
        *check_departments(workspace, config),
    ]
