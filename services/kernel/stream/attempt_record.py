"""The KV record of a term's attempts in one service: read, and changed without losing a change.

Every change is a function of the record that names those it is about by their id, so
that applying it twice is applying it once. That makes two things harmless: a write whose answer was
lost, and another replica that writes at the same time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from services.kernel.contracts.attempt import Attempt, AttemptHistory
from services.kernel.errors import Outage
from services.kernel.nats_faults import NATS_FAULTS

T = TypeVar("T")
Change = Callable[[AttemptHistory], AttemptHistory]

_WRITES_MAX: Final = 5
"""Tries of one change: a term is in few hands, and a bucket that is away is no place to wait."""


class AttemptRecord:
    """What stands in the bucket, as of the last look. Raises Outage when the bucket is away."""

    def __init__(self, bucket: KeyValue, key: str) -> None:
        self._bucket = bucket
        self._key = key
        self._revision: int | None = None
        self.history = AttemptHistory()

    @property
    def is_known(self) -> bool:
        """It was read or written already."""
        return self._revision is not None

    async def create(self, attempt: Attempt) -> bool:
        """Writes the first attempt; False when there is a record already, maybe this very one."""
        history = AttemptHistory(attempts=(attempt,))
        try:
            self._revision = await _guarded(
                self._bucket.create(self._key, history.to_bytes(), validate_keys=False)
            )
        except (KeyWrongLastSequenceError, KeyNotFoundError, Outage):
            return False  # Not ours; or gone meanwhile; or the answer was lost: look at it.
        self.history = history
        return True

    async def change(self, change: Change) -> None:
        """Applies a change to the newest state and writes it, unless it changes nothing.

        What `change` raises passes, and nothing is written.
        """
        for _ in range(_WRITES_MAX):
            if not self.is_known:
                await self.load()
            history = change(self.history)
            if history == self.history or await self._write(history):
                return
        raise Outage(f"the record {self._key} can't be written, or others write it all the time")

    async def load(self) -> None:
        """Reads the record; none is an empty one."""
        try:
            entry = await _guarded(self._bucket.get(self._key, validate_keys=False))
        except KeyNotFoundError as error:
            # A deleted key keeps a marker, whose revision the next write must name.
            self._revision = getattr(error.entry, "revision", None) or 0
            self.history = AttemptHistory()
            return
        self._revision = entry.revision or 0
        self.history = AttemptHistory.model_validate_json(entry.value or b"{}")

    async def _write(self, history: AttemptHistory) -> bool:
        """False when somebody else wrote, or when it is not known whether this was written."""
        revision, self._revision = self._revision, None
        try:
            self._revision = await _guarded(
                self._bucket.update(
                    self._key, history.to_bytes(), last=revision, validate_keys=False
                )
            )
        except (KeyWrongLastSequenceError, Outage):
            return False
        self.history = history
        return True


async def _guarded(call: Awaitable[T]) -> T:
    """Bucket faults become Outage; an answer about the key itself passes through."""
    try:
        return await call
    except (KeyWrongLastSequenceError, KeyNotFoundError):
        raise
    except NATS_FAULTS as error:
        raise Outage(f"the attempts can't be recorded: {error!r}") from error
