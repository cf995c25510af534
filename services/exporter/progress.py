"""Batch progress: derived from the streams and the store, published as events, stored nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal

import structlog
from nats.js import JetStreamContext
from pydantic import ValidationError

from services.exporter.store import BatchTotals, Store
from services.kernel import topology
from services.kernel.contracts.analysis import TermAnalyzed
from services.kernel.contracts.batch import BatchCompleted, BatchOpened, BatchProgress
from services.kernel.contracts.dead_letter import DeadLetter
from services.kernel.errors import PipelineError
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.stream.outgoing import Publisher
from services.kernel.stream.reading import (
    BatchCounts,
    count_batch,
    last_message,
    messages_of,
    subjects_of,
)

_SHARE_OF_TIME = 0.1
"""Of the exporter's time at most this goes into counting."""

_Figures = tuple[int, int, int, int]
OnCompleted = Callable[[str], Awaitable[None]]


def progress_of(
    batch: str, counts: BatchCounts, stored: BatchTotals, lost: BatchTotals, now: datetime
) -> BatchProgress:
    """The event for these figures; `lost` is what became no card, dead or cancelled. Pure."""
    current = stored.finished + counts.dead + counts.cancelled
    total = max(counts.total, current)
    return BatchProgress(
        batch=batch,
        current=current,
        total=total,
        progress=current / total if total else 0.0,
        finished=stored.finished,
        dead=counts.dead,
        cancelled=counts.cancelled,
        cached=stored.cached + lost.cached,
        calls=stored.calls + lost.calls,
        cost_usd=stored.cost_usd + lost.cost_usd,
        at=now,
    )


def is_complete(counts: BatchCounts, stored: BatchTotals, opened: BatchOpened | None) -> bool:
    """True when the batch was declared, all of it has arrived, and every term has ended."""
    return (
        opened is not None
        and counts.submitted >= opened.expected
        and counts.settled
        and stored.finished >= counts.finished
    )


class ProgressReporter:
    """Publishes `batches.<batch>.progress` and `.completed` for batches that changed."""

    def __init__(
        self,
        js: JetStreamContext,
        store: Store,
        publisher: Publisher,
        *,
        interval_s: float,
        on_completed: OnCompleted,
    ) -> None:
        self._js = js
        self._store = store
        self._publisher = publisher
        self._interval_s = interval_s
        self._on_completed = on_completed
        self._changed: set[str] = set()
        self._last: dict[str, _Figures] = {}
        self._lost: dict[str, tuple[tuple[int, int], BatchTotals]] = {}
        self._log = structlog.get_logger()

    def changed(self, batch: str) -> None:
        """The batch has something new; it is reported at the next tick."""
        self._changed.add(batch)

    async def run(self) -> None:
        """Reports for ever, at most one event a batch and interval.

        It begins with every batch that was ever opened: some may have changed meanwhile. Counting
        a large batch takes a while, so it is done less often: storing cards goes before.
        """
        self._changed |= await self._opened_batches()
        clock = asyncio.get_running_loop().time
        took_s = 0.0
        while True:
            await asyncio.sleep(max(self._interval_s, took_s / _SHARE_OF_TIME))
            started = clock()
            try:
                await self._tick()
            except (PipelineError, *NATS_FAULTS) as error:
                self._log.warning("progress.delayed", error=repr(error))
            took_s = clock() - started

    async def _tick(self) -> None:
        for batch in sorted(self._changed):
            # Forgotten before it is looked at: what changes meanwhile is looked at again.
            self._changed.discard(batch)
            try:
                await self._report(batch)
            except BaseException:
                self._changed.add(batch)
                raise

    async def _opened_batches(self) -> set[str]:
        while True:
            try:
                events = await subjects_of(self._js, topology.BATCHES.name, "batches.*.opened")
            except NATS_FAULTS as error:
                self._log.warning("progress.delayed", error=repr(error))
                await asyncio.sleep(self._interval_s)
            else:
                return {subject.split(".")[1] for subject in events}

    async def _report(self, batch: str) -> None:
        counts = await count_batch(self._js, batch)
        stored = await self._store.batch_totals(batch)
        lost = await self._lost_totals(batch, counts)
        now = datetime.now(UTC)
        event = progress_of(batch, counts, stored, lost, now)
        if self._last.get(batch) != _figures(event):
            await self._publisher.publish(
                topology.batch_subject(batch, "progress"), event.to_bytes()
            )
            self._last[batch] = _figures(event)
        opened = await self._opened(batch)
        if opened is None:
            return
        if is_complete(counts, stored, opened):
            await self._complete(event, opened)
        else:
            self._changed.add(batch)  # Its end may come without a card: by a duplicate term.

    async def _complete(self, event: BatchProgress, opened: BatchOpened) -> None:
        """The event comes last: who sees it finds the deck files."""
        previous = await last_message(
            self._js, topology.BATCHES.name, topology.batch_subject(event.batch, "completed")
        )
        if previous is not None:
            before = BatchCompleted.model_validate_json(previous)
            if _figures(before) == _figures(event) and before.at >= opened.opened_at:
                return
        await self._on_completed(event.batch)
        completed = BatchCompleted(
            **event.model_dump(),
            duration_s=max(0.0, (event.at - opened.opened_at).total_seconds()),
        )
        await self._publisher.publish(
            topology.batch_subject(event.batch, "completed"), completed.to_bytes()
        )
        self._log.info("batch.completed", batch=event.batch, finished=event.finished)

    async def _opened(self, batch: str) -> BatchOpened | None:
        data = await last_message(
            self._js, topology.BATCHES.name, topology.batch_subject(batch, "opened")
        )
        return None if data is None else BatchOpened.model_validate_json(data)

    async def _lost_totals(self, batch: str, counts: BatchCounts) -> BatchTotals:
        """What became no card has cost so much; read again only when its numbers change."""
        numbers = (counts.dead, counts.cancelled)
        known = self._lost.get(batch)
        if known is None or known[0] != numbers:
            known = (numbers, await self._sum_lost(batch))
            self._lost[batch] = known
        return known[1]

    async def _sum_lost(self, batch: str) -> BatchTotals:
        total = BatchTotals(finished=0, calls=0, cached=0, cost_usd=Decimal(0))
        for subjects in (f"dead.*.{batch}.*", f"cancelled.*.{batch}.*"):
            async for message in messages_of(self._js, topology.DEAD_LETTERS.name, subjects):
                total = _added(total, DeadLetter.model_validate_json(message.data))
        return total


def _figures(event: BatchProgress) -> _Figures:
    """What makes an event worth telling. A term that was replayed or taken up again moves from one
    figure to another, and their sum stays."""
    return (event.finished, event.dead, event.cancelled, event.total)


def _added(total: BatchTotals, letter: DeadLetter) -> BatchTotals:
    """A term that ended in stage 2 has paid for stage 1, too."""
    calls, cost, cached = letter.history.calls, letter.history.cost_usd, 0
    if letter.service == "stage2":
        try:
            stage1 = TermAnalyzed.model_validate_json(letter.original_payload).stage1
        except ValidationError:
            pass
        else:
            calls, cost, cached = calls + stage1.calls, cost + stage1.cost_usd, int(stage1.cached)
    return BatchTotals(
        finished=0,
        calls=total.calls + calls,
        cached=total.cached + cached,
        cost_usd=total.cost_usd + cost,
    )
