"""Analyses that were made before, as they stand on their stream."""

from __future__ import annotations

from nats.js import JetStreamContext

from services.kernel import topology
from services.kernel.stream.checkpoint import standing


class AnalysesOnStream:
    """Implements `handler.Analyses`."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js

    async def read(self, batch: str, term_id: str) -> bytes | None:
        """The event as it was written, None when it is not there. Raises Outage."""
        subject = topology.analyzed_subject(batch, term_id)
        stored = await standing(self._js, topology.ANALYSES.name, subject)
        return None if stored is None else stored.data
