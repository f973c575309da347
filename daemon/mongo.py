"""The connection to MongoDB, and what its errors mean: try again, or stop and say what to do."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from bson.codec_options import CodecOptions, DatetimeConversion
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import ConfigurationError as PyMongoConfigurationError
from pymongo.errors import ConnectionFailure, InvalidURI, OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from daemon.clock import Clock
from daemon.errors import ConfigurationError, DaemonError, MongoError, PositionLostError

CODEC: CodecOptions[Any] = CodecOptions(
    tz_aware=True,
    # Data of a chat server is what its users and apps wrote: one odd date or text must not stop the stream.
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)
_BACK_OFF_LONGEST_S = 30
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
# What the driver says of a member that has just started and does not know its set yet; every server since 3.6 has sessions.
_JUST_STARTED = "Sessions are not supported"
_UNAUTHORIZED = 13
_AUTHENTICATION_FAILED = {18, 8000}
_TOO_LARGE = 10334
# A server that stops, steps down or elects, or that another node cannot reach.
_CHANGING = {6, 7, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436}
_MOST_REFUSALS = 5

RIGHTS_HINT = (
    "give the user in mongodb.uri the role `read` on that database: "
    'db.getSiblingDB("admin").grantRolesToUser("<user>", [{role: "read", db: "<mongodb.database>"}])'
)
REPLICA_SET_HINT = (
    "change streams need a replica set, as Rocket.Chat itself does: start mongod with --replSet rs0, run rs.initiate() once, "
    "and name it in mongodb.uri (?replicaSet=rs0)"
)
LOST_HINT = (
    "choose with capture.on_lost_position: `fail` stops here (now); `restart` goes on from now, and what happened in between is "
    "not delivered. Set `restart` for one start, then set it back. A larger oplog (replSetResizeOplog) survives longer stops"
)


class Moment(Enum):
    """When the error came: some codes mean a lost position only while the stream is opened."""

    OPENING = auto()
    READING = auto()


def classify(error: PyMongoError, moment: Moment, where: str) -> DaemonError | None:
    """None: worth trying again. Otherwise the error to stop with; `where` names host and database without secrets."""
    if isinstance(error, PyMongoConfigurationError) and _JUST_STARTED in str(error):
        return None
    if isinstance(error, PyMongoConfigurationError | InvalidURI):
        return MongoError(f"{where}: {error}", hint="mend mongodb.uri")
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
    if code == _UNAUTHORIZED:
        return MongoError(f"{where}: the user may not open a change stream or read ({_name(error)})", hint=RIGHTS_HINT)
    if code in _AUTHENTICATION_FAILED:
        return MongoError(
            f"{where}: MongoDB refuses user or password ({_name(error)})",
            hint="check user, password and authSource in mongodb.uri or mongodb.uri_file",
        )
    if code == _TOO_LARGE:
        return PositionLostError(
            f"{where}: a change is larger than the 16 MB that a change stream can carry ({_name(error)})",
            hint="stop the writer of that document; then start once with capture.on_lost_position: restart",
        )
    return None


def problem(error: BaseException) -> str:
    """What happened, on one line, without the driver's description of its own state."""
    text = str(error).partition(" (configured timeouts")[0].partition(", Timeout:")[0]
    return f"{type(error).__name__}: {text[:300]}"


def _name(error: OperationFailure) -> str:
    details = error.details or {}
    return f"{details.get('codeName') or 'code'} {error.code}"


def connect(connection_string: str) -> AsyncIOMotorClient[dict[str, Any]]:
    """A client that has not connected yet; options in the connection string go before the defaults here. Raises
    `ConfigurationError` for a connection string that cannot be one.
    """
    given = connection_string.partition("?")[2].lower()
    defaults = {name: value for name, value in _DEFAULTS.items() if f"{name.lower()}=" not in given}
    try:
        return AsyncIOMotorClient(connection_string, **defaults)
    except (PyMongoConfigurationError, InvalidURI, ValueError) as error:
        raise ConfigurationError(f"mongodb.uri: {error}", hint="mend the connection string") from error


def describe(connection_string: str, database: str) -> str:
    """Hosts and database, without user and password, for logs and errors."""
    try:
        hosts = parse_uri(connection_string, warn=False)["nodelist"]
    except PyMongoError:  # a mongodb+srv address whose name cannot be resolved at the moment
        return f"MongoDB, database {database}"
    return f"MongoDB {','.join(f'{host}:{port}' for host, port in hosts)}, database {database}"


def retrying(clock: Clock, where: str, moment: Moment, report: Callable[[BaseException], None]) -> AsyncRetrying:
    """Tries again, with back-off, what may succeed later; raises the classified error for what cannot.

    An unreachable or changing MongoDB is waited for without end. Another error of a read is raised as it is after some tries.
    `report` is called with each error before the wait.
    """
    refusals = 0

    def transient(error: BaseException) -> bool:
        nonlocal refusals
        if not isinstance(error, PyMongoError):
            return False
        fatal = classify(error, moment, where)
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

    return AsyncRetrying(
        retry=retry_if_exception(transient),
        wait=wait_random_exponential(multiplier=0.5, max=_BACK_OFF_LONGEST_S),
        sleep=clock.sleep,
        before_sleep=before_sleep,
        reraise=True,
    )
