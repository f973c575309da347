"""Which documents of Rocket.Chat matter, and which of their fields: the only place that lists them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from daemon.model import Watch


class Kind(StrEnum):
    """What is folded. The value is stored with the outbox."""

    ROOM = "room"
    VISITOR = "visitor"
    USER = "user"
    INQUIRY = "inquiry"
    DEPARTMENT = "department"
    SETTING = "setting"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Folded:
    """A collection whose documents are folded.

    `fields` are kept, of a nested `parent.child` only that child. `watched` fields are read from changes but not kept,
    `marks` are kept but ours: what later changes need to know of earlier ones.
    """

    kind: Kind
    collection: str
    operations: tuple[str, ...]
    fields: tuple[str, ...]
    watched: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    ids: tuple[str, ...] | None = None

    @property
    def kept(self) -> tuple[str, ...]:
        """The fields of a folded document."""
        return (*self.fields, *self.marks)


_ALL = ("insert", "update", "replace", "delete")
ROOMS = "rocketchat_room"
MESSAGES = "rocketchat_message"
UPLOADS = "rocketchat_uploads"
STATISTICS = "rocketchat_statistics"
MESSAGE_FIELDS = (
    "_id", "rid", "msg", "ts", "u", "t", "token", "groupable", "blocks", "file", "attachments", "fileUpload",
    "editedAt", "editedBy", "_hidden", "navigation", "transferData", "imported", "_updatedAt",
)  # fmt: skip
UPLOAD_FIELDS = ("_id", "name", "type", "size")

OFFLINE_CHANNEL = "Livechat_OfflineMessageToChannel_channel_name"
PROTECT_FILES = "FileUpload_ProtectFiles"
FILE_TOKENS = "FileUpload_Enable_json_web_token_for_files"
AGENT_FIELDS = "Accounts_CustomFields"
SITE_URL = "Site_Url"
LANGUAGE = "Language"
NAVIGATION_AS_MESSAGE = "Livechat_Visitor_navigation_as_a_message"
NAVIGATION_IN_WEBHOOK = "Send_visitor_navigation_history_livechat_webhook_request"
LEAD_EMAIL = "Livechat_lead_email_regex"
LEAD_PHONE = "Livechat_lead_phone_regex"

# The settings that a payload depends on.
PAYLOAD_SETTINGS = (PROTECT_FILES, FILE_TOKENS, AGENT_FIELDS, SITE_URL, NAVIGATION_AS_MESSAGE, NAVIGATION_IN_WEBHOOK)
# The secret that signs file links is a setting too. It is not in this list: what is folded is stored with the outbox.
FILE_SECRET = "FileUpload_json_web_token_secret_for_files"  # noqa: S105 - the name of a setting, not a secret

# Under Kind.SERVER beside the server itself: the user whom Rocket.Chat 6.2 to 6.5 took for the agent of a room without one.
ARBITRARY_AGENT = "arbitrary agent"

# Marks on a room: the agent before the last change of `servedBy`, and a transfer that no event has used yet ({_id, ts}).
SERVED_BEFORE = "~servedBefore"
TRANSFER = "~transfer"
# Mark on a visitor: when the last update was made that may be half of a save ({at}).
SAVED = "~saved"

# Fields of a visitor that the widget and the routing write, never the saving of a guest or of a lead.
NOT_A_SAVE = ("status", "lastChat", "lastAgent", "activity", "department")

FOLDED = (
    Folded(
        Kind.ROOM,
        ROOMS,
        _ALL,
        (
            "_id", "t", "name", "fname", "label", "topic", "code", "ts", "lm", "tags", "livechatData", "departmentId",
            "v._id", "v.token", "servedBy", "open", "closedAt", "closedBy", "closer", "crmData", "source.type",
        ),
        watched=("queuedAt", "priorityId", "slaId", "contactId"),
        marks=(SERVED_BEFORE, TRANSFER),
    ),
    Folded(
        Kind.VISITOR,
        "rocketchat_livechat_visitor",
        _ALL,
        ("_id", "token", "name", "username", "visitorEmails", "phone", "department", "ip", "userAgent", "livechatData",
         "disabled"),
        # An update of nothing else can still be half of a save, or end the capture of a lead; the others tell what is neither.
        watched=("_updatedAt", *NOT_A_SAVE),
        marks=(SAVED,),
    ),
    # A hot collection, which also holds passwords and presence: only these fields leave MongoDB.
    Folded(Kind.USER, "users", _ALL, ("_id", "username", "name", "emails", "customFields")),
    Folded(Kind.INQUIRY, "rocketchat_livechat_inquiry", _ALL, ("_id", "rid", "status"), watched=("ts", "queuedAt")),
    Folded(Kind.DEPARTMENT, "rocketchat_livechat_department", _ALL, ("_id", "name", "offlineMessageChannelName")),
    Folded(
        Kind.SETTING,
        "rocketchat_settings",
        _ALL,
        ("_id", "value"),
        ids=(*PAYLOAD_SETTINGS, OFFLINE_CHANNEL, LANGUAGE, LEAD_EMAIL, LEAD_PHONE),
    ),
)  # fmt: skip

BY_COLLECTION = {folded.collection: folded for folded in FOLDED}
BY_KIND = {folded.kind: folded for folded in FOLDED}

WATCHES = (
    *(Watch(folded.collection, folded.operations, (*folded.fields, *folded.watched), ids=folded.ids) for folded in FOLDED),
    Watch(MESSAGES, ("insert", "update"), MESSAGE_FIELDS, update_sets="editedAt"),
    Watch(STATISTICS, ("insert",), ("_id", "version")),
)
