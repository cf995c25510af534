"""What differs between the topology and a server: the comparison, and how to say it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

_TOLERABLE: Final = frozenset(
    {
        "ack_wait",
        "description",
        "duplicate_window",
        "max_ack_pending",
        "max_age",
        "max_bytes",
        "max_msg_size",
        "num_replicas",
        "storage",
    }
)
"""Bounds, and what an operator chose: work goes on with another value. All other settings carry a
promise: who reads what, and that the first write wins."""


@dataclass(frozen=True)
class Drift:
    """One thing that is not as the topology says. `found` of None: it does not exist.

    `note`: what the repair means, such as what is lost for good, or why the server refuses it.
    """

    kind: str
    name: str
    setting: str
    wanted: Any
    found: Any
    changed: bool
    note: str = ""

    @property
    def is_serious(self) -> bool:
        """True when work can't go on, or not safely, until it is repaired."""
        return self.setting not in _TOLERABLE

    @property
    def is_missing(self) -> bool:
        return self.setting == "exists"

    def __str__(self) -> str:
        note = f"; {self.note}" if self.note else ""
        if self.is_missing:
            return f"{self.kind} {self.name}: {'created' if self.changed else 'missing'}{note}"
        done = "changed to" if self.changed else "should be"
        wanted = getattr(self.wanted, "value", self.wanted)
        return f"{self.kind} {self.name}: {self.setting} is {self.found}, {done} {wanted}{note}"


def differing(wanted: Any, found: Any, *, bounds: bool = True) -> list[tuple[str, Any, Any]]:
    """(setting, wanted, found) of what the topology names; what it leaves open is not compared.

    `bounds` of False: only what is serious.
    """
    different = []
    for setting, value in vars(wanted).items():
        actual = getattr(found, setting)
        if value is None or _same(value, actual) or (setting in _TOLERABLE and not bounds):
            continue
        different.append((setting, value, actual))
    return different


def _same(wanted: Any, found: Any) -> bool:
    if found is None:  # The server leaves out what is false, zero or empty.
        return not wanted or wanted == -1
    if isinstance(wanted, list):
        return sorted(wanted) == sorted(found)
    return bool(wanted == found)
