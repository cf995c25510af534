"""Every metric, declared once. Labels take bounded values only: never a term, an id or a batch.

Each process has a registry of its own, so that several apps in one process do not clash.
"""

from __future__ import annotations

import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

# They double the series and say when a process started, which is known already.
disable_created_metrics()  # type: ignore[no-untyped-call]

HANDLING_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
END_TO_END_BUCKETS_S = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14400)
LOOP_LAG_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
REPAIR_RESULTS = ("repaired", "unfit", "failed")
"""`failed`: the repair got no answer, and the term is tried again."""
OUTCOMES = ("published", "duplicate", "retried", "dead", "cancelled", "deferred")


class Metrics:
    """The metrics of one service process."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self._service = service
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._declare_deliveries(service, self.registry)
        self._declare_calls(service, self.registry)
        self._declare_repairs(service, self.registry)
        self._declare_opinions(service, self.registry)

    def _declare_deliveries(self, service: str, registry: CollectorRegistry) -> None:
        self.received = Counter(
            "cardflow_messages_received",
            "Deliveries taken in hand.",
            ["service"],
            registry=registry,
        ).labels(service)
        self._completed = Counter(
            "cardflow_messages_completed",
            "Deliveries answered, by outcome.",
            ["service", "outcome"],
            registry=registry,
        )
        self.in_progress = Gauge(
            "cardflow_messages_in_progress",
            "Messages in hand at this moment.",
            ["service"],
            registry=registry,
        ).labels(service)
        self.handling = Histogram(
            "cardflow_handling_seconds",
            "Time from taking a delivery in hand to its answer.",
            ["service"],
            buckets=HANDLING_BUCKETS_S,
            registry=registry,
        ).labels(service)
        self.end_to_end = Histogram(
            "cardflow_end_to_end_seconds",
            "Time from a term's submission to its stored cards.",
            buckets=END_TO_END_BUCKETS_S,
            registry=registry,
        )
        self.last_processed = Gauge(
            "cardflow_last_processed_timestamp_seconds",
            "When a delivery was last answered.",
            ["service"],
            registry=registry,
        ).labels(service)
        self.loop_lag = Histogram(
            "cardflow_event_loop_lag_seconds",
            "How much later than asked the event loop woke up.",
            ["service"],
            buckets=LOOP_LAG_BUCKETS_S,
            registry=registry,
        ).labels(service)
        for outcome in OUTCOMES:
            self._completed.labels(service, outcome)

    def _declare_calls(self, service: str, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "cardflow_model_calls",
            "Calls to the provider, by outcome.",
            ["service", "outcome"],
            registry=registry,
        )
        self.call_seconds = Histogram(
            "cardflow_model_call_seconds",
            "Duration of a call to the provider.",
            ["service"],
            buckets=HANDLING_BUCKETS_S,
            registry=registry,
        ).labels(service)
        self.cost_usd = Counter(
            "cardflow_model_cost_usd", "Money spent on calls.", ["service"], registry=registry
        ).labels(service)
        self._cache = Counter(
            "cardflow_cache_requests",
            "Look-ups in the completion cache, by result.",
            ["service", "result"],
            registry=registry,
        )
        for outcome in ("billed", "unfit", "unbilled", "uncertain", "throttled"):
            self._calls.labels(service, outcome)
        for result in ("hit", "miss"):
            self._cache.labels(service, result)

    def _declare_repairs(self, service: str, registry: CollectorRegistry) -> None:
        self._repairs = Counter(
            "cardflow_repairs",
            "Unfit replies that were asked for once more, by how that ended.",
            ["service", "result"],
            registry=registry,
        )
        self.repair_cost_usd = Counter(
            "cardflow_repair_cost_usd",
            "Money spent on repairs; part of the money spent on calls.",
            ["service"],
            registry=registry,
        ).labels(service)
        for result in REPAIR_RESULTS:
            self._repairs.labels(service, result)

    def _declare_opinions(self, service: str, registry: CollectorRegistry) -> None:
        self._opinions = Counter(
            "cardflow_second_opinions",
            "Analyses that further models looked at, by result.",
            ["service", "result"],
            registry=registry,
        )
        for result in ("agreed", "flagged"):
            self._opinions.labels(service, result)

    def completed(self, outcome: str) -> None:
        """One delivery was answered; `outcome` is one of OUTCOMES."""
        self._completed.labels(self._service, outcome).inc()
        self.last_processed.set(time.time())

    def called(self, outcome: str) -> None:
        self._calls.labels(self._service, outcome).inc()

    def repaired(self, result: str) -> None:
        """One repair ended; `result` is one of REPAIR_RESULTS."""
        self._repairs.labels(self._service, result).inc()

    def second_opinion(self, result: str) -> None:
        """Further models looked at an analysis, and `agreed`, or it was `flagged`."""
        self._opinions.labels(self._service, result).inc()

    def cache_asked(self, *, hit: bool) -> None:
        self._cache.labels(self._service, "hit" if hit else "miss").inc()

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
