"""Sharing a number of slots between replicas: nobody gets more than it wants, nobody starves."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final

_ROTATE_S: Final = 10.0
"""Where there are fewer slots than replicas, others go without after so many seconds."""


def fair_shares(limit: int, wanted: Mapping[str, int], now_s: float) -> dict[str, int]:
    """Of `limit` slots to each replica what it wants, or else as much as any other gets.

    What can't be divided goes to some, and after ten seconds to others. The same for everybody
    who asks with the same numbers in the same ten seconds.
    """
    round_ = int(now_s // _ROTATE_S)

    def order(replica: str) -> tuple[int, int, str]:
        return wanted[replica], zlib.crc32(f"{replica} {round_}".encode()), replica

    shares: dict[str, int] = {}
    left = limit
    for place, replica in enumerate(sorted(wanted, key=order)):
        shares[replica] = min(wanted[replica], left // (len(wanted) - place))
        left -= shares[replica]
    return shares
