"""What the loss of a stream or bucket means: from what it is filled again, or what is gone. Pure.

SUBMISSIONS ─ingest→ TERMS ─stage1→ ANALYSES ─stage2→ CARDS

LANES holds copies from TERMS and ANALYSES: the main consumers of both stages make them again.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from services.kernel import topology
from services.kernel.topology import ServiceName

_WRITERS: Final[dict[str, tuple[ServiceName, ...]]] = {
    topology.TERMS.name: ("ingest",),
    topology.ANALYSES.name: ("stage1",),
    topology.CARDS.name: ("stage2",),
    topology.LANES.name: ("stage1", "stage2"),
}
"""Each stream that others determine, with the services that make it from those."""

_PAID_FOR: Final = (topology.ANALYSES.name, topology.CARDS.name, topology.LANES.name)
"""What is filled again by stages that ask a model."""
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


def feeders_of(lost_one: str, lost: Set[str]) -> tuple[topology.Consumer, ...]:
    """The consumers that fill a lost stream again, once they are made anew; none where none can.

    `lost`: all that was lost with it. Without the cache nothing is asked for again by itself:
    every term would be paid for twice.
    """
    if lost_one in _PAID_FOR and _CACHE in lost:
        return ()
    feeders = [topology.CONSUMERS[writer] for writer in _WRITERS.get(lost_one, ())]
    return tuple(feeder for feeder in feeders if _has_or_gets_back(feeder.stream, lost))


def consequence(lost_one: str, lost: Set[str]) -> str:
    """What an operator should know when `lost_one` is made again; empty on a new server."""
    if lost_one not in lost:
        return ""
    if lost_one not in _WRITERS:
        return _GONE[lost_one]
    if feeders := feeders_of(lost_one, lost):
        return f"filled again by {' and '.join(feeder.durable for feeder in feeders)}"
    writers = _WRITERS[lost_one]
    sources = [topology.CONSUMERS[writer].stream for writer in writers]
    if any(_has_or_gets_back(source, lost) for source in sources):
        return (
            f"not filled again, since the cache is lost, too, and all would be paid for twice; to "
            f"have it so, delete the consumer {' and '.join(writers)} and provision again"
        )
    return f"lost: what it held, since {' and '.join(sources)} is lost, too"


def _has_or_gets_back(stream: str, lost: Set[str]) -> bool:
    return stream not in lost or bool(feeders_of(stream, lost))
