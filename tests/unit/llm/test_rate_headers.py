"""What the headers of an answer say of the calls that are left, in each form, and nonsense."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.llm.rate_headers import exhausted_for_s

NOW = 1_777_896_000.0

TOLD: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"x-ratelimit-remaining": "0"}, None),
    ({"x-ratelimit-reset": "30"}, None),
    ({"x-ratelimit-remaining": "1", "x-ratelimit-reset": "30"}, None),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}, 30),
    ({"x-ratelimit-remaining": "0.0", "x-ratelimit-reset": "1.5"}, 1.5),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW + 12))}, 12),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int((NOW + 12) * 1000))}, 12),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW - 12))}, None),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "-5"}, None),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "0"}, None),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9999999"}, None),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "soon"}, None),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "nan"}, None),
    ({"x-ratelimit-remaining": "none", "x-ratelimit-reset": "30"}, None),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}, 1),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "850ms"}, 0.85),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1h2m3.5s"}, 3_723.5),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m and"}, None),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2s"}, 2),
    ({"ratelimit-remaining": "0", "ratelimit-reset": "7"}, 7),
    ({"ratelimit": '"default";r=0;t=30'}, 30),
    ({"ratelimit": '"default";r=50;t=30'}, None),
    ({"ratelimit": '"second";r=3;t=1, "minute";r=0;t=40'}, 40),
    ({"ratelimit": "limit=100, remaining=0, reset=30"}, 30),
    ({"ratelimit": "limit=100, remaining=7, reset=30"}, None),
    ({"ratelimit": "r=0"}, None),
    (
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "9s",
        },
        9,
    ),
]


@pytest.mark.parametrize(("headers", "expected"), TOLD, ids=repr)
def test_how_long_no_call_is_left(headers: dict[str, str], expected: float | None) -> None:
    told = exhausted_for_s(httpx.Headers(headers), now=NOW)
    assert told == (None if expected is None else pytest.approx(expected))


@given(
    remaining=st.one_of(st.just("0"), st.text(max_size=20)),
    reset=st.one_of(st.text(max_size=300), st.floats().map(str), st.integers().map(str)),
)
def test_whatever_stands_in_them_it_is_none_or_within_a_day(remaining: str, reset: str) -> None:
    for headers in (
        {"x-ratelimit-remaining": remaining, "x-ratelimit-reset": reset},
        {"ratelimit": f"r={remaining};t={reset}"},
    ):
        told = exhausted_for_s(headers, now=NOW)
        assert told is None or 0 < told <= 86_400
