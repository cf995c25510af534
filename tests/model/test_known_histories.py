"""Short histories that once broke a promise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from model.promises import broken_at_the_end
from model.provider import Mood
from model.replica import POLICY, STAGES
from model.world import World

from services.kernel import topology

HOUR_S = 3_600.0


@pytest.fixture
def world() -> Iterator[World]:
    opened = World(seed=331)
    for stage in STAGES:
        opened.start_replica(stage.service)
    yield opened
    opened.loop.shut()


def test_a_dead_term_whose_stream_is_sent_again_stays_dead(world: World) -> None:
    world.provider.moods.append(Mood.REFUSED)
    world.accept("책", "b1")
    world.loop.run_for(10)
    assert [letter.record.reason for letter in world.letters()] == ["moderated"]
    world.accept("책", "b2")
    world.loop.run_for(10)
    world.consumers["stage1"].begin_anew()
    world.loop.run_for(HOUR_S)
    assert broken_at_the_end(world) == []


def test_a_call_that_was_cut_off_does_not_take_the_answer_of_another_batch(world: World) -> None:
    """The claim of the dead runs out before its message is handed out again."""
    world.start_replica("stage1")
    world.loop.run_for(3)
    world.provider.moods.append(Mood.SLOW)
    for batch in ("b1", "b2", "b3"):  # The first two for the one that dies, b3 for the other.
        world.accept("책", batch)
        world.loop.run_for(0.1)
    asking = world.living("stage1")[0]
    world.loop.run_for(11)
    asking.die()
    world.loop.run_for(HOUR_S)
    assert broken_at_the_end(world) == []


def test_a_term_that_was_paid_for_outlives_any_number_of_deaths(world: World) -> None:
    """Its last attempt has the answer; then its replica dies twice while it can't be published."""
    world.provider.moods.extend([Mood.BROKEN, Mood.PROSE, Mood.FIT])
    world.broker.streams[topology.ANALYSES.name].is_full = True
    world.accept("책", "b1")
    for _ in range(3):
        world.loop.run_for(60)
        [holding] = world.living("stage1")
        holding.die()
    world.heal()
    world.loop.run_for(HOUR_S)
    assert broken_at_the_end(world) == []
    assert world.letters() == []


def test_an_unfit_reply_is_mended_in_the_same_delivery(world: World) -> None:
    world.provider.moods.extend([Mood.PROSE, Mood.FIT, Mood.UNFIT, Mood.FIT])
    world.accept("책", "b1")
    world.loop.run_for(10)
    for history in world.ledgers().values():
        assert [a.is_repair for a in history.attempts] == [False, True]
    assert len(world.provider.calls) == 4
    assert broken_at_the_end(world) == []
    assert world.letters() == []


def test_what_stays_unfit_is_dead_after_one_repair_with_its_reason(world: World) -> None:
    world.provider.moods.extend([Mood.PROSE, Mood.FILTERED])
    world.accept("책", "b1")
    world.loop.run_for(HOUR_S)
    assert [letter.record.reason for letter in world.letters()] == ["finish_content_filter"]
    assert len(world.provider.calls) == 2
    assert broken_at_the_end(world) == []


def test_deaths_in_repairs_use_the_attempts_up(world: World) -> None:
    """Each delivery asks, is answered unfit, and dies in the repair: it must not go on for ever.

    The last attempt is an unfit reply, and there is none left to mend it.
    """
    world.provider.moods.extend([Mood.PROSE, Mood.SLOW] * 9)
    world.accept("책", "b1")
    for _ in range(9):
        world.loop.run_for(10)
        if world.provider.calls[-1].is_open:
            world.living("stage1")[0].die()
        world.loop.run_for(60)
    assert [letter.record.reason for letter in world.letters()] == ["not_json"]
    assert len(world.provider.calls) == POLICY.max_attempts
    assert broken_at_the_end(world) == []
