"""What will happen to a call, decided by its seed and identity alone: never by order or time."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from services.simulator.settings import ERROR_KINDS, MALFORMED_KINDS, SimulatorSettings

T = TypeVar("T")

_NUMBERS = struct.Struct("<8Q")
_WHOLE = 2.0**64


class Fate(NamedTuple):
    """`variant` is a free number for whatever else has to be chosen; `code` names the call."""

    latency_s: float
    hangs: bool
    error: str | None
    malformed: str | None
    variant: int
    code: str


def decide_fate(settings: SimulatorSettings, stage: str, identity: str, nth: int) -> Fate:
    """The fate of the `nth` call (from 1) for one term in one stage.

    A higher rate keeps the failures of a lower one and adds to them.
    """
    digest = _digest(f"{settings.seed}\0{stage}\0{identity}\0{nth}")
    numbers = _NUMBERS.unpack(digest)
    shares = [number / _WHOLE for number in numbers]
    latency_ms = settings.latency_ms + settings.jitter_ms * (2 * shares[0] - 1)
    if shares[1] < settings.tail_rate:
        latency_ms += settings.tail_ms
    error = malformed = None
    if shares[3] < settings.error_rate:
        error = _kind(settings.error_kinds or ERROR_KINDS, numbers[4])
    elif shares[5] < settings.malformed_rate:
        malformed = _kind(_kinds_for(stage, settings), numbers[6])
    hangs = shares[2] < settings.hang_rate
    return Fate(max(0.0, latency_ms) / 1000, hangs, error, malformed, numbers[7], digest[:12].hex())


def pick(options: Sequence[T], *key: object) -> T:
    """One of the options, the same for the same key."""
    return options[int.from_bytes(_digest("\0".join(map(str, key)))[:8]) % len(options)]


def shuffled(options: Sequence[T], *key: object) -> list[T]:
    """The options from another start, the same for the same key."""
    start = pick(range(len(options)), *key)
    return [*options[start:], *options[:start]]


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass")).digest()


def _kinds_for(stage: str, settings: SimulatorSettings) -> Sequence[str]:
    """Chat without a stage has no form that could be missed."""
    if stage not in ("analysis", "cards"):
        return ()
    kinds = settings.malformed_kinds or MALFORMED_KINDS
    return kinds if stage == "cards" else [kind for kind in kinds if kind != "tsv"]


def _kind(kinds: Sequence[str], number: int) -> str | None:
    return kinds[number % len(kinds)] if kinds else None
