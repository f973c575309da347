"""What MongoDB's errors mean: worth waiting for, or to be mended by a person; and in which words, without values and secrets."""

from __future__ import annotations

import pytest
from pymongo.errors import (
    AutoReconnect,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.errors import ConfigurationError as PyMongoConfigurationError

from daemon.errors import ConfigurationError, MongoError
from daemon.mongo import Moment, classify, connect, problem


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (AutoReconnect("127.0.0.1:27017: [Errno 104] Connection reset by peer"), "Connection reset by peer"),
        (
            ServerSelectionTimeoutError(
                "h:1: [Errno 111] Connection refused (configured timeouts: ...), Timeout: 5s, Topology: <..."
            ),
            "ServerSelectionTimeoutError: h:1: [Errno 111] Connection refused",
        ),
        (
            OperationFailure("not authorized on chat to execute command { find: \"users\", filter: { name: 'Vera' } }", 13),
            "OperationFailure: not authorized on chat to execute command ...",
        ),
        (
            OperationFailure("Failed to parse number 'Vera' in \"Vera wrote\"", 9, {"errmsg": "Vera"}),
            "OperationFailure: Failed to parse number ... in ...",
        ),
        (OperationFailure("can't do that\nVera: {", 1), "OperationFailure: can't do that"),
    ],
    ids=["reset", "selection", "command", "quotes", "lines"],
)
def test_a_problem_is_said_without_values(error: PyMongoError, text: str) -> None:
    assert text in problem(error)
    assert "Vera" not in problem(error)
    assert "Topology" not in problem(error)


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://user:hun/ter2@host/db",
        "mongodb://user:hun@ter2@host/db",
        "mongodb://user:hun:ter2@host/db",
        "mongodb://user:hun%ter2@host/db",
        "mongodb://user:hun?ter2@host/db",
        "mongodb://user:hunter2@host:9x/db",
        "mongodb://user:hunter2@host/d$b",
        "mongodb://user:hunter2@host/db?x",
        "postgres://user:hunter2@host",
    ],
)
def test_a_connection_string_that_cannot_be_one_is_not_quoted(uri: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connect(uri)
    assert "mongodb.uri" in str(caught.value)
    assert "ter2" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    "error",
    [
        AutoReconnect("connection closed"),
        NotPrimaryError("node is not in primary or recovering state"),
        pytest.param(
            PyMongoConfigurationError("Sessions are not supported by this MongoDB deployment"),
            id="a member that has just started",
        ),
    ],
)
@pytest.mark.parametrize("moment", Moment)
def test_a_server_that_comes_back_is_waited_for(error: PyMongoError, moment: Moment) -> None:
    assert classify(error, moment, "MongoDB") is None


@pytest.mark.parametrize("moment", Moment)
def test_a_wrong_connection_string_is_not(moment: Moment) -> None:
    found = classify(PyMongoConfigurationError("the value of authMechanism is wrong"), moment, "MongoDB")
    assert isinstance(found, MongoError)
    assert found.hint == "mend mongodb.uri"
