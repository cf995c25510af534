"""stage1: TERMS → ANALYSES. Composition only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from services.kernel import topology
from services.kernel.app import Connected, Service, service_app
from services.kernel.errors import Outage
from services.kernel.llm.opening import open_asker
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.settings import load_settings, resolve_provider
from services.kernel.stream.checkpoint import Checkpoint
from services.kernel.stream.delivery import Handler
from services.stage1.handler import AnalyzeTerms
from services.stage1.settings import Stage1Settings

settings = load_settings(Stage1Settings)


class AnalysesOnStream:
    """Analyses as they stand on ANALYSES. Implements `handler.Analyses`."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js

    async def read(self, batch: str, term_id: str) -> bytes | None:
        subject = topology.analyzed_subject(batch, term_id)
        try:
            return (await self._js.get_last_msg(topology.ANALYSES.name, subject, direct=True)).data
        except NotFoundError:
            return None
        except NATS_FAULTS as error:
            raise Outage(f"stream {topology.ANALYSES.name} can't be asked: {error!r}") from error


@asynccontextmanager
async def _open_handler(connected: Connected) -> AsyncIterator[Handler]:
    async with open_asker(
        connected.js, settings, settings.stage1, connected.metrics, connected.dependencies
    ) as asker:
        yield AnalyzeTerms(asker, AnalysesOnStream(connected.js))


app = service_app(
    Service(
        name="stage1",
        open_handler=_open_handler,
        next_checkpoint=lambda js: Checkpoint(
            js, topology.ANALYSES.name, topology.analyzed_subject
        ),
        concurrency=settings.stage1.concurrency,
        check_settings=lambda: resolve_provider(settings),
    ),
    settings,
)
