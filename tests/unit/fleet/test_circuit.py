"""A circuit: what passes it when, and who probes it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.fleet.health.circuit import Circuit

NOW = 1_000.0


def opened(circuit: Circuit, now: float, *, jitter: float = 0.0, **changes: Any) -> Circuit:
    lengths = {"first_s": 5.0, "longest_s": 30.0, "reason": "down", **changes}
    return circuit.opened(now, jitter=jitter, **lengths)


def test_a_new_circuit_is_closed_and_lets_everybody_pass() -> None:
    assert Circuit().state(NOW) == "closed"
    assert Circuit().admits(NOW)


def test_it_is_open_until_its_time_and_then_half_open_without_a_write() -> None:
    circuit = opened(Circuit(), NOW)
    assert [circuit.state(NOW + s) for s in (0, 4.9, 5, 500)] == [
        "open",
        "open",
        "half-open",
        "half-open",
    ]
    assert not circuit.admits(NOW + 4.9, "me")
    assert not circuit.admits(NOW + 5)


def test_each_opening_is_twice_as_long_up_to_the_longest_and_a_closing_begins_anew() -> None:
    circuit, lengths = Circuit(), []
    for _ in range(5):
        circuit = opened(circuit, NOW)
        lengths.append(circuit.open_until - NOW)
    assert lengths == [5, 10, 20, 30, 30]
    again = opened(circuit.closed(NOW + 60), NOW + 61)
    assert again.open_until == NOW + 66


@given(jitter=st.floats(0, 1), times=st.integers(1, 12))
def test_jitter_only_shortens_and_never_by_more_than_a_quarter(jitter: float, times: int) -> None:
    circuit = Circuit()
    for _ in range(times):
        circuit = opened(circuit, NOW, jitter=jitter)
    assert 0.75 * circuit.length_s <= circuit.open_until - NOW <= circuit.length_s <= 30


def test_of_a_half_open_circuit_one_probe_passes_and_nobody_else() -> None:
    circuit = opened(Circuit(), NOW).probed(NOW + 5, "a", until=NOW + 35)
    assert circuit.admits(NOW + 6, "a")
    assert not circuit.admits(NOW + 6, "b")
    assert circuit.probed(NOW + 6, "b", until=NOW + 36) == circuit


def test_a_probe_whose_holder_died_is_free_again_after_its_time() -> None:
    circuit = opened(Circuit(), NOW).probed(NOW + 5, "a", until=NOW + 35)
    assert circuit.probed(NOW + 35, "b", until=NOW + 65).admits(NOW + 36, "b")


def test_an_open_circuit_gives_no_probe() -> None:
    circuit = opened(Circuit(), NOW)
    assert circuit.probed(NOW + 4, "a", until=NOW + 35) == circuit


@pytest.mark.parametrize(("releasing", "is_free"), [("a", True), ("b", False), ("", False)])
def test_only_its_holder_releases_a_probe(releasing: str, *, is_free: bool) -> None:
    circuit = opened(Circuit(), NOW).probed(NOW + 5, "a", until=NOW + 35).released(releasing)
    assert (circuit.probed(NOW + 6, "c", until=NOW + 36).probe == "c") is is_free


def test_opening_and_closing_take_the_probe_away() -> None:
    circuit = opened(Circuit(), NOW).probed(NOW + 5, "a", until=NOW + 35)
    assert not opened(circuit, NOW + 6).probe
    assert circuit.closed(NOW + 6) == Circuit(changed_at=NOW + 6)


def test_what_began_before_the_last_change_is_old_news() -> None:
    circuit = opened(Circuit(), NOW)
    assert circuit.is_old_news(NOW - 1)
    assert not circuit.is_old_news(NOW + 5)
    assert not Circuit().is_old_news(NOW)
