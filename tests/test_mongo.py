"""What an error of MongoDB means: worth waiting for, or to be mended by a person."""

from __future__ import annotations

import pytest
from pymongo.errors import AutoReconnect, ConfigurationError, NotPrimaryError, PyMongoError

from daemon.errors import MongoError
from daemon.mongo import Moment, classify


@pytest.mark.parametrize(
    "error",
    [
        AutoReconnect("connection closed"),
        NotPrimaryError("node is not in primary or recovering state"),
        pytest.param(
            ConfigurationError("Sessions are not supported by this MongoDB deployment"), id="a member that has just started"
        ),
    ],
)
@pytest.mark.parametrize("moment", Moment)
def test_a_server_that_comes_back_is_waited_for(error: PyMongoError, moment: Moment) -> None:
    assert classify(error, moment, "MongoDB") is None


@pytest.mark.parametrize("moment", Moment)
def test_a_wrong_connection_string_is_not(moment: Moment) -> None:
    found = classify(ConfigurationError("the value of authMechanism is wrong"), moment, "MongoDB")
    assert isinstance(found, MongoError)
    assert found.hint == "mend mongodb.uri"
