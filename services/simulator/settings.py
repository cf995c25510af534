"""What can be turned at the simulator, at its start and while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from services.kernel.errors import SettingsError

MODEL_ID: Final = "simulated/teacher-1"
"""The one model on the list. Any other name is answered as well."""

ERROR_KINDS: Final = (
    "429",
    "500",
    "502",
    "503",
    "504",
    "error_in_200",
    "error_in_choice",
    "reset",
    "cut",
)
"""`reset`: the connection drops before the first byte; `cut`: in the middle of the body."""

MALFORMED_KINDS: Final = (
    "truncated",
    "prose",
    "fenced",
    "trailing_prose",
    "missing_field",
    "wrong_term",
    "empty",
    "null",
    "refusal",
    "schema_violation",
    "no_choices",
    "tsv",
)
"""`fenced`, `trailing_prose` and `tsv` hold the right answer in an unasked form. `tsv` is for cards
only."""


_RATES: Final = ("tail_rate", "error_rate", "malformed_rate", "hang_rate")


@dataclass(frozen=True)
class SimulatorSettings:
    """Raises SettingsError for a value out of bounds.

    `latency_ms` ± `jitter_ms` (evenly spread, never below 0) passes before an answer; a share of
    `tail_rate` of the calls takes `tail_ms` longer. `rpm`: calls of one model in any
    60 s, `rps`: in any 1 s, 0: no limit; each model has its own count. `rate_headers`: answers
    tell what is left of these limits.
    `storm` answers every call with 429, and with a hint of any kind how long to wait, or none.
    The rates are shares of 0–1; `malformed_rate` is one of the calls that no error hits. A hang
    lasts until the caller gives up. An empty tuple of kinds means all kinds.
    `disagreement_rate`: share of terms that a model of another name than MODEL_ID analyses wrongly.
    `down` answers every call with 503, `refuse_status` with that status (401, 402, ...) unless 0.
    Equal seeds give equal fates to equal calls, in whatever order they come.
    """

    latency_ms: float = 50.0
    jitter_ms: float = 20.0
    tail_rate: float = 0.0
    tail_ms: float = 2_000.0
    rpm: int = 0
    rps: int = 0
    rate_headers: bool = False
    storm: bool = False
    error_rate: float = 0.0
    malformed_rate: float = 0.0
    hang_rate: float = 0.0
    disagreement_rate: float = 0.0
    error_kinds: tuple[str, ...] = ()
    malformed_kinds: tuple[str, ...] = ()
    seed: int = 0
    down: bool = False
    refuse_status: int = 0

    def __post_init__(self) -> None:
        for name in (*_RATES, "disagreement_rate"):
            _expect(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a share of 0 to 1")
        for name in ("latency_ms", "jitter_ms", "tail_ms", "rpm", "rps"):
            _expect(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name, known in (("error_kinds", ERROR_KINDS), ("malformed_kinds", MALFORMED_KINDS)):
            kinds = getattr(self, name)
            _expect(set(kinds) <= set(known), name, kinds, f"some of {', '.join(known)}")
        _expect(
            self.refuse_status == 0 or 400 <= self.refuse_status <= 599,
            "refuse_status",
            self.refuse_status,
            "0 or a status of 400 to 599",
        )

    def changed(self, changes: Mapping[str, Any]) -> SimulatorSettings:
        """These settings with some values changed, as they come from JSON."""
        defaults: dict[str, Any] = {field.name: field.default for field in fields(self)}
        for name, value in changes.items():
            _expect(name in defaults, name, value, f"one of {', '.join(defaults)}")
            _expect(_fits(value, defaults[name]), name, value, f"like {defaults[name]!r}")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in changes.items()
        }
        return replace(self, **values)


def _fits(value: object, default: object) -> bool:
    """Whether a JSON value is of the default's type; a bool is no number."""
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(isinstance(kind, str) for kind in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, int | float if isinstance(default, float) else int)


def _expect(holds: bool, name: str, seen: object, expected: str) -> None:
    if not holds:
        raise SettingsError(f"simulator setting {name} is {seen!r}; expected {expected}")
