"""exporter: CARDS → store, deck files, batch progress. Composition only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from nats.aio.msg import Msg

from services.exporter.formats import write_deck
from services.exporter.handler import StoreCards
from services.exporter.progress import ProgressReporter
from services.exporter.settings import ExporterSettings
from services.exporter.store import Store
from services.exporter.writer import running_writer
from services.kernel.app import Service, service_app
from services.kernel.connected import Connected
from services.kernel.errors import PipelineError
from services.kernel.settings import load_settings
from services.kernel.stream.checkpoint import NoCheckpoint
from services.kernel.stream.delivery import Handler
from services.kernel.stream.outgoing import Publisher

_AT_ONCE = 100
settings = load_settings(ExporterSettings)


@asynccontextmanager
async def _open_handler(connected: Connected) -> AsyncIterator[Handler]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(Store.open(settings.exporter.store_path))
        connected.dependencies["store"] = None

        def note_trouble(reason: str | None) -> None:
            connected.dependencies["store"] = reason

        writer = await stack.enter_async_context(running_writer(store, note_trouble))

        async def write_decks(batch: str) -> None:
            await _write_decks(store, batch)

        reporter = ProgressReporter(
            connected.js,
            store,
            Publisher(connected.js, timeout_s=settings.nats.publish_timeout_s),
            interval_s=settings.exporter.progress_interval_s,
            on_completed=write_decks,
        )

        async def note_dead_letter(message: Msg) -> None:
            reporter.changed(message.subject.split(".")[2])

        async def note_opened(message: Msg) -> None:
            reporter.changed(message.subject.split(".")[1])

        for subjects in ("dead.*.*.*", "cancelled.*.*.*"):
            await connected.nc.subscribe(subjects, cb=note_dead_letter)
        await connected.nc.subscribe("batches.*.opened", cb=note_opened)
        task = asyncio.create_task(reporter.run())
        stack.callback(task.cancel)
        yield StoreCards(writer, reporter.changed, connected.metrics)


async def _write_decks(store: Store, batch: str) -> None:
    """A deck that can't be written is no reason to hold back that its batch is complete.

    A revision has no files of its own: those of the batch that it revises become newer.
    """
    folder = settings.exporter.deck_dir
    if folder is None or not (await store.batch_totals(batch)).finished:
        return
    root = await store.root_of(batch)
    for format_name in settings.exporter.deck_formats:
        path = folder / f"{root}.{format_name}"
        try:
            await write_deck(format_name, store.cards_of_batch(root), path)
        except (PipelineError, OSError) as error:
            structlog.get_logger().error("deck.failed", path=str(path), error=str(error))


app = service_app(
    Service(
        name="exporter",
        open_handler=_open_handler,
        next_checkpoint=lambda _js: NoCheckpoint(),
        concurrency=_AT_ONCE,
        fetch_size=_AT_ONCE,
    ),
    settings,
)
