"""A limit that nobody told us: found, kept just below, given up when it was none."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.fleet.health.learning import Learned

NOW = 10_000.0


def found(per_minute: float, now: float = NOW) -> Learned:
    return Learned().asked(now - 1).refused(now, now, until=now + 1, per_minute=per_minute)


def test_without_a_refusal_the_limit_doubles_until_there_is_none() -> None:
    learned = Learned().asked(NOW)
    assert learned.limit(NOW) == 6_000
    assert learned.limit(NOW + 0.5) == 24_000
    assert learned.limit(NOW + 1.25) == 0
    assert learned.limit(NOW + 1e9) == 0


def test_after_a_refusal_it_is_just_below_what_was_granted() -> None:
    learned = found(1_200)
    assert learned.limit(NOW + 1) == pytest.approx(0.98 * 1_200)
    assert learned.limit(NOW + 11) == pytest.approx(1_200)
    assert 1_200 < learned.limit(NOW + 22) < 1.05 * 1_200
    assert learned.limit(NOW + 1e6) == 2_400


def test_calls_that_were_under_way_tell_nothing_new() -> None:
    learned = found(1_200)
    assert learned.refused(NOW + 0.5, NOW + 0.6, until=NOW + 2, per_minute=10) == learned


def test_each_refusal_that_confirms_the_limit_is_followed_by_a_longer_plateau() -> None:
    learned, now, plateaus = found(1_200), NOW, []
    for _ in range(4):
        plateaus.append(learned.plateau_s)
        now += 1 + 1.2 * learned.plateau_s
        learned = learned.answered(now).refused(now, now, until=now + 1, per_minute=1_205)
    assert plateaus == [10, 20, 40, 60]


def test_a_second_refusal_lowers_it_a_little_when_it_was_in_use_else_by_a_fifth_at_most() -> None:
    learned = found(1_200).answered(NOW + 2)
    now = NOW + 11
    low = learned.refused(now, now, until=now + 1, per_minute=1)
    assert low.limit(now + 1) == pytest.approx(0.98 * 0.8 * 1_200)
    assert low.plateau_s == 10
    high = learned.refused(now, now, until=now + 1, per_minute=99_999)
    assert high.limit(now + 1) == pytest.approx(0.98 * 0.99 * 1_200)


def test_two_cool_downs_in_vain_bring_back_what_was_known_before() -> None:
    learned = found(1_200).answered(NOW + 2)
    before = learned.limit(NOW + 40)
    for now in (NOW + 40, NOW + 42, NOW + 44):
        learned = learned.refused(now, now, until=now + 1, per_minute=5)
    assert learned.limit(NOW + 45) == pytest.approx(before)


def test_a_storm_without_any_limit_known_leaves_none() -> None:
    learned = Learned().asked(NOW - 100)
    for now in (NOW, NOW + 5, NOW + 10):
        learned = learned.refused(now, now, until=now + 1, per_minute=5)
    assert learned.limit(NOW + 11) == 0


def test_an_answer_to_a_call_from_before_the_storm_does_not_end_the_series() -> None:
    learned = found(1_200)
    assert learned.answered(NOW - 1) == learned
    assert learned.answered(NOW + 2).vain_since == 0


def test_time_alone_doubles_it_at_most_and_use_raises_it_on() -> None:
    learned, later = found(60), NOW + 1_000
    assert learned.used(later, granted_per_minute=30) == learned
    raised = learned.used(later, granted_per_minute=118)
    assert raised.limit(later) == pytest.approx(120)
    assert raised.limit(later + 1_000) == 240


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["refused", "answered", "used"]),
            st.floats(0, 100),
            st.floats(0, 1e6),
        ),
        max_size=60,
    )
)
def test_whatever_happens_the_limit_is_none_or_positive(
    events: list[tuple[str, float, float]],
) -> None:
    learned, now = Learned().asked(NOW), NOW
    for kind, pause_s, rate in events:
        now += pause_s
        if kind == "refused":
            learned = learned.refused(now, now, until=now + 1, per_minute=rate)
        elif kind == "answered":
            learned = learned.answered(now)
        else:
            learned = learned.used(now, rate)
        assert learned.limit(now) == 0 or learned.limit(now) >= 0.95
        assert Learned.model_validate_json(learned.to_bytes()) == learned


@dataclass
class SlidingLimit:
    """A provider that takes `limit` calls in any `window_s`, on a clock of ours.

    It takes only a quarter of that from `falls_at` on.
    """

    limit: int
    window_s: float = 1.0
    falls_at: float = math.inf
    taken: deque[float] = field(default_factory=deque)
    refused: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)

    def takes(self, now: float) -> bool:
        while self.taken and self.taken[0] <= now - self.window_s:
            self.taken.popleft()
        if len(self.taken) >= (self.limit if now < self.falls_at else self.limit / 4):
            self.refused.append(now)
            return False
        self.taken.append(now)
        self.answered.append(now)
        return True

    def hint_s(self, now: float) -> float:
        return float(-(-(self.taken[0] + self.window_s - now) // 1))


def run(provider: SlidingLimit, *, lasting_s: float, late_s: float) -> None:
    """A fleet that always has work, paced evenly by what it learns. `late_s`: how much later a
    call arrives than its permit says, in turn by nothing and by all of it; and how long all
    replicas go on after a refusal until they have heard of it."""
    learned, now, permits = Learned().asked(NOW), NOW, deque[float]()
    closed_until, nth = 0.0, 0
    while now < NOW + lasting_s:
        began_at = now + late_s * (nth % 2)
        nth += 1
        permits.append(began_at)
        if provider.takes(began_at):
            learned = learned.answered(began_at)
        else:
            hint_s = provider.hint_s(began_at)
            window_s = learned.window_s(hint_s, began_at)
            granted = sum(1 for at in permits if at > began_at - window_s)
            closed_until = max(closed_until, began_at + hint_s)
            learned = learned.refused(
                began_at, began_at, until=closed_until, per_minute=60 * granted / window_s
            )
        now += 60 / (learned.limit(now) or 60_000)
        if now > (provider.refused[-1] if provider.refused else 0) + late_s:
            now = max(now, closed_until)
        while permits and permits[0] < now - 61:
            permits.popleft()


@pytest.mark.parametrize(
    ("limit", "window_s", "late_s"),
    [
        (20, 1.0, 0.0),
        (20, 1.0, 0.01),
        (20, 1.0, 0.05),
        (5, 1.0, 0.01),
        (200, 1.0, 0.01),
        (300, 60.0, 0.05),
    ],
)
def test_an_unknown_limit_is_found_and_used_with_few_refusals(
    limit: int, window_s: float, late_s: float
) -> None:
    provider = SlidingLimit(limit, window_s)
    run(provider, lasting_s=240, late_s=late_s)
    settled = [at for at in provider.answered if at > NOW + 60]
    assert len(settled) >= 0.9 * 180 * limit / window_s
    assert len(provider.refused) < 0.02 * (len(provider.answered) + len(provider.refused))


def test_a_limit_that_falls_to_a_quarter_is_found_again() -> None:
    provider = SlidingLimit(20, falls_at=NOW + 60)
    run(provider, lasting_s=180, late_s=0.01)
    settled = [at for at in provider.answered if at > NOW + 120]
    assert len(settled) >= 0.9 * 60 * 5
    assert len([at for at in provider.refused if at > NOW + 120]) <= 3
