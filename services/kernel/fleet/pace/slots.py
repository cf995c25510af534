"""Sharing a number of slots between replicas: nobody gets more than it wants, nobody starves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_ROTATE_S: Final = 10.0
"""Where there are fewer slots than replicas, others go without after so many seconds."""


def fair_shares(limit: int, wanted: Mapping[str, int], now_s: float) -> dict[str, int]:
    """Of `limit` slots to each replica what it wants, or else as much as any other gets.

    What can't be divided goes to some, and after ten seconds to others. The same for everybody
    who asks with the same numbers in the same ten seconds.
    """
    rounds = int(now_s // _ROTATE_S)
    rank = {name: (place + rounds) % len(wanted) for place, name in enumerate(sorted(wanted))}
    shares: dict[str, int] = {}
    left = limit
    # The modest first: what they leave is for the others, and the last have what can't be divided.
    for place, replica in enumerate(sorted(wanted, key=lambda name: (wanted[name], rank[name]))):
        shares[replica] = min(wanted[replica], left // (len(wanted) - place))
        left -= shares[replica]
    return shares
