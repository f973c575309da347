"""The connection to MongoDB, and what its errors mean: try again, or stop and say what to do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from bson.codec_options import CodecOptions, DatetimeConversion
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo.errors import ConfigurationError as PyMongoConfigurationError
from pymongo.errors import ConnectionFailure, InvalidURI, OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from daemon.clock import Clock
from daemon.errors import ConfigurationError, DaemonError, MongoError, PositionLostError

Database = AsyncIOMotorDatabase[dict[str, Any]]

CODEC: CodecOptions[Any] = CodecOptions(
    tz_aware=True,
    # Data of a chat server is what its users and apps wrote: one odd date or text must not stop the stream.
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)
_BACK_OFF_LONGEST_S = 10
_DEFAULTS: dict[str, Any] = {
    "appname": "livechat-relay",
    "serverSelectionTimeoutMS": 5_000,
    "connectTimeoutMS": 10_000,
    "socketTimeoutMS": 60_000,  # far above the wait of a cursor: only a dead connection takes that long
}

_LOST = {286, 280, 464}  # ChangeStreamHistoryLost, ChangeStreamFatalError, ChangeStreamStartAfterInvalidate
_LOST_ON_OPEN = {260, 50811}  # InvalidResumeToken, resume token not found
_NOT_REPLICA_SET = {40573, 76}  # $changeStream needs a replica set; NoReplicationEnabled
_ANOTHER_REPLICA_SET = ("but this node belongs to a set named", "members available for replica set name")
# What the driver says of a connection opened while its member was starting or recovering; every server since 3.6 has sessions.
_WITHOUT_SESSIONS = "Sessions are not supported"
_UNAUTHORIZED = 13
_NO_USER = "requires authentication"
_AUTHENTICATION_FAILED = {18, 8000}
_TOO_LARGE = 10334
# A server that stops, steps down or elects, or that another node cannot reach.
_CHANGING = {6, 7, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436}
_MOST_REFUSALS = 5
_VALUES = re.compile(r"""\{.*\}|"[^"]*"|(?<!\w)'[^']*'""")  # documents, and what stands in quotes

RIGHTS_HINT = (
    "give the user in mongodb.uri the role `read` on that database: "
    'db.getSiblingDB("admin").grantRolesToUser("<user>", [{role: "read", db: "<mongodb.database>"}])'
)


def least_rights(database: str) -> str:
    """The mongosh command that makes a user with no more rights than the relay needs."""
    return (
        'db.getSiblingDB("admin").createUser('
        f'{{user: "livechat-relay", pwd: passwordPrompt(), roles: [{{role: "read", db: "{database}"}}]}})'
    )


REPLICA_SET_HINT = (
    "change streams need a replica set, as Rocket.Chat itself does: start mongod with --replSet rs0, run rs.initiate() once, "
    "and name it in mongodb.uri (?replicaSet=rs0)"
)
LOST_HINT = (
    "choose with capture.on_lost_position: `fail` stops here (now); `heal` makes what is missing from stored rooms and messages; "
    "`restart` goes on from now, and what happened in between is not delivered. A larger oplog (replSetResizeOplog) survives "
    "longer stops"
)


class Moment(Enum):
    """When the error came: some codes mean a lost position only while the stream is opened."""

    OPENING = auto()
    READING = auto()


def classify(error: PyMongoError, moment: Moment, where: str) -> DaemonError | None:
    """None: worth trying again. Otherwise the error to stop with; `where` names host and database without secrets."""
    if isinstance(error, PyMongoConfigurationError) and _WITHOUT_SESSIONS in str(error):
        return None
    if isinstance(error, PyMongoConfigurationError | InvalidURI):
        return MongoError(f"{where}: {_without_values(str(error))}", hint="mend mongodb.uri")
    if any(text in str(error) for text in _ANOTHER_REPLICA_SET):
        return MongoError(f"{where}: not the replica set that mongodb.uri names: {problem(error)}", hint=REPLICA_SET_HINT)
    if not isinstance(error, OperationFailure) or isinstance(error, ConnectionFailure):
        return None
    code = error.code
    if code in _LOST or (moment is Moment.OPENING and code in _LOST_ON_OPEN):
        return PositionLostError(
            f"{where}: the oplog no longer reaches back to where the relay stopped ({_name(error)})", hint=LOST_HINT
        )
    if code in _NOT_REPLICA_SET:
        return MongoError(f"{where} is not a replica set", hint=REPLICA_SET_HINT)
    if code == _UNAUTHORIZED and _NO_USER in str(error):
        return MongoError(
            f"{where}: MongoDB asks for a user, and mongodb.uri has none",
            hint="write user and password into mongodb.uri (mongodb://user:password@host/?authSource=admin&...); README has the"
            " command that creates a user with the least rights",
        )
    if code == _UNAUTHORIZED:
        return MongoError(f"{where}: the user may not open a change stream or read ({_name(error)})", hint=RIGHTS_HINT)
    if code in _AUTHENTICATION_FAILED:
        return MongoError(
            f"{where}: MongoDB refuses user or password ({_name(error)})",
            hint="check user, password and authSource (the database in which the user was created, often admin) in mongodb.uri or"
            " mongodb.uri_file; special characters in a password are written %40 and the like",
        )
    if code == _TOO_LARGE:
        return PositionLostError(
            f"{where}: a change is larger than the 16 MB that a change stream can carry ({_name(error)})",
            hint="stop the writer of that document; then start once with capture.on_lost_position: heal",
        )
    return None


