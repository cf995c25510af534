"""Spans of time as people type them."""

from __future__ import annotations

from datetime import timedelta

import pytest
import typer

from services.cli.durations import read_duration


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("12h", timedelta(hours=12)),
        ("2d", timedelta(days=2)),
        ("0s", timedelta(0)),
        (" 7m ", timedelta(minutes=7)),
        ("999999999d", timedelta(days=999_999_999)),
    ],
)
def test_a_number_and_its_unit_are_a_span(text: str, span: timedelta) -> None:
    assert read_duration(text) == span


@pytest.mark.parametrize(
    "text", ["", "5", "m", "-5m", "1.5h", "1h30m", "2 d", "2w", "2D", "٢d", "1000000000d", "2d\n3"]
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="as in 90s, 30m"):
        read_duration(text)
