"""Where models of other names see a term otherwise than the simulator's own one."""

from __future__ import annotations

from typing import Any, Final

from services.simulator.asked import Asked
from services.simulator.fate import pick

_STEPS: Final = 1_000_000
_WAYS: Final = ("pos", "ipa", "hanja", "primary_meaning")


def differing(answer: dict[str, Any], asked: Asked, seed: int, rate: float) -> dict[str, Any]:
    """The answer with one field turned wrong, for that share of the terms; the same each time."""
    key = (seed, "differing", asked.model, asked.identity)
    if pick(range(_STEPS), *key) >= rate * _STEPS:
        return answer
    way = pick(_WAYS, *key, "way")
    return {**answer, way: _wrong(way, answer[way])}


def _wrong(way: str, right: Any) -> Any:
    match way:
        case "pos":
            return "adverb" if right == "noun" else "noun"
        case "ipa":
            return "[wɛ.la.no]"
        case "hanja":
            return "無" if right is None else None
        case _:
            return "quite another thing"
