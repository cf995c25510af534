"""The promises under any order of faults, found by letting hypothesis choose the steps.

A failure prints its steps and a line that reproduces it. `CARDFLOW_MODEL_SEED` explores other
worlds than the ones that every run looks at; the long form is `pytest -m long tests/model`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from decimal import Decimal
from typing import get_args

import pytest
import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model.network import DEATHS, KINDS, TROUBLES, Fate, Planned
from model.promises import broken, broken_at_the_end
from model.provider import Mood
from model.replica import STAGES
from model.world import World

from services.kernel.contracts.term import Priority
from services.kernel.topology import consumers_of

TERMS = ("책", "물")
BATCHES = ("b1", "b2", "b3")
"""Only the last one is ever cancelled."""
REPLICAS_MAX = 3
FULL = (
    "ANALYSES",
    "CARDS",
    "LANES",
    "DEAD_LETTERS",
    "KV_COMPLETIONS",
    "KV_ATTEMPTS",
    "KV_CLAIMS",
    "KV_FLEET",
)
BUDGETS_USD = tuple(map(Decimal, ("0.001", "0.002", "0.005", "0.02")))
"""Of no call, of one, of two, of ten."""
MOMENTS_S = (0.002, 0.005, 0.01, 0.02, 0.05)
WHILES_S = (0.3, 0.6, 2.0, 8.0)
AGES_S = (25.0, 90.0)
_HEALED_WITHIN_S = 3_600.0
_LOOK_S = 60.0
_JOURNAL_LINES = 120

submissions = st.tuples(
    st.sampled_from(TERMS), st.sampled_from(BATCHES), st.sampled_from(get_args(Priority))
)
Submission = tuple[str, str, Priority]
stages = st.sampled_from([stage.service for stage in STAGES])
durables = st.sampled_from(
    [reads.durable for stage in STAGES for reads in consumers_of(stage.service)]
)


class DeliveryModel(RuleBasedStateMachine):
    """One world, from its first replica to the end of every term."""

    @initialize(
        number=st.integers(0, 2**16),
        accepted=st.lists(submissions, min_size=1, max_size=4),
        moods=st.lists(st.sampled_from(Mood), max_size=8),
        budget=st.none() | st.sampled_from(BUDGETS_USD),
    )
    def open_world(
        self,
        number: int,
        accepted: list[Submission],
        moods: list[Mood],
        budget: Decimal | None,
    ) -> None:
        """With work at hand from the beginning, and a provider that may be in no good mood."""
        self.world = World(number)
        self.world.set_budget(budget)
        self.world.provider.moods.extend(moods)
        for stage in STAGES:
            self.world.start_replica(stage.service)
        for submission in accepted:
            self.world.accept(*submission)

    # What people do.

    @rule(submission=submissions)
    def accept(self, submission: Submission) -> None:
        """Also twice, with another priority, and the same term in another batch."""
        self.world.accept(*submission)

    @rule()
    def cancel_a_batch(self) -> None:
        self.world.cancel(BATCHES[-1])

    @precondition(lambda self: self.world.limits.day_usd is not None)
    @rule(more=st.sampled_from(BUDGETS_USD))
    def raise_the_budget(self, more: Decimal) -> None:
        day_usd = self.world.limits.day_usd
        assert day_usd is not None
        self.world.set_budget(day_usd + more)

    @precondition(lambda self: self.world.is_whole)
    @rule(batch=st.sampled_from(BATCHES), more=st.sampled_from(BUDGETS_USD))
    def give_a_batch_a_budget_or_raise_it(self, batch: str, more: Decimal) -> None:
        self.world.raise_batch_budget(batch, more)

    @precondition(lambda self: self.world.is_whole and self.world.letters())
    @rule(place=st.integers(0, 10))
    def replay_a_dead_letter(self, place: int) -> None:
        letters = self.world.letters()
        self.world.replay(letters[place % len(letters)])

    # What time and operators do.

    @rule(seconds=st.sampled_from(MOMENTS_S))
    def let_a_moment_pass(self, seconds: float) -> None:
        self.world.loop.run_for(seconds)

    @rule(seconds=st.sampled_from(WHILES_S))
    def let_time_pass(self, seconds: float) -> None:
        self.world.loop.run_for(seconds)

    @rule(seconds=st.sampled_from(AGES_S))
    def let_a_long_time_pass(self, seconds: float) -> None:
        """Longer than ack_wait, and than any claim lives."""
        self.world.loop.run_for(seconds)

    @rule(stage=stages)
    def start_a_replica(self, stage: str) -> None:
        if len(self.world.living(stage)) < REPLICAS_MAX:
            self.world.start_replica(stage)

    @rule(place=st.integers(0, 5))
    def stop_a_replica_in_order(self, place: int) -> None:
        living = self.world.living()
        if living:
            self.world.stop_replica(living[place % len(living)])

    @rule(durable=durables)
    def hand_everything_out_again(self, durable: str) -> None:
        """As after the consumer was made anew, or a whole stream was sent again."""
        self.world.consumers[durable].begin_anew()

    @rule()
    def lose_the_lanes(self) -> None:
        self.world.lose_the_lanes()

    # What goes wrong. Each rule sets a state instead of changing it: that makes short examples.

    @rule(place=st.integers(0, 5))
    def kill_a_replica(self, place: int) -> None:
        living = self.world.living()
        if living:
            living[place % len(living)].die()

    @rule(
        kind=st.sampled_from(list(KINDS)),
        fate=st.sampled_from((*TROUBLES, *DEATHS)),
        skip=st.integers(0, 3),
    )
    def plan_trouble_on_the_way(self, kind: str, fate: Fate, skip: int) -> None:
        self.world.network.planned.append(Planned(kind, fate, skip))

    @rule(loss=st.sampled_from((0.0, 0.05, 0.3)))
    def change_the_weather(self, loss: float) -> None:
        self.world.network.loss = loss

    @rule(is_down=st.booleans())
    def take_the_broker_away_or_bring_it_back(self, is_down: bool) -> None:
        self.world.network.set_down(is_down)

    @rule(durable=durables)
    def crash_the_broker(self, durable: str) -> None:
        self.world.consumers[durable].count_less()

    @rule(name=st.sampled_from(FULL), is_full=st.booleans())
    def fill_or_empty(self, name: str, is_full: bool) -> None:
        self.world.broker.streams[name].is_full = is_full

    @rule(mood=st.sampled_from(Mood), calls=st.integers(1, 6))
    def put_the_provider_in_a_mood(self, mood: Mood, calls: int) -> None:
        self.world.provider.moods.extend([mood] * calls)

    # What must hold.

    @invariant()
    def promises_hold(self) -> None:
        self._check(broken(self.world))

    def teardown(self) -> None:
        """All faults end; then everything comes to its end."""
        world = getattr(self, "world", None)
        if world is None:
            return
        try:
            world.heal()
            deadline_s = world.loop.time() + _HEALED_WITHIN_S
            while world.loop.time() < deadline_s and not world.is_quiet:
                world.loop.run_for(_LOOK_S)
            self._check(broken_at_the_end(world))
        finally:
            world.loop.shut()

    def _check(self, breaches: list[str]) -> None:
        if breaches:
            story = self.world.story(_JOURNAL_LINES)
            raise AssertionError("\n".join([*breaches, "what happened:", story]))


@pytest.fixture(autouse=True)
def _no_log_lines() -> Iterator[None]:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        cache_logger_on_first_use=False,
    )
    yield
    structlog.reset_defaults()


def explore(*, examples: int, steps: int) -> None:
    """Runs the model; the same worlds each time, unless CARDFLOW_MODEL_SEED names others."""
    number = os.environ.get("CARDFLOW_MODEL_SEED")
    machine = seed(int(number))(DeliveryModel) if number else DeliveryModel
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=number is None,
            database=None,
            deadline=None,
            print_blob=True,
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_promises_hold_whatever_happens() -> None:
    explore(examples=300, steps=30)


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_the_promises_hold_in_many_more_worlds() -> None:
    explore(examples=int(os.environ.get("CARDFLOW_MODEL_EXAMPLES", "2000")), steps=50)
