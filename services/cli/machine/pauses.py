"""Pauses on the command line: which services, for how long, and how they are shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from services.kernel.errors import SettingsError
from services.kernel.provisioning.pausing import is_open_ended, until_words
from services.kernel.topology import SERVICES, ServiceName

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PART: Final = re.compile(r"(\d{1,9})([smhd])", re.ASCII)
_LONGEST: Final = timedelta(days=3650)


def services_named(names: Iterable[str]) -> list[ServiceName]:
    """In the order of a term's walk, each once. Raises SettingsError for a name that is none."""
    wanted = set(names)
    if unknown := sorted(wanted - set(SERVICES)):
        raise SettingsError(f"{unknown[0]!r} is no service; the services are {', '.join(SERVICES)}")
    return [service for service in SERVICES if service in wanted]


def lasting_of(text: str) -> timedelta:
    """`90s`, `30m`, `2h`, `1d`, or several of them: `1h30m`. Raises SettingsError."""
    parts = _PART.findall(text)
    seconds = sum(int(number) * _UNITS_S[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or not seconds:
        raise SettingsError(f"--for {text!r} is no time; write 90s, 30m, 2h, 1d or 1h30m")
    if seconds > _LONGEST.total_seconds():
        raise SettingsError(f"--for {text!r} is over ten years; leave it out to pause for good")
    return timedelta(seconds=seconds)


def pauses_as_json(paused: Mapping[ServiceName, datetime]) -> dict[str, str | None]:
    """Each paused service with the end of its pause; null for one that lasts until resumed."""
    return {
        service: None if is_open_ended(until) else until.isoformat()
        for service, until in paused.items()
    }


def pauses_line(paused: Mapping[ServiceName, datetime]) -> str:
    """`paused: stage1 until resumed, stage2 until …; go on with: cardflow resume stage1 stage2`."""
    ends = ", ".join(f"{service} {until_words(until)}" for service, until in paused.items())
    return f"paused: {ends}; go on with: cardflow resume {' '.join(paused)}"
