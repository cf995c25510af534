"""A broker that lies must not get away with it: the promises of the model can be broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from model.broker import Headers, Reply, Stream
from model.promises import broken, broken_at_the_end
from model.provider import Mood
from model.replica import STAGES
from model.world import World

from services.kernel import topology


@pytest.fixture
def world() -> Iterator[World]:
    opened = World(seed=1)
    for stage in STAGES:
        opened.start_replica(stage.service)
    yield opened
    opened.loop.shut()


class Forgetful(Stream):
    """Acknowledges what it is given, and keeps nothing."""

    def publish(self, subject: str, data: bytes, headers: Headers) -> Reply:
        reply = super().publish(subject, data, headers)
        stored = self.last(subject)
        if stored is not None:
            self.drop(stored)
        return reply


def forget(name: str) -> Callable[[World], None]:
    def plant(world: World) -> None:
        world.broker.streams[name].__class__ = Forgetful

    return plant


def accept_in_two_batches(world: World) -> None:
    for batch in ("b1", "b2"):
        world.accept("책", batch)
        world.loop.run_for(60)


def test_a_world_without_faults_keeps_its_promises(world: World) -> None:
    accept_in_two_batches(world)
    assert broken_at_the_end(world) == []
    assert world.was_peaceful
    assert len(world.provider.calls) == len(STAGES)
    assert len(world.broker.streams[topology.CARDS.name].subjects()) == 2


@pytest.mark.parametrize(
    ("plant", "breach"),
    [
        (forget("CARDS"), "is lost"),
        (forget("KV_COMPLETIONS"), "billed successes"),
        (forget("KV_ATTEMPTS"), "without a record"),
    ],
)
def test_what_a_broker_forgets_is_noticed(
    world: World, plant: Callable[[World], None], breach: str
) -> None:
    plant(world)
    accept_in_two_batches(world)
    assert any(breach in found for found in broken(world))


def test_what_nobody_works_on_is_noticed_at_the_end(world: World) -> None:
    world.accept("책", "b1")
    world.network.set_down(True)
    world.loop.run_for(3_600)
    assert broken(world) == []
    assert any("never ended" in found for found in broken_at_the_end(world))


def test_being_throttled_for_long_uses_no_attempt_and_pays_once(world: World) -> None:
    world.provider.moods.extend([Mood.BUSY_LONG] * 20)
    world.accept("책", "b1")
    world.loop.run_for(3_600)
    assert broken_at_the_end(world) == []
    assert world.letters() == []
    assert [call.mood for call in world.provider.calls].count(Mood.FIT) == len(STAGES)
