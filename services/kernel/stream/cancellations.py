"""Which batches are cancelled: loaded from BATCHES, followed as they come.

A cancellation is heard within milliseconds. Hearing can fail, so the stream is read again every
few seconds, and whenever the connection is back.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from services.kernel import topology
from services.kernel.contracts.batch import BatchCancelled
from services.kernel.errors import PermanentError
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.stream.reading import last_message, subjects_of

_SUBJECTS: Final = topology.batch_subject("*", "cancelled")
_READ_AGAIN_S: Final = 5.0


class Cancellations:
    """The cancelled batches, as far as this process has heard."""

    def __init__(self, js: JetStreamContext, *, read_again_s: float = _READ_AGAIN_S) -> None:
        self._js = js
        self._read_again_s = read_again_s
        self._cancelled: set[str] = set()
        self._log = structlog.get_logger()

    def __contains__(self, batch: object) -> bool:
        return batch in self._cancelled

    async def listen(self, nc: Client) -> None:
        """Hears from now on. Raises what NATS raises when the stream can't be read at first."""
        await nc.subscribe(_SUBJECTS, cb=self._hear)
        await self._read()

    async def read_again(self) -> None:
        """Reads the stream every few seconds, for ever."""
        while True:
            await asyncio.sleep(self._read_again_s)
            try:
                await self._read()
            except NATS_FAULTS as error:
                self._log.info("cancellations.unread", error=repr(error))

    async def _hear(self, message: Msg) -> None:
        self._note(message.data)

    async def _read(self) -> None:
        for subject in await subjects_of(self._js, topology.BATCHES.name, _SUBJECTS):
            event = await last_message(self._js, topology.BATCHES.name, subject)
            if event is not None:
                self._note(event)

    def _note(self, data: bytes) -> None:
        try:
            event = BatchCancelled.from_bytes(data)
        except PermanentError as error:
            self._log.warning("cancellation.unreadable", error=str(error))
            return
        if event.undone_at is not None:
            self._cancelled.discard(event.batch)
        elif event.batch not in self._cancelled:
            self._cancelled.add(event.batch)
            self._log.info("batch.cancelled", batch=event.batch)