def tls_hint(error: BaseException) -> str | None:
    """What to do when a connection failed for a reason that lies in TLS, or probably does."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        if "mismatch" in text:
            return "write the host in mongodb.uri as MongoDB's certificate names it"
        if "expired" in text or "not yet valid" in text:
            return "renew MongoDB's certificate, or set this machine's clock"
        return "name the CA that signed MongoDB's certificate in mongodb.uri: tls=true&tlsCAFile=/path/of/ca.pem"
    if "SSL handshake failed" in text:
        return "MongoDB speaks no TLS at this port: leave tls=true out of mongodb.uri, or switch TLS on in MongoDB (net.tls.mode)"
    if isinstance(error, ConnectionFailure) and text.partition(" (")[0].endswith("connection closed"):
        return (
            "MongoDB ends the connection: it may want TLS (tls=true in mongodb.uri) or a client certificate that its CA signed"
            " (tlsCertificateKeyFile=/path/of/certificate-and-key.pem); its own log names the reason"
        )
    return None


def problem(error: BaseException) -> str:
    """What happened, on one line, without the driver's description of its own state and without values: MongoDB quotes documents
    and queries in its errors.
    """
    text = str(error).partition(" (configured timeouts")[0].partition(", Timeout:")[0].partition(", full error:")[0]
    return f"{type(error).__name__}: {_without_values(text)[:300]}"


def _without_values(text: str) -> str:
    return _VALUES.sub("...", text.partition("\n")[0])


def _name(error: OperationFailure) -> str:
    details = error.details or {}
    return f"{details.get('codeName') or 'code'} {error.code}"


def connect(connection_string: str, **options: Any) -> AsyncIOMotorClient[dict[str, Any]]:
    """A client that has not connected yet; options in the connection string go before `options` and the defaults here. Raises
    `ConfigurationError` for a connection string that cannot be one.
    """
    given = connection_string.partition("?")[2].lower()
    defaults = {name: value for name, value in (_DEFAULTS | options).items() if f"{name.lower()}=" not in given}
    try:
        return AsyncIOMotorClient(connection_string, **defaults)
    except (PyMongoConfigurationError, InvalidURI, ValueError) as error:
        raise ConfigurationError(
            f"mongodb.uri: {_without_values(str(error))}",
            hint="mend the connection string; in user and password write : / ? # [ ] @ % as %3A %2F %3F %23 %5B %5D %40 %25",
        ) from error
    except OSError as error:  # a file for TLS; the driver reads them at once
        raise ConfigurationError(
            f"mongodb.uri: a file of the TLS options cannot be used: {error.strerror or error}",
            hint="tlsCAFile and tlsCertificateKeyFile must name PEM files that the relay's user may read; the second one holds"
            " certificate and key",
        ) from error


def describe(connection_string: str, database: str) -> str:
    """Hosts and database, without user and password, for logs and errors."""
    try:
        hosts = parse_uri(connection_string, validate=False, warn=False)["nodelist"]
    except (PyMongoError, ValueError):  # a mongodb+srv address that cannot be resolved at the moment, or no address at all
        return f"MongoDB, database {database}"
    return f"MongoDB {','.join(f'{host}:{port}' for host, port in hosts)}, database {database}"


class Mongo:
    """The database that the relay reads, over one client that all its readers share.

    The driver keeps for each connection whether its member had sessions when it was opened, and never asks again: a connection
    opened while the member was recovering stays useless, and is taken from the pool first. `retrying` then replaces the client.
    """

    def __init__(self, connection_string: str, database: str) -> None:
        """Raises `ConfigurationError` for a connection string that cannot be one."""
        self.where = describe(connection_string, database)
        self._connection_string = connection_string
        self._name = database
        self._client = connect(connection_string)

    def database(self) -> Database:
        """The database, over the client of now: to be asked for anew for every read or cursor."""
        return self._client[self._name]

    def close(self) -> None:
        """May wait for a server that is looked for."""
        self._client.close()

    def retrying(self, clock: Clock, moment: Moment, report: Callable[[BaseException], None]) -> AsyncRetrying:
        """Tries again, with back-off, what may succeed later; raises the classified error for what cannot.

        An unreachable or changing MongoDB is waited for without end. Another error of a read is raised as it is after some tries.
        `report` is called with each error before the wait.
        """
        refusals = 0

        def transient(error: BaseException) -> bool:
            nonlocal refusals
            if not isinstance(error, PyMongoError):
                return False
            fatal = classify(error, moment, self.where)
            if fatal is not None:
                raise fatal from error
            if moment is Moment.OPENING or not isinstance(error, OperationFailure) or error.code in _CHANGING:
                return True
            refusals += 1
            return refusals < _MOST_REFUSALS

        def before_sleep(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            if error is not None:
                report(error)
                if _WITHOUT_SESSIONS in str(error):
                    self._renew()

        return AsyncRetrying(
            retry=retry_if_exception(transient),
            wait=wait_random_exponential(multiplier=0.5, max=_BACK_OFF_LONGEST_S),
            sleep=clock.sleep,
            before_sleep=before_sleep,
            reraise=True,
        )

    def _renew(self) -> None:
        """Another client for whoever reads next; reads under way over the old one fail, and are tried again."""
        old, self._client = self._client, connect(self._connection_string)
        asyncio.get_running_loop().run_in_executor(None, old.close)
