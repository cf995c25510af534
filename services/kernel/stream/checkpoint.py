"""Asking a stream what it holds on a subject, and whether it holds a term already."""

from __future__ import annotations

from collections.abc import Callable

from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg

from services.kernel.errors import Outage
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.stream.reading import last_stored


async def standing(js: JetStreamContext, stream: str, subject: str) -> RawStreamMsg | None:
    """The message that stands on a subject, or None. Raises Outage when the stream can't say."""
    try:
        return await last_stored(js, stream, subject)
    except NATS_FAULTS as error:
        raise Outage(f"stream {stream} can't be asked: {error!r}") from error


class Checkpoint:
    """One stream, by the subject that it gives to a batch and a term."""

    def __init__(
        self, js: JetStreamContext, stream: str, subject_of: Callable[[str, str], str]
    ) -> None:
        self._js = js
        self._stream = stream
        self._subject_of = subject_of

    async def holds(self, batch: str, id_: str) -> bool:
        """True when the term's result is written. Raises Outage when the stream can't say."""
        return await standing(self._js, self._stream, self._subject_of(batch, id_)) is not None


class NoCheckpoint(Checkpoint):
    """For the last service: its store, not a stream, makes repeating it harmless."""

    def __init__(self) -> None:
        pass

    async def holds(self, batch: str, id_: str) -> bool:
        return False
