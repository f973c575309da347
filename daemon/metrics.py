"""All metrics, declared in one place. Labels are bounded: names from the configuration and closed sets, never URLs or ids."""

from __future__ import annotations

import math
import platform
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from daemon.model import EventType

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which says when the relay started

OUTCOMES = ("delivered", "status", "timeout", "unreachable", "broken")
OWED = ("intent", "pending", "suspended")
_LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60)
_COMMIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class Metrics:
    """The metrics of one relay, in a registry of their own, so that several relays can run in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

        build = Info("livechat_relay_build", "The version that runs; the value is 1.", registry=self.registry)
        build.info({"version": version("rocketchat-livechat-relay"), "python": platform.python_version()})
        self.started = Gauge(
            "livechat_relay_start_timestamp_seconds", "When this run began, in seconds since 1970.", registry=self.registry
        )
        self.ready = Gauge(
            "livechat_relay_ready", "1 when the relay reads and nothing is in its way, as /readyz says.", registry=self.registry
        )
        self.live = Gauge("livechat_relay_live", "1 while the relay's loops turn, as /livez says.", registry=self.registry)

        self.changes = Counter(
            "livechat_relay_capture_changes",
            "Changes read from the change stream that passed the filter on the server.",
            registry=self.registry,
        )
        self.reconnects = Counter(
            "livechat_relay_capture_reconnects",
            "Times the change stream broke and was opened again.",
            registry=self.registry,
        )
        self.capture_open = Gauge("livechat_relay_capture_open", "1 while the change stream is open.", registry=self.registry)
        self.position_time = Gauge(
            "livechat_relay_capture_position_timestamp_seconds",
            "Cluster time of the committed position, in seconds since 1970.",
            registry=self.registry,
        )
        self.lag = Gauge(
            "livechat_relay_capture_lag_seconds",
            "Everything that MongoDB committed longer ago than this is read and kept. It rises while nothing can be read,"
            " whatever the reason; NaN before the first position.",
            registry=self.registry,
        )
        self.lag.set(math.nan)
        self.paused = Gauge(
            "livechat_relay_capture_paused",
            "1 while reading is paused because the outbox is as large as it may be.",
            registry=self.registry,
        )
        self.oplog_window = Gauge(
            "livechat_relay_capture_oplog_window_seconds",
            "Time between the oldest entry of MongoDB's oplog and now.",
            registry=self.registry,
        )
        self.oplog_left = Gauge(
            "livechat_relay_capture_oplog_left_seconds",
            "How far the committed position is ahead of the oldest entry of the oplog; at 0 it is lost. +Inf while the oplog was"
            " never full, NaN while MongoDB cannot tell.",
            registry=self.registry,
        )
        self.oplog_left.set(float("nan"))
        self.events = Counter(
            "livechat_relay_compose_events", "Events composed from changes, by type.", ["type"], registry=self.registry
        )
        for event_type in EventType:
            self.events.labels(event_type)
        self.skipped = Counter(
            "livechat_relay_compose_skipped",
            "Changes and events that could not be composed; kept in the outbox with their reason.",
            registry=self.registry,
        )
        self.doubtful = Counter(
            "livechat_relay_compose_doubtful",
            "Offline messages whose lines can be read in two ways; delivered all the same.",
            registry=self.registry,
        )
        self.reads = Counter(
            "livechat_relay_compose_reads",
            "Read commands sent to MongoDB, by collection.",
            ["collection"],
            registry=self.registry,
        )
        self.open_intents = Gauge(
            "livechat_relay_compose_open_intents",
            "Events that wait for a later change or a read of MongoDB.",
            registry=self.registry,
        )
        self.commits = Counter("livechat_relay_outbox_commits", "Commits of the outbox.", registry=self.registry)
        self.commit_duration = Histogram(
            "livechat_relay_outbox_commit_seconds",
            "Time of a commit of the outbox, from its begin to its being on disk.",
            buckets=_COMMIT_BUCKETS,
            registry=self.registry,
        )
        self.owed = Gauge(
            "livechat_relay_outbox_owed",
            "Events not yet delivered, by endpoint and state: intent (not composed yet), pending, suspended (the endpoint is"
            " down).",
            ["endpoint", "state"],
            registry=self.registry,
        )
        self.oldest = Gauge(
            "livechat_relay_outbox_oldest_age_seconds",
            "Age of the oldest event not yet delivered, by endpoint and state; 0 when there is none.",
            ["endpoint", "state"],
            registry=self.registry,
        )
        self.dead = Gauge("livechat_relay_outbox_dead", "Dead letters kept, by endpoint.", ["endpoint"], registry=self.registry)
        self.outbox_size = Gauge(
            "livechat_relay_outbox_size_bytes",
            "What is in use of the outbox file: what outbox.max_size limits.",
            registry=self.registry,
        )
        self.outbox_file = Gauge(
            "livechat_relay_outbox_file_bytes", "The outbox on disk, write-ahead log included.", registry=self.registry
        )
        self.outbox_max_size = Gauge(
            "livechat_relay_outbox_max_size_bytes", "The setting outbox.max_size.", registry=self.registry
        )
        self.pruned = Gauge(
            "livechat_relay_outbox_prune_timestamp_seconds",
            "When the last round of pruning ended, in seconds since 1970; NaN before the first one of this run.",
            registry=self.registry,
        )
        self.pruned.set(math.nan)
        self.counted = Gauge(
            "livechat_relay_outbox_counted_timestamp_seconds",
            "When the figures of the outbox by endpoint were counted, in seconds since 1970.",
            registry=self.registry,
        )
        self.lanes = Gauge(
            "livechat_relay_relay_lanes",
            "Sessions with something to deliver, by endpoint.",
            ["endpoint"],
            registry=self.registry,
        )
        self.lanes_retrying = Gauge(
            "livechat_relay_relay_lanes_retrying",
            "Of these lanes those whose first event has failed and waits for its next try, by endpoint.",
            ["endpoint"],
            registry=self.registry,
        )
        self.attempts = Counter(
            "livechat_relay_relay_attempts",
            "Attempts, by endpoint and outcome: delivered, status (answered, but not a success), timeout, unreachable, broken"
            " (by the relay itself).",
            ["endpoint", "outcome"],
            registry=self.registry,
        )
        self.endpoint_up = Gauge(
            "livechat_relay_relay_endpoint_up",
            "1 while the endpoint is up, 0 while it is down and its events wait.",
            ["endpoint"],
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "livechat_relay_relay_in_flight", "Requests in flight, by endpoint.", ["endpoint"], registry=self.registry
        )
        self.dead_letters = Counter(
            "livechat_relay_relay_dead", "Events that became dead letters, by endpoint.", ["endpoint"], registry=self.registry
        )
        self.request_duration = Histogram(
            "livechat_relay_relay_request_seconds",
            "Time of one request, whatever came of it, by endpoint.",
            ["endpoint"],
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self.latency = Histogram(
            "livechat_relay_relay_delivery_seconds",
            "Time from the change in MongoDB to the answer that took the event, by endpoint.",
            ["endpoint"],
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )

    def expect_endpoint(self, endpoint: str) -> None:
        """Begin the series of an endpoint at 0, so that the first of anything is an increase."""
        for metric in (self.in_flight, self.dead, self.dead_letters, self.lanes, self.lanes_retrying):
            metric.labels(endpoint)
        for histogram in (self.latency, self.request_duration):
            histogram.labels(endpoint)
        for state in OWED:
            self.owed.labels(endpoint, state)
            self.oldest.labels(endpoint, state)
        for outcome in OUTCOMES:
            self.attempts.labels(endpoint, outcome)

    def forget_endpoint(self, name: str) -> None:
        """An endpoint is no longer configured: it is neither up nor down. What it is still owed stays in the figures."""
        for gauge in (self.endpoint_up, self.in_flight):
            gauge.remove_by_labels({"endpoint": name})

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
