"""What is filled again after a loss, and from what; what is gone is said."""

from __future__ import annotations

import pytest

from services.kernel import topology
from services.kernel.provisioning.losses import consequence, feeder_of

CACHE = "KV_COMPLETIONS"
EVERYTHING = {s.name for s in topology.STREAMS} | {f"KV_{b.name}" for b in topology.BUCKETS}


@pytest.mark.parametrize(
    ("lost_one", "lost", "feeder"),
    [
        ("TERMS", {"TERMS"}, "ingest"),
        ("ANALYSES", {"ANALYSES"}, "stage1"),
        ("CARDS", {"CARDS"}, "stage2"),
        ("CARDS", {"CARDS", "ANALYSES", "TERMS"}, "stage2"),
        ("TERMS", {"TERMS", CACHE}, "ingest"),
        ("ANALYSES", {"ANALYSES", CACHE}, None),
        ("CARDS", {"CARDS", CACHE}, None),
        ("TERMS", {"TERMS", "SUBMISSIONS"}, None),
        ("CARDS", {"CARDS", "ANALYSES", "TERMS", "SUBMISSIONS"}, None),
        ("SUBMISSIONS", {"SUBMISSIONS"}, None),
        ("DEAD_LETTERS", {"DEAD_LETTERS"}, None),
        (CACHE, {CACHE}, None),
    ],
)
def test_a_stream_is_filled_by_who_writes_it_while_its_source_and_the_cache_are_there(
    lost_one: str, lost: set[str], feeder: str | None
) -> None:
    found = feeder_of(lost_one, lost)
    assert (found.durable if found else None) == feeder
    assert ("filled again by" in consequence(lost_one, lost)) == (feeder is not None)


@pytest.mark.parametrize("lost_one", sorted(EVERYTHING))
def test_every_loss_has_its_consequence_and_a_new_server_has_none(lost_one: str) -> None:
    assert consequence(lost_one, {lost_one})
    assert consequence(lost_one, EVERYTHING)
    assert consequence(lost_one, set()) == ""


def test_what_would_be_paid_for_twice_is_not_filled_and_how_to_have_it_is_said() -> None:
    told = consequence("ANALYSES", {"ANALYSES", CACHE})
    assert "paid for twice" in told
    assert "delete the consumer stage1" in told
