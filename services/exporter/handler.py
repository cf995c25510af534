"""Finished cards in, stored cards out; the end of a term's walk."""

from __future__ import annotations

import time
from collections.abc import Callable

from services.exporter.writer import Writer
from services.kernel.contracts.card import CardsFinished
from services.kernel.metrics import Metrics
from services.kernel.stream.incoming import Incoming


class StoreCards:
    """The handler of the exporter. `changed` hears of each batch that has new cards."""

    def __init__(self, writer: Writer, changed: Callable[[str], None], metrics: Metrics) -> None:
        self._writer = writer
        self._changed = changed
        self._metrics = metrics

    async def __call__(self, incoming: Incoming, _ledger: object) -> None:
        finished = CardsFinished.from_bytes(incoming.data)
        await self._writer.put(finished)
        self._changed(finished.batch)
        self._metrics.end_to_end.observe(max(0.0, time.time() - finished.submitted_at.timestamp()))
