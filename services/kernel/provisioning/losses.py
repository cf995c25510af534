"""What the loss of a stream or bucket means: from what it is filled again, or what is gone. Pure.

SUBMISSIONS ─ingest→ TERMS ─stage1→ ANALYSES ─stage2→ CARDS
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from services.kernel import topology
from services.kernel.topology import ServiceName

_WRITERS: Final[dict[str, ServiceName]] = {
    topology.TERMS.name: "ingest",
    topology.ANALYSES.name: "stage1",
    topology.CARDS.name: "stage2",
}
"""Each stream that another one determines, with the service that makes it from that one."""

_PAID_FOR: Final = (topology.ANALYSES.name, topology.CARDS.name)
_CACHE: Final = f"KV_{topology.COMPLETIONS.name}"

_GONE: Final = {
    topology.SUBMISSIONS.name: "lost: submissions that ingest had not read yet, and how many there "
    "were; submit them again, no term is made twice",
    topology.BATCHES.name: "lost: how many terms each batch declared, so that none is called "
    "completed; submitting a list again declares it anew",
    topology.DEAD_LETTERS.name: "lost: what was given up on and why; those terms count as in "
    "flight",
    _CACHE: "lost: the cache; a completion that is asked for again is paid for again",
    f"KV_{topology.ATTEMPTS.name}": "lost: what was tried so far, and what it cost; the audit of "
    "earlier batches can't balance",
    f"KV_{topology.CLAIMS.name}": "nothing is lost but the claims of calls under way",
    f"KV_{topology.FLEET.name}": "lost: limits and budgets set by command, what the budget knew "
    "of the money spent, and what was learned of the provider",
}


def feeder_of(lost_one: str, lost: Set[str]) -> topology.Consumer | None:
    """The consumer that fills a lost stream again, once it is made anew; None where nothing can.

    `lost`: all that was lost with it. Without the cache nothing is asked for again by itself:
    every term would be paid for twice.
    """
    writer = _WRITERS.get(lost_one)
    if writer is None or (lost_one in _PAID_FOR and _CACHE in lost):
        return None
    feeder = topology.CONSUMERS[writer]
    return feeder if _has_or_gets_back(feeder.stream, lost) else None


def consequence(lost_one: str, lost: Set[str]) -> str:
    """What an operator should know when `lost_one` is made again; empty on a new server."""
    if lost_one not in lost:
        return ""
    writer = _WRITERS.get(lost_one)
    if writer is None:
        return _GONE[lost_one]
    if feeder_of(lost_one, lost) is not None:
        return f"filled again by {writer}"
    if _has_or_gets_back(topology.CONSUMERS[writer].stream, lost):
        return (
            f"not filled again, since the cache is lost, too, and all would be paid for twice; to "
            f"have it so, delete the consumer {writer} and provision again"
        )
    return f"lost: what it held, since {topology.CONSUMERS[writer].stream} is lost, too"


def _has_or_gets_back(stream: str, lost: Set[str]) -> bool:
    return stream not in lost or feeder_of(stream, lost) is not None
