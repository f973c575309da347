"""What a Rocket.Chat workspace holds before the first visitor comes: settings, users, departments, channels."""

from __future__ import annotations

from datetime import datetime
from typing import Any

Document = dict[str, Any]

SITE_URL = "https://chat.acme.example"
AGENTS = (
    {"_id": "nhJe6WmS222jA6mpn", "username": "alice", "name": "Alice Agent"},
    {"_id": "XqjHKek52RFnjt5kz", "username": "bruno", "name": "Bruno Núñez"},
    {"_id": "adHKB5Exfk47xPAoT", "username": "carla", "name": "Carla O'Neil"},
)
COLLEAGUES = (
    {"_id": "7MpPJY7BrzB53BMQz", "username": "dave", "name": "Dave"},
    {"_id": "E6WcEocSjKz8JzDcq", "username": "erin", "name": "Erin"},
)
ROCKET_CAT = {"_id": "rocket.cat", "username": "rocket.cat"}
DEPARTMENTS = (
    {"_id": "6b038a8e1f95b8d93a3618b0", "name": "Sales", "offlineMessageChannelName": ""},
    {"_id": "6b038a8e1f95b8d93a3618b1", "name": "Technical Support", "offlineMessageChannelName": "support-offline"},
)
GENERAL = "GENERAL"
OFFLINE_CHANNEL = "6b038a8e1f95b8d93a3618b9"
SUPPORT_CHANNEL = "6b038a8e1f95b8d93a3618ba"
CHANNELS = {GENERAL: "general", OFFLINE_CHANNEL: "offline-messages", SUPPORT_CHANNEL: "support-offline"}

COLLECTIONS = (
    "users",
    "usersSessions",
    "rocketchat__trash",
    "rocketchat_livechat_contact",
    "rocketchat_livechat_department",
    "rocketchat_livechat_department_agents",
    "rocketchat_livechat_inquiry",
    "rocketchat_livechat_visitor",
    "rocketchat_message",
    "rocketchat_room",
    "rocketchat_settings",
    "rocketchat_statistics",
    "rocketchat_subscription",
    "rocketchat_uploads",
    "rocketchat_uploads.chunks",
    "rocketchat_uploads.files",
)
INDEXES = {
    "rocketchat_message": [[("rid", 1), ("ts", 1), ("_updatedAt", 1)], [("ts", 1)], [("u._id", 1)]],
    "rocketchat_room": [[("open", 1)], [("closedAt", 1)], [("v.token", 1)]],
    "rocketchat_livechat_inquiry": [[("rid", 1)], [("status", 1)]],
    "rocketchat_livechat_visitor": [[("token", 1)], [("username", 1)]],
    "rocketchat_subscription": [[("rid", 1), ("u._id", 1)]],
}

_SETTINGS: Document = {
    "Site_Url": SITE_URL,
    "Language": "en",
    "uniqueID": "livechat-relay-demo",
    "Livechat_enabled": True,
    "Livechat_title": "Acme help",
    "Livechat_webhookUrl": "",
    "Livechat_secret_token": "",
    "Livechat_http_timeout": 5000,
    "Livechat_webhook_on_start": True,
    "Livechat_webhook_on_close": True,
    "Livechat_webhook_on_chat_taken": True,
    "Livechat_webhook_on_chat_queued": True,
    "Livechat_webhook_on_forward": True,
    "Livechat_webhook_on_offline_msg": True,
    "Livechat_webhook_on_visitor_message": True,
    "Livechat_webhook_on_agent_message": True,
    "Livechat_webhook_on_capture": True,
    "Send_visitor_navigation_history_livechat_webhook_request": False,
    "Livechat_Visitor_navigation_as_a_message": False,
    "Livechat_lead_email_regex": r"\b[A-Z0-9._%+-]+@(?:[A-Z0-9-]+\.)+[A-Z]{2,4}\b",
    "Livechat_lead_phone_regex": (
        r"((?:\([0-9]{1,3}\)|[0-9]{2})[ \-]*?[0-9]{4,5}(?:[\-\s\_]{1,2})?[0-9]{4}(?:(?=[^0-9])|$)"
        r"|[0-9]{4,5}(?:[\-\s\_]{1,2})?[0-9]{4}(?:(?=[^0-9])|$))"
    ),
    "Livechat_Routing_Method": "Manual_Selection",
    "Livechat_enable_transcript": False,
    "Livechat_Allow_collect_and_store_HTTP_header_informations": True,
    "Livechat_display_offline_form": True,
    "Livechat_OfflineMessageToChannel_enabled": True,
    "Livechat_OfflineMessageToChannel_channel_name": "offline-messages",
    "Livechat_guest_count": 41,
    "Livechat_Room_Count": 0,
    "Triggered_Emails_Count": 0,
    "Accounts_CustomFields": (
        '{"squad":{"type":"text","sendToIntegrations":true},"secret":{"type":"text","sendToIntegrations":false}}'
    ),
    "Message_KeepHistory": False,
    "Message_ShowDeletedStatus": False,
    "Store_Last_Message": True,
    "FileUpload_ProtectFiles": True,
    "FileUpload_Enable_json_web_token_for_files": True,
    "FileUpload_json_web_token_secret_for_files": "demo-secret",
}


