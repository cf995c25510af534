"""Metrics: every series is there from the start, labels are bounded, processes don't clash."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.kernel.metrics import OUTCOMES, Metrics

BOUNDED_LABELS = {"service", "outcome", "result", "reason", "le"}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def ours(metrics: Metrics) -> list[tuple[str, dict[str, str]]]:
    return [
        (sample.name, sample.labels)
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
        if sample.name.startswith("cardflow_")
    ]


def test_an_answered_delivery_counts_under_its_outcome() -> None:
    metrics = Metrics("stage1")
    for outcome in OUTCOMES:
        metrics.completed(outcome)
    metrics.completed("dead")
    completed = {
        outcome: value(
            metrics, "cardflow_messages_completed_total", service="stage1", outcome=outcome
        )
        for outcome in OUTCOMES
    }
    assert completed == dict.fromkeys(OUTCOMES, 1.0) | {"dead": 2.0}
    assert value(metrics, "cardflow_last_processed_timestamp_seconds", service="stage1")


def test_calls_and_cache_requests_count_under_their_result() -> None:
    metrics = Metrics("stage2")
    metrics.called("billed")
    metrics.cache_asked(hit=True)
    metrics.cache_asked(hit=False)
    metrics.cache_asked(hit=False)
    calls, cache = "cardflow_model_calls_total", "cardflow_cache_requests_total"
    assert value(metrics, calls, service="stage2", outcome="billed") == 1
    assert value(metrics, cache, service="stage2", result="hit") == 1
    assert value(metrics, cache, service="stage2", result="miss") == 2


@pytest.mark.parametrize("outcome", ["billed", "unfit", "unbilled", "uncertain", "throttled"])
def test_a_series_stands_at_zero_before_its_first_event(outcome: str) -> None:
    metrics = Metrics("stage1")
    assert value(metrics, "cardflow_model_calls_total", service="stage1", outcome=outcome) == 0


def test_names_say_their_unit_and_labels_are_bounded() -> None:
    samples = ours(Metrics("stage1"))
    assert samples
    for name, labels in samples:
        assert re.fullmatch(r"cardflow_[a-z_]+?(_total|_seconds(_bucket|_sum|_count)?)?", name)
        assert set(labels) <= BOUNDED_LABELS
        assert not name.endswith("_created")


def test_two_services_in_one_process_do_not_share_their_figures() -> None:
    first, second = Metrics("ingest"), Metrics("ingest")
    first.received.inc()
    assert value(first, "cardflow_messages_received_total", service="ingest") == 1
    assert value(second, "cardflow_messages_received_total", service="ingest") == 0
