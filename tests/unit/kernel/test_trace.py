"""Trace context: kept where it is well-formed, begun anew where it is not."""

from __future__ import annotations

import re

import pytest

from services.kernel.stream.trace import Trace

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
WELL_FORMED = f"00-{TRACE_ID}-{SPAN_ID}-00"


def test_a_well_formed_header_is_kept_with_its_flags() -> None:
    trace = Trace.of({"traceparent": WELL_FORMED})
    assert trace == Trace(TRACE_ID, SPAN_ID, "00")
    assert trace.header() == WELL_FORMED


def test_a_child_has_the_same_trace_and_a_span_of_its_own() -> None:
    child = Trace.of({"traceparent": WELL_FORMED}).child()
    assert (child.trace_id, child.flags) == (TRACE_ID, "00")
    assert child.span_id != SPAN_ID
    assert re.fullmatch("[0-9a-f]{16}", child.span_id)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": ""},
        {"traceparent": "nonsense"},
        {"traceparent": WELL_FORMED.upper()},
        {"traceparent": f"01{WELL_FORMED[2:]}"},
        {"traceparent": f"{WELL_FORMED}-more"},
        {"traceparent": f"00-{'0' * 32}-{SPAN_ID}-01"},
        {"traceparent": f"00-{TRACE_ID}-{'0' * 16}-01"},
        {"traceparent": WELL_FORMED.replace("4bf9", "４bf9")},
        {"traceparent": f"{WELL_FORMED}\n"},
    ],
    ids=repr,
)
def test_without_a_usable_header_a_new_trace_begins(headers: dict[str, str]) -> None:
    trace = Trace.of(headers)
    assert trace.trace_id != TRACE_ID
    assert Trace.of({"traceparent": trace.header()}) == trace


def test_two_new_traces_differ() -> None:
    assert Trace.new().trace_id != Trace.new().trace_id
