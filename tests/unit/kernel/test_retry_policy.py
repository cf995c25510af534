"""RetryPolicy as a table: what is decided for which error at which attempt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.errors import (
    BudgetReached,
    Outage,
    PermanentError,
    ProviderBlocked,
    ReplyRejected,
    TermRefused,
    Throttled,
    TransientError,
    UncertainCall,
)
from services.kernel.settings import RetrySettings
from services.kernel.stream.retry import GiveUp, Retry, RetryPolicy

POLICY = RetryPolicy(max_attempts=3, base_s=2.0, cap_s=10.0)
HALF = 0.5

VERDICTS = [
    # error, attempt, verdict at jitter 0.5
    (TransientError("reset"), 1, Retry(1.0)),
    (TransientError("reset"), 2, Retry(2.0)),
    (TransientError("reset"), 3, GiveUp("attempts_used_up")),
    (TransientError("reset"), 4, GiveUp("attempts_used_up")),
    (TransientError("busy", retry_after_s=4), 1, Retry(4.0)),
    (TransientError("busy", retry_after_s=0.1), 2, Retry(2.0)),
    (TransientError("absurd", retry_after_s=86_400), 1, Retry(10.0)),
    (UncertainCall("cut off"), 1, Retry(1.0)),
    (UncertainCall("cut off"), 3, GiveUp("attempts_used_up")),
    (ReplyRejected("not_json", "prose"), 1, GiveUp("not_json")),
    (ReplyRejected("not_json", "prose"), 3, GiveUp("not_json")),
    (PermanentError("moderated", reason="moderation"), 1, GiveUp("moderation")),
    (PermanentError("no"), 1, GiveUp("permanent")),
    (TermRefused("term", "not_korean", "hello"), 1, GiveUp("not_korean")),
    (Outage("stream full"), 1, Retry(1.0, uses_attempt=False)),
    (Outage("stream full"), 99, Retry(5.0, uses_attempt=False)),
    (Throttled("429", retry_after_s=7), 99, Retry(7.0, uses_attempt=False)),
    (Throttled("429", retry_after_s=3600), 1, Retry(10.0, uses_attempt=False)),
    (ProviderBlocked("no credit", retry_after_s=9), 99, Retry(9.0, uses_attempt=False)),
    (ValueError("a bug of ours"), 1, Retry(1.0)),
    (ValueError("a bug of ours"), 3, GiveUp("unexpected_error")),
]


@pytest.mark.parametrize(("error", "attempt", "verdict"), VERDICTS, ids=repr)
def test_each_error_has_its_verdict(
    error: Exception, attempt: int, verdict: Retry | GiveUp
) -> None:
    assert POLICY.decide(error, attempt=attempt, jitter=HALF) == verdict


policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 20),
    base_s=st.floats(0.001, 60),
    cap_s=st.floats(0.001, 3600),
)
below_one = st.floats(0, 1, exclude_max=True)


@given(policies, st.integers(-1, 10_000), below_one)
def test_the_delay_lies_between_zero_and_the_doubled_bound(
    policy: RetryPolicy, attempt: int, jitter: float
) -> None:
    verdict = policy.decide(Outage("away"), attempt=attempt, jitter=jitter)
    assert isinstance(verdict, Retry)
    doubled = policy.base_s * 2.0 ** min(max(attempt, 1) - 1, 1000)
    assert 0 <= verdict.delay_s <= min(policy.cap_s, doubled)


@given(policies, st.integers(1, 10_000), below_one, st.floats(0, 1e9))
def test_a_named_delay_is_a_floor_up_to_the_cap(
    policy: RetryPolicy, attempt: int, jitter: float, named_s: float
) -> None:
    error = Throttled("429", retry_after_s=named_s)
    verdict = policy.decide(error, attempt=attempt, jitter=jitter)
    assert isinstance(verdict, Retry)
    assert min(named_s, policy.cap_s) <= verdict.delay_s <= policy.cap_s


@given(policies, st.integers(1, 100), below_one)
def test_only_the_last_attempt_gives_up_a_transient_error(
    policy: RetryPolicy, attempt: int, jitter: float
) -> None:
    verdict = policy.decide(TransientError("reset"), attempt=attempt, jitter=jitter)
    assert isinstance(verdict, GiveUp) == (attempt >= policy.max_attempts)


@given(policies, st.integers(1, 10_000), below_one)
def test_a_batch_over_its_budget_comes_back_within_thirty_seconds_and_uses_no_attempt(
    policy: RetryPolicy, attempt: int, jitter: float
) -> None:
    verdict = policy.decide(BudgetReached("used up"), attempt=attempt, jitter=jitter)
    assert isinstance(verdict, Retry)
    assert not verdict.uses_attempt
    bound = min(policy.cap_s, 30.0, policy.base_s * 2.0 ** min(attempt, 30))
    assert bound / 2 <= verdict.delay_s <= bound


def test_full_jitter_spreads_over_the_whole_range() -> None:
    delays = [
        verdict.delay_s
        for step in range(100)
        if isinstance(
            verdict := POLICY.decide(TransientError("x"), attempt=2, jitter=step / 100), Retry
        )
    ]
    assert delays == sorted(delays)
    assert (delays[0], round(delays[-1], 6)) == (0.0, 3.96)


def test_the_policy_takes_its_bounds_from_the_settings() -> None:
    settings = RetrySettings(max_attempts=7, base_s=0.5, cap_s=30)
    assert RetryPolicy.of(settings) == RetryPolicy(max_attempts=7, base_s=0.5, cap_s=30)
