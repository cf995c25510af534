"""Analyses that were made before, as they stand on their stream."""

from __future__ import annotations

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from services.kernel import topology
from services.kernel.errors import Outage
from services.kernel.nats_faults import NATS_FAULTS


class AnalysesOnStream:
    """Implements `handler.Analyses`."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js

    async def read(self, batch: str, term_id: str) -> bytes | None:
        """The event as it was written, None when it is not there. Raises Outage."""
        subject = topology.analyzed_subject(batch, term_id)
        try:
            return (await self._js.get_last_msg(topology.ANALYSES.name, subject, direct=True)).data
        except NotFoundError:
            return None
        except NATS_FAULTS as error:
            raise Outage(f"stream {topology.ANALYSES.name} can't be asked: {error!r}") from error
