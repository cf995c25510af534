"""Every metric, declared once. Labels take bounded values only: never a term, an id or a batch.

Each process has a registry of its own, so that several apps in one process do not clash.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

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
OUTCOMES = ("published", "duplicate", "retried", "dead", "cancelled", "deferred", "left_to_lane")


class Metrics:
    """The metrics of one service process."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self.service = service
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._declare_deliveries(service, self.registry)
        self._declare_calls(service, self.registry)
        self._declare_pace(service, self.registry)
        self._declare_repairs(service, self.registry)
        self._declare_budgets(self.registry)
        self._declare_routes(self.registry)
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
        self.cache_saved_usd = Counter(
            "cardflow_cache_saved_usd",
            "What completions from the cache cost when they were asked for.",
            ["service"],
            registry=registry,
        ).labels(service)
        for outcome in ("billed", "unfit", "unbilled", "uncertain", "throttled"):
            self._calls.labels(service, outcome)
        for result in ("hit", "miss"):
            self._cache.labels(service, result)

    def _declare_pace(self, service: str, registry: CollectorRegistry) -> None:
        self._turn_wait = Histogram(
            "cardflow_turn_wait_seconds",
            "Time that a call waited for its turn; counts the turns that were given.",
            ["service"],
            buckets=HANDLING_BUCKETS_S,
            registry=registry,
        ).labels(service)
        self._limit = Gauge(
            "cardflow_limit_in_force",
            "The limits of all replicas together, as this one knows them, by kind; 0: none.",
            ["service", "kind"],
            registry=registry,
        )
        self._slots = Gauge(
            "cardflow_slots_held",
            "Of the limit of calls in flight, what this replica holds.",
            ["service"],
            registry=registry,
        ).labels(service)
        self._is_local = Gauge(
            "cardflow_pace_local",
            "1 while the shared record is away and this replica keeps to a share of its own.",
            ["service"],
            registry=registry,
        ).labels(service)

    def _declare_routes(self, registry: CollectorRegistry) -> None:
        """`route`: first, fallback1, fallback2, ..., or chosen (a model that a question names)."""
        labels = ["service", "route"]
        self._route_calls = Counter(
            "cardflow_route_calls", "Calls by route.", labels, registry=registry
        )
        self._route_openings = Counter(
            "cardflow_route_openings",
            "Openings of a circuit breaker that this replica brought about.",
            labels,
            registry=registry,
        )
        self._route_cool_downs = Counter(
            "cardflow_route_cool_downs",
            "Cool-downs that this replica was told first.",
            labels,
            registry=registry,
        )
        self._route_state = Gauge(
            "cardflow_route_state",
            "The circuit breaker: 0 closed, 1 half-open, 2 open.",
            labels,
            registry=registry,
        )
        self._route_limit = Gauge(
            "cardflow_route_learned_requests_per_minute",
            "The limit of a route that nobody set, as found so far; 0: none found.",
            labels,
            registry=registry,
        )

    def route_called(self, route: str) -> None:
        self._route_calls.labels(self.service, route).inc()

    def route_opened(self, route: str) -> None:
        self._route_openings.labels(self.service, route).inc()

    def route_cooled(self, route: str) -> None:
        self._route_cool_downs.labels(self.service, route).inc()

    def route_seen(self, route: str, state: str, learned_per_minute: float) -> None:
        """`state` as `kernel.fleet.health.circuit` names it."""
        number = ("closed", "half-open", "open").index(state)
        self._route_state.labels(self.service, route).set(number)
        self._route_limit.labels(self.service, route).set(learned_per_minute)

    def turn_given(self, wait_s: float) -> None:
        self._turn_wait.observe(wait_s)

    def paced(self, limits: Mapping[str, float], *, slots: int, is_local: bool) -> None:
        """`limits` in force by kind."""
        for kind, limit in limits.items():
            self._limit.labels(self.service, kind).set(limit)
        self._slots.set(slots)
        self._is_local.set(is_local)

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

    def _declare_budgets(self, registry: CollectorRegistry) -> None:
        labels = ["service", "account"]
        self._budget_reached = Gauge(
            "cardflow_budget_reached",
            "1 while calls wait for money of this day or stage; how many batches are over theirs.",
            labels,
            registry=registry,
        )
        self._budget_left = Gauge(
            "cardflow_budget_left_usd",
            "What a limited budget has left that nobody has spent or reserved.",
            labels,
            registry=registry,
        )
        self._budget_limit = Gauge(
            "cardflow_budget_limit_usd", "The limit in force.", labels, registry=registry
        )

    def budget_reached(self, account: str, count: int) -> None:
        """`account`: day, stage or batch."""
        self._budget_reached.labels(self.service, account).set(count)

    def budget(self, account: str, limit_usd: float | None, left_usd: float) -> None:
        """A day's or stage's limit; without one there are no such series."""
        if limit_usd is None:
            with suppress(KeyError):
                self._budget_limit.remove(self.service, account)
                self._budget_left.remove(self.service, account)
            return
        self._budget_limit.labels(self.service, account).set(limit_usd)
        self._budget_left.labels(self.service, account).set(left_usd)

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
        self._completed.labels(self.service, outcome).inc()
        self.last_processed.set(time.time())

    def called(self, outcome: str) -> None:
        self._calls.labels(self.service, outcome).inc()

    def repaired(self, result: str) -> None:
        """One repair ended; `result` is one of REPAIR_RESULTS."""
        self._repairs.labels(self.service, result).inc()

    def second_opinion(self, result: str) -> None:
        """Further models looked at an analysis, and `agreed`, or it was `flagged`."""
        self._opinions.labels(self.service, result).inc()

    def cache_asked(self, *, hit: bool) -> None:
        self._cache.labels(self.service, "hit" if hit else "miss").inc()

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
