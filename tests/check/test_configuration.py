"""What the configuration says, beyond that it can be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daemon.check.configuration import check_configuration
from daemon.check.findings import Status, for_long, in_bytes, worst
from tests.check.build import INTAKE, config, statuses, texts

OK, WARNING, FAILURE = Status.OK, Status.WARNING, Status.FAILURE


@pytest.mark.parametrize(
    ("endpoint", "sections", "status", "says"),
    [
        pytest.param({}, {}, [OK], "config.yaml; endpoints: crm", id="plain"),
        pytest.param({"events": ["Message"]}, {}, [OK], "no endpoint gets LeadCapture, LivechatEdit", id="types for nobody"),
        pytest.param({}, {"intake": INTAKE}, [OK, OK], "http://127.0.0.1:8940/intake/offline", id="intake"),
        pytest.param({"events": ["Message"]}, {"intake": INTAKE}, [OK, WARNING], "goes nowhere", id="intake for nobody"),
        pytest.param({}, {"capture": {"on_lost_position": "restart"}}, [OK, WARNING], "set it back to `fail`", id="restart"),
    ],
)
def test_configuration(endpoint: dict[str, Any], sections: dict[str, Any], status: list[Status], says: str) -> None:
    found = check_configuration(config(endpoint, **sections), Path("config.yaml"))
    assert statuses(found) == status
    assert says in texts(found)
    assert "s3cret" not in texts(found)


def test_worst_is_the_status_of_the_whole() -> None:
    one = check_configuration(config(), Path("c"))[0]
    assert worst([]) is OK
    assert worst([one]) is OK


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds"),
        (90, "90 seconds"),
        (150, "2.5 minutes"),
        (7200, "2 hours"),
        (100_000, "27.8 hours"),
        (864_000, "10 days"),
    ],
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert for_long(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(12, "12 bytes"), (2_500, "2.5 kB"), (3.2e6, "3.2 MB"), (1e10, "10.0 GB")])
def test_sizes(size: float, text: str) -> None:
    assert in_bytes(size) == text
