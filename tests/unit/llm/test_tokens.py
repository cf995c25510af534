"""How many tokens a call is taken for, before and after it."""

from __future__ import annotations

import pytest

from services.kernel.contracts.provenance import Usage
from services.kernel.llm.tokens import TokenEstimate


def usage(prompt: int, completion: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion)


def test_before_the_first_answer_a_call_is_taken_for_all_that_it_may_be() -> None:
    assert TokenEstimate().of(3_000, 2_048) == 1_000 + 2_048


def test_then_for_the_longest_completion_of_late() -> None:
    estimate = TokenEstimate()
    for completion in (300, 700, 200):
        estimate.learn(usage(900, completion), 3_000, 2_048)
    assert estimate.of(3_000, 2_048) == 1_000 + 700
    assert estimate.of(3_000, 500) == 1_000 + 500
    for _ in range(50):
        estimate.learn(usage(900, 250), 3_000, 2_048)
    assert estimate.of(3_000, 2_048) == 1_000 + 250


def test_what_was_used_is_prompt_and_completion() -> None:
    assert TokenEstimate().learn(usage(900, 250), 3_000, 2_048) == 1_150


@pytest.mark.parametrize(
    ("prompt", "completion"), [(0, 0), (0, 250), (900, 0), (3_001, 250), (900, 10**12)]
)
def test_usage_that_is_missing_or_can_not_be_true_is_not_learnt(
    prompt: int, completion: int
) -> None:
    estimate = TokenEstimate()
    assert estimate.learn(usage(prompt, completion), 3_000, 2_048) == 0
    assert estimate.of(3_000, 2_048) == 1_000 + 2_048
