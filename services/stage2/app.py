"""stage2: ANALYSES → CARDS. Composition only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.kernel import topology
from services.kernel.app import Service, service_app
from services.kernel.connected import Connected
from services.kernel.llm.opening import open_asker
from services.kernel.provider_access import resolve_provider
from services.kernel.settings import load_settings
from services.kernel.stream.checkpoint import Checkpoint
from services.kernel.stream.delivery import Handler
from services.stage2.handler import WriteCards
from services.stage2.settings import Stage2Settings

settings = load_settings(Stage2Settings)


@asynccontextmanager
async def _open_handler(connected: Connected) -> AsyncIterator[Handler]:
    async with open_asker(connected, settings, "stage2", settings.stage2) as asker:
        yield WriteCards(asker)


app = service_app(
    Service(
        name="stage2",
        open_handler=_open_handler,
        next_checkpoint=lambda js: Checkpoint(js, topology.CARDS.name, topology.finished_subject),
        concurrency=settings.stage2.concurrency,
        spends=True,
        check_settings=lambda: resolve_provider(settings, settings.stage2),
    ),
    settings,
)
