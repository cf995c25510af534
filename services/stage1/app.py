"""stage1: TERMS → ANALYSES. Composition only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.kernel import topology
from services.kernel.app import Service, service_app
from services.kernel.connected import Connected
from services.kernel.llm.opening import open_asker
from services.kernel.settings import load_settings
from services.kernel.stream.checkpoint import Checkpoint
from services.kernel.stream.delivery import Handler
from services.stage1.analyses import AnalysesOnStream
from services.stage1.handler import AnalyzeTerms
from services.stage1.second_opinion import SecondOpinion
from services.stage1.settings import Stage1Settings, check_stage1

settings = load_settings(Stage1Settings)


@asynccontextmanager
async def _open_handler(connected: Connected) -> AsyncIterator[Handler]:
    async with open_asker(connected, settings, "stage1", settings.stage1) as asker:
        wanted = settings.second_opinion
        opinion = SecondOpinion(asker, wanted, connected.metrics) if wanted.models else None
        yield AnalyzeTerms(asker, AnalysesOnStream(connected.js), opinion=opinion)


app = service_app(
    Service(
        name="stage1",
        open_handler=_open_handler,
        next_checkpoint=lambda js: Checkpoint(
            js, topology.ANALYSES.name, topology.analyzed_subject
        ),
        concurrency=settings.stage1.concurrency,
        spends=True,
        check_settings=lambda: check_stage1(settings),
    ),
    settings,
)
