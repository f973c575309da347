"""All metrics, declared in one place. Labels are bounded: names from the configuration and closed sets, never URLs or ids."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)


class Metrics:
    """The metrics of one relay, in a registry of their own, so that several relays can run in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

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
            "Age of the newest change read; 0 when the server has nothing more to give.",
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
        self.owed = Gauge(
            "livechat_relay_outbox_owed", "Events not yet delivered, by endpoint.", ["endpoint"], registry=self.registry
        )
        self.oldest = Gauge(
            "livechat_relay_outbox_oldest_age_seconds",
            "Age of the oldest event not yet delivered, by endpoint; 0 when there is none.",
            ["endpoint"],
            registry=self.registry,
        )
        self.dead = Gauge("livechat_relay_outbox_dead", "Dead letters kept, by endpoint.", ["endpoint"], registry=self.registry)
        self.attempts = Counter(
            "livechat_relay_relay_attempts",
            "Attempts, by endpoint and outcome: delivered, status, timeout, unreachable, broken.",
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
        self.latency = Histogram(
            "livechat_relay_relay_delivery_seconds",
            "Time from the change in MongoDB to the answer that settled the event, by endpoint.",
            ["endpoint"],
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
