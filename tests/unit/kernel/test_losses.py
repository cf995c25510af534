"""What is filled again after a loss, and from what; what is gone is said."""

from __future__ import annotations

import pytest

from services.kernel import topology
from services.kernel.provisioning.losses import consequence, feeders_of

CACHE = "KV_COMPLETIONS"
EVERYTHING = {s.name for s in topology.STREAMS} | {f"KV_{b.name}" for b in topology.BUCKETS}


@pytest.mark.parametrize(
    ("lost_one", "lost", "feeders"),
    [
        ("TERMS", {"TERMS"}, ["ingest"]),
        ("ANALYSES", {"ANALYSES"}, ["stage1"]),
        ("CARDS", {"CARDS"}, ["stage2"]),
        ("CARDS", {"CARDS", "ANALYSES", "TERMS"}, ["stage2"]),
        ("TERMS", {"TERMS", CACHE}, ["ingest"]),
        ("ANALYSES", {"ANALYSES", CACHE}, []),
        ("CARDS", {"CARDS", CACHE}, []),
        ("TERMS", {"TERMS", "SUBMISSIONS"}, []),
        ("CARDS", {"CARDS", "ANALYSES", "TERMS", "SUBMISSIONS"}, []),
        ("LANES", {"LANES"}, ["stage1", "stage2"]),
        ("LANES", {"LANES", "TERMS", "SUBMISSIONS"}, ["stage2"]),
        ("LANES", {"LANES", CACHE}, []),
        ("LANES", {"LANES", "ANALYSES", "TERMS", "SUBMISSIONS"}, []),
        ("SUBMISSIONS", {"SUBMISSIONS"}, []),
        ("DEAD_LETTERS", {"DEAD_LETTERS"}, []),
        (CACHE, {CACHE}, []),
    ],
)
def test_a_stream_is_filled_by_who_writes_it_while_its_source_and_the_cache_are_there(
    lost_one: str, lost: set[str], feeders: list[str]
) -> None:
    assert [feeder.durable for feeder in feeders_of(lost_one, lost)] == feeders
    assert ("filled again by" in consequence(lost_one, lost)) == bool(feeders)


@pytest.mark.parametrize("lost_one", sorted(EVERYTHING))
def test_every_loss_has_its_consequence_and_a_new_server_has_none(lost_one: str) -> None:
    assert consequence(lost_one, {lost_one})
    assert consequence(lost_one, EVERYTHING)
    assert consequence(lost_one, set()) == ""


def test_what_would_be_paid_for_twice_is_not_filled_and_how_to_have_it_is_said() -> None:
    told = consequence("ANALYSES", {"ANALYSES", CACHE})
    assert "paid for twice" in told
    assert "delete the consumer stage1" in told
