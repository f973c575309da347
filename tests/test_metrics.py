"""What is measured: named and explained in docs/metrics.md, right when it is asked, and cheap."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from bson.timestamp import Timestamp
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from daemon.flow import Lag
from daemon.metrics import OUTCOMES, OWED, Metrics
from daemon.model import Batch, EventType, Position
from tests.clocks import START, FakeClock

DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"
CLOSED_LABELS = {"type": {*EventType}, "state": {*OWED}, "outcome": {*OUTCOMES}}
OPEN_LABELS = {"endpoint", "collection"}  # names in the configuration, names in the source


def ours(metrics: Metrics) -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Type, labels and help of each metric of the relay, by the name it is shown with."""
    found = {}
    for collector in {*metrics.registry._names_to_collectors.values()}:
        for family in collector.collect():
            if family.name.startswith("livechat_relay_"):
                labels = tuple(getattr(collector, "_labelnames", ()))
                labels = ("version", "python") if family.type == "info" else labels
                found[shown_name(family)] = (family.type, labels, family.documentation)
    return found


def shown_name(family: Metric) -> str:
    return family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")


def test_the_document_has_them_all() -> None:
    rows = re.findall(
        r"^\| `(livechat_relay_\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE
    )
    table = {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), meaning) for name, kind, labels, meaning in rows}
    assert len(rows) == len(table)
    assert table == ours(Metrics())


def test_labels_are_bounded() -> None:
    metrics = Metrics()
    metrics.expect_endpoint("crm")
    for name, (kind, labels, _) in ours(metrics).items():
        assert kind == "info" or set(labels) <= {*CLOSED_LABELS, *OPEN_LABELS}, name
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            for label, value in sample.labels.items():
                assert value in CLOSED_LABELS.get(label, {value}), (sample.name, label, value)


def test_counting_begins_at_0_so_that_the_first_of_anything_is_an_increase() -> None:
    metrics = Metrics()
    metrics.expect_endpoint("crm")
    page = metrics.render().decode()
    for line in (
        'livechat_relay_relay_dead_total{endpoint="crm"} 0.0',
        'livechat_relay_relay_attempts_total{endpoint="crm",outcome="timeout"} 0.0',
        'livechat_relay_outbox_owed{endpoint="crm",state="suspended"} 0.0',
        'livechat_relay_compose_events_total{type="LivechatSession"} 0.0',
        'livechat_relay_relay_delivery_seconds_count{endpoint="crm"} 0.0',
    ):
        assert f"{line}\n" in page


class TestLag:
    def setup_method(self) -> None:
        self.clock = FakeClock()
        self.now = int(START.timestamp())
        self.lag = Lag(self.at(-3600), self.clock)

    def at(self, seconds: int) -> Position:
        return Position(Timestamp(self.now + seconds, 1))

    def read(self, position: int, server: int, *, took_s: float = 0.0, idle: bool = False) -> None:
        received_at = self.clock.monotonic()
        self.clock.advance(took_s)
        self.lag.read(Batch((), self.at(position), idle=idle, server_time=self.at(server).cluster_time), received_at)

    def test_nothing_was_read_yet(self) -> None:
        assert self.lag.seconds() == 3600
        self.clock.advance(60)
        assert self.lag.seconds() == 3660

    def test_idle(self) -> None:
        for second in range(0, 60, 10):
            self.read(second, second, idle=True)
            assert self.lag.seconds() == 0

    def test_catching_up(self) -> None:
        self.read(-3000, 1)
        assert self.lag.seconds() == 3001
        self.read(-100, 2)
        assert self.lag.seconds() == 102
        self.read(3, 3)
        assert self.lag.seconds() == 0

    def test_an_empty_batch_on_the_way_is_not_the_end(self) -> None:
        self.read(-3000, 1, idle=True)
        assert self.lag.seconds() == 3001

    def test_stuck_or_mongodb_is_away(self) -> None:
        self.read(0, 0, idle=True)
        self.clock.advance(900)
        assert self.lag.seconds() == 900

    def test_what_is_read_but_not_kept_yet_counts(self) -> None:
        self.read(0, 0, took_s=7)
        assert self.lag.seconds() == 7

    def test_a_wall_clock_that_is_wrong_or_jumps_does_not_matter(self) -> None:
        self.read(-5, 0)
        self.clock.step(86_400)
        assert self.lag.seconds() == 5
        self.clock.step(-2 * 86_400)
        self.clock.advance(1)
        assert self.lag.seconds() == 6

    def test_before_there_is_a_position_nobody_knows(self) -> None:
        assert math.isnan(Metrics().lag._value.get())


def test_the_build_says_what_runs() -> None:
    (line,) = [line for line in Metrics().render().decode().splitlines() if line.startswith("livechat_relay_build_info{")]
    labels = json.loads(re.sub(r'(\w+)="', r'"\1":"', line[line.index("{") : line.index("}") + 1]))
    assert re.match(r"\d+\.\d+", labels["version"])
    assert re.match(r"3\.\d+", labels["python"])
