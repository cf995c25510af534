"""Spans of time as people type them: `90s`, `30m`, `12h`, `2d`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

import typer

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d{1,9})([smhd])", re.ASCII)


def read_duration(text: str) -> timedelta:
    """The span that a text names: a whole number and its unit. Raises typer.BadParameter."""
    named = _DURATION.fullmatch(text.strip())
    if named is None:
        raise typer.BadParameter(
            f"{text!r} is no span of time; write a whole number and its unit, as in 90s, 30m, "
            "12h or 2d"
        )
    number, unit = named.groups()
    return timedelta(**{_UNITS[unit]: int(number)})