def initial_documents(now: datetime) -> dict[str, list[Document]]:
    """The documents by collection."""
    return {
        "rocketchat_settings": [_setting(n, name, value, now) for n, (name, value) in enumerate(_SETTINGS.items())],
        "users": _users(now),
        "rocketchat_livechat_department": [
            _department(department, now) | {"numAgents": len(AGENTS)} for department in DEPARTMENTS
        ],
        "rocketchat_livechat_department_agents": [
            {
                "_id": f"6b038a8e1f95b8d93a36{n:02d}{m:02d}",
                "agentId": agent["_id"],
                "departmentId": department["_id"],
                "username": agent["username"],
                "count": 0,
                "order": m,
                "departmentEnabled": True,
                "_updatedAt": now,
            }
            for n, department in enumerate(DEPARTMENTS)
            for m, agent in enumerate(AGENTS)
        ],
        "rocketchat_room": [_channel(room, name, now) for room, name in CHANNELS.items()],
        "rocketchat_subscription": [
            _membership(f"{room[-12:]}{agent['_id'][:6]}", room, name, agent, now)
            for room, name in CHANNELS.items()
            for agent in AGENTS
        ],
        "rocketchat_statistics": [
            {"_id": "dZ6fzGrXRmC5vRvAW", "version": "7.10.0", "uniqueId": "livechat-relay-demo", "createdAt": now}
        ],
    }


def _setting(place: int, name: str, value: object, now: datetime) -> Document:
    kinds: dict[type, str] = {bool: "boolean", int: "int"}
    return {
        "_id": name,
        "ts": now,
        "type": kinds.get(type(value), "string"),
        "packageValue": value,
        "value": value,
        "valueSource": "packageValue",
        "hidden": False,
        "blocked": False,
        "secret": False,
        "sorter": place,
        "group": "Omnichannel" if name.startswith("Livechat") else "General",
        "i18nLabel": name,
        "createdAt": now,
        "_updatedAt": now,
    }


def _users(now: datetime) -> list[Document]:
    common = {"createdAt": now, "services": {}, "status": "online", "active": True, "utcOffset": 0, "_updatedAt": now}
    cat = {**ROCKET_CAT, **common, "emails": [], "type": "bot", "roles": ["bot"], "name": "Rocket.Cat"}
    agents = [
        {
            **agent,
            **common,
            "emails": [{"address": f"{agent['username']}@acme.example", "verified": True}],
            "type": "user",
            "roles": ["user", "livechat-agent"],
            "statusLivechat": "available",
            "operator": True,
            "livechatCount": 0,
            "customFields": {"squad": squad, "secret": "never exported"},
        }
        for agent, squad in zip(AGENTS, ("blue", "red", "green"), strict=True)
    ]
    others = [{**one, **common, "emails": [], "type": "user", "roles": ["user"]} for one in COLLEAGUES]
    return [cat, *agents, *others]


def _department(department: Document, now: datetime) -> Document:
    return {
        **department,
        "enabled": True,
        "description": "",
        "showOnRegistration": False,
        "showOnOfflineForm": True,
        "requestTagBeforeClosingChat": False,
        "email": "team@acme.example",
        "chatClosingTags": [],
        "departmentsAllowedToForward": [],
        "fallbackForwardDepartment": "",
        "allowReceiveForwardOffline": False,
        "type": "d",
        "_updatedAt": now,
    }


def _channel(room: str, name: str, now: datetime) -> Document:
    return {
        "_id": room,
        "fname": name,
        "name": name,
        "t": "c",
        "msgs": 0,
        "usersCount": len(AGENTS),
        "u": COLLEAGUES[0],
        "ts": now,
        "ro": False,
        "_updatedAt": now,
    }


def _membership(subscription: str, room: str, name: str, user: Document, now: datetime) -> Document:
    return {
        "_id": subscription,
        "open": True,
        "alert": False,
        "unread": 0,
        "userMentions": 0,
        "groupMentions": 0,
        "ts": now,
        "rid": room,
        "name": name,
        "fname": name,
        "t": "c",
        "u": user,
        "ls": now,
        "_updatedAt": now,
    }
