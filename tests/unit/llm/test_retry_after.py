"""How long a provider asks us to wait, in each form, and against any nonsense."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.kernel.llm.retry_after import LONGEST_S, retry_after_s

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
NOW_S = NOW.timestamp()
IN_40_S = datetime(2026, 5, 4, 12, 0, 40, tzinfo=UTC)
A_MINUTE_AGO = datetime(2026, 5, 4, 11, 59, tzinfo=UTC)


HINTS: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"retry-after": "7"}, 7),
    ({"retry-after": "1.5"}, 1.5),
    ({"retry-after": "0"}, None),
    ({"retry-after": "-3"}, None),
    ({"retry-after": "86400"}, LONGEST_S),
    ({"retry-after": format_datetime(IN_40_S, usegmt=True)}, 40),
    ({"retry-after": format_datetime(A_MINUTE_AGO, usegmt=True)}, None),
    ({"retry-after": "Mon, 04 May 2026 12:00:40 -0000"}, 40),
    ({"retry-after": "Mon, 04 May 2026 14:00:40 +0200"}, 40),
    ({"retry-after": "soon"}, None),
    ({"retry-after": ""}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, None),
    ({"retry-after-ms": "2500"}, 2.5),
    ({"retry-after-ms": "later"}, None),
    ({"x-ratelimit-reset": str(int((NOW_S + 12) * 1000))}, 12),
    ({"x-ratelimit-reset": str(int((NOW_S - 12) * 1000))}, None),
    ({"x-ratelimit-reset": str(int((NOW_S + 3_600) * 1000))}, LONGEST_S),
    ({"x-ratelimit-reset": "never"}, None),
    ({"retry-after": "5", "retry-after-ms": "2500"}, 5),
    (
        {
            "retry-after": "5",
            "retry-after-ms": "9000",
            "x-ratelimit-reset": str(int((NOW_S + 30) * 1000)),
        },
        30,
    ),
    ({"retry-after": "nonsense", "retry-after-ms": "2500"}, 2.5),
]


@pytest.mark.parametrize(("headers", "expected"), HINTS, ids=repr)
def test_the_longest_sensible_hint_counts(headers: dict[str, str], expected: float | None) -> None:
    waited = retry_after_s(headers, now=NOW_S)
    assert waited == (None if expected is None else pytest.approx(expected))


def test_the_names_of_headers_may_be_written_in_any_case() -> None:
    assert retry_after_s(httpx.Headers({"Retry-After": "7"})) == 7


def test_without_a_given_time_dates_are_read_against_the_clock() -> None:
    long_gone = format_datetime(A_MINUTE_AGO.replace(year=2020), usegmt=True)
    far_off = format_datetime(A_MINUTE_AGO.replace(year=2999), usegmt=True)
    assert retry_after_s({"retry-after": long_gone}) is None
    assert retry_after_s({"retry-after": far_off}) == LONGEST_S


hints = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.floats().map(str),
    st.datetimes().map(lambda moment: format_datetime(moment.replace(tzinfo=UTC), usegmt=True)),
    st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{1,10} [-+A-Z0-9]*"),
)


@given(value=hints, name=st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset"]))
@example("Mon, 01 Jan 0001 00:00:00 -0000", "retry-after")
@example("Mon, 99 May 99999999999999999999 12:00:00 GMT", "retry-after")
@example("9" * 400, "retry-after-ms")
def test_whatever_stands_in_a_header_the_wait_is_none_or_within_its_bound(
    value: str, name: str
) -> None:
    waited = retry_after_s({name: value}, now=NOW_S)
    assert waited is None or 0 < waited <= LONGEST_S
