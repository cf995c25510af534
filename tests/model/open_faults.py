"""Breaches that are known and not yet mended, so that the model can look for others.

Each has a scenario in `test_open_faults.py` that is expected to fail; when it passes, its line here
goes with it.
"""

from __future__ import annotations

from collections.abc import Callable

from model.world import World

from services.kernel import topology


def _stream_was_sent_again(world: World) -> bool:
    return any(consumer.was_begun_anew for consumer in world.consumers.values())


def _died_with_a_completion_wanted_twice(world: World) -> bool:
    subjects = world.broker.streams[topology.TERMS.name].subjects()
    ids = [subject.rsplit(".", 1)[1] for subject in subjects]
    return world.deaths > 0 and len(ids) > len(set(ids))


def _died(world: World) -> bool:
    return world.deaths > 0


_OPEN: tuple[tuple[str, Callable[[World], bool]], ...] = (
    ("attempts at replay", _died),
    ("paid for and is dead", _died),
    ("is published and", _stream_was_sent_again),
    ("billed successes", _died_with_a_completion_wanted_twice),
    ("is recorded 2 times", _died_with_a_completion_wanted_twice),
    ("served more often", _died_with_a_completion_wanted_twice),
    ("were charged", _died_with_a_completion_wanted_twice),
)


def is_open(world: World, breach: str) -> bool:
    return any(words in breach and applies(world) for words, applies in _OPEN)
