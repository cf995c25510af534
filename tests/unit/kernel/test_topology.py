"""The table of subjects, streams and consumers agrees with itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel import topology
from services.kernel.topology import SERVICES


def matches(pattern: str, subject: str) -> bool:
    """NATS's own rule: `*` is one token, `>` one or more at the end."""
    wanted, given_ = pattern.split("."), subject.split(".")
    for place, token in enumerate(wanted):
        if token == ">":
            return len(given_) > place
        if place >= len(given_) or token not in ("*", given_[place]):
            return False
    return len(wanted) == len(given_)


def streams_of(subject: str) -> list[str]:
    return [s.name for s in topology.STREAMS if any(matches(p, subject) for p in s.subjects)]


@pytest.mark.parametrize(
    ("subject", "stream"),
    [
        ("terms.submit", "SUBMISSIONS"),
        (topology.submit_subject("b1"), "SUBMISSIONS"),
        ("terms.submit.not a batch.at all", "SUBMISSIONS"),
        (topology.accepted_subject("b1", "id"), "TERMS"),
        (topology.analyzed_subject("b1", "id"), "ANALYSES"),
        (topology.finished_subject("b1", "id"), "CARDS"),
        (topology.dead_subject("stage1", "b1", "id"), "DEAD_LETTERS"),
        (topology.lane_subject(topology.accepted_subject("b1", "id"), "urgent"), "LANES"),
        (topology.batch_subject("b1", "opened"), "BATCHES"),
        (topology.batch_subject("b1", "progress"), "BATCHES"),
        (topology.batch_subject("b1", "completed"), "BATCHES"),
    ],
)
def test_each_subject_belongs_to_exactly_one_stream(subject: str, stream: str) -> None:
    assert streams_of(subject) == [stream]


def test_each_service_reads_one_stream_as_its_own_durable() -> None:
    assert {
        name: (consumer.stream, consumer.durable) for name, consumer in topology.CONSUMERS.items()
    } == {
        "ingest": ("SUBMISSIONS", "ingest"),
        "stage1": ("TERMS", "stage1"),
        "stage2": ("ANALYSES", "stage2"),
        "exporter": ("CARDS", "exporter"),
    }
    assert tuple(topology.CONSUMERS) == topology.SERVICES


def test_a_stage_reads_its_lanes_beside_its_stream_and_the_others_have_none() -> None:
    assert {name: [c.durable for c in topology.consumers_of(name)] for name in SERVICES} == {
        "ingest": ["ingest"],
        "stage1": ["stage1", "stage1-urgent", "stage1-bulk"],
        "stage2": ["stage2", "stage2-urgent", "stage2-bulk"],
        "exporter": ["exporter"],
    }


@pytest.mark.parametrize("lane", ["urgent", "bulk"])
@pytest.mark.parametrize("subject_of", [topology.accepted_subject, topology.analyzed_subject])
def test_a_copy_in_a_lane_is_read_by_one_consumer_and_names_what_it_was_made_from(
    lane: topology.Lane, subject_of: Callable[[str, str], str]
) -> None:
    source = subject_of("b1", "id")
    copy = topology.lane_subject(source, lane)
    assert topology.source_of(copy) == (source, lane)
    assert topology.source_of(source) == (source, None)
    readers = [
        consumer.durable
        for service in SERVICES
        for consumer in topology.consumers_of(service)
        if any(matches(pattern, copy) for pattern in consumer.subjects)
    ]
    stage = "stage1" if source.startswith("terms.accepted") else "stage2"
    assert readers == [f"{stage}-{lane}"]


def test_what_is_paid_for_is_written_once_and_what_is_reported_keeps_the_newest() -> None:
    once = {s.name for s in topology.STREAMS if s.first_write_wins}
    newest = {s.name for s in topology.STREAMS if s.latest_only}
    assert once == {"TERMS", "ANALYSES", "CARDS", "LANES"}
    assert newest == {"DEAD_LETTERS", "BATCHES"}


def test_an_attempts_key_names_service_batch_and_term() -> None:
    assert topology.attempts_key("stage1", "b1", "id") == "stage1.b1.id"


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("default", True),
        ("2026-10-01_A", True),
        ("a", True),
        ("9", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("", False),
        ("-a", False),
        ("_a", False),
        ("a.b", False),
        ("a b", False),
        ("*", False),
        (">", False),
        ("책", False),
        ("a\n", False),
        ("a/b", False),
        ("٣", False),
    ],
)
def test_a_batch_name_is_one_plain_token(name: str, valid: bool) -> None:
    assert topology.is_batch_name(name) is valid


@given(st.text(max_size=70))
def test_a_valid_batch_name_never_changes_the_shape_of_a_subject(name: str) -> None:
    if topology.is_batch_name(name):
        assert streams_of(topology.accepted_subject(name, "id")) == ["TERMS"]


def test_the_names_that_we_give_ourselves_are_batch_names() -> None:
    assert topology.is_batch_name(topology.DEFAULT_BATCH)
    assert topology.is_batch_name(topology.UNREADABLE_BATCH)
