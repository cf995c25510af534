"""One KV record that several hands change, without losing a change.

Every change is a function of the record such that applying it twice is applying it once. That
makes two things harmless: a write whose answer was lost, and another replica that writes at the
same time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from services.kernel.contracts.base import Contract
from services.kernel.errors import Outage
from services.kernel.nats_faults import NATS_FAULTS

T = TypeVar("T")
ValueT = TypeVar("ValueT", bound=Contract)

WRITES_MAX: Final = 5
"""Tries of one change of a record in few hands: a bucket that is away is no place to wait."""


class Record(Generic[ValueT]):
    """What stands under a key, as of the last look. Raises Outage when the bucket is away.

    `empty` is the value of a record that is not there. `writes_max` bounds the tries of one
    change while others write.
    """

    def __init__(
        self, bucket: KeyValue, key: str, empty: ValueT, *, writes_max: int = WRITES_MAX
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._empty = empty
        self._writes_max = writes_max
        self._revision: int | None = None
        self.value = empty

    @property
    def is_known(self) -> bool:
        """It was read or written already."""
        return self._revision is not None

    async def create(self, value: ValueT) -> bool:
        """Writes the first value; False when there is a record already, maybe this very one."""
        try:
            self._revision = await self._guarded(
                self._bucket.create(self._key, value.to_bytes(), validate_keys=False)
            )
        except (KeyWrongLastSequenceError, KeyNotFoundError, Outage):
            return False  # Not ours; or gone meanwhile; or the answer was lost: look at it.
        self.value = value
        return True

    async def change(self, change: Callable[[ValueT], ValueT]) -> ValueT:
        """Applies a change to the newest state and writes it, unless it changes nothing.

        What `change` raises passes, and nothing is written.
        """
        for _ in range(self._writes_max):
            if not self.is_known:
                await self.load()
            value = change(self.value)
            if value == self.value or await self._write(value):
                return self.value
        raise Outage(f"the record {self._key} can't be written, or others write it all the time")

    async def load(self) -> ValueT:
        """Reads the record; none is an empty one."""
        try:
            entry = await self._guarded(self._bucket.get(self._key, validate_keys=False))
        except KeyNotFoundError as error:
            # A deleted key keeps a marker, whose revision the next write must name.
            self._revision = getattr(error.entry, "revision", None) or 0
            self.value = self._empty
        else:
            self._revision = entry.revision or 0
            self.value = type(self._empty).model_validate_json(entry.value or b"{}")
        return self.value

    async def _write(self, value: ValueT) -> bool:
        """False when somebody else wrote, or when it is not known whether this was written."""
        revision, self._revision = self._revision, None
        try:
            self._revision = await self._guarded(
                self._bucket.update(self._key, value.to_bytes(), last=revision, validate_keys=False)
            )
        except (KeyWrongLastSequenceError, Outage):
            return False
        self.value = value
        return True

    async def _guarded(self, call: Awaitable[T]) -> T:
        """Bucket faults become Outage; an answer about the key itself passes through."""
        try:
            return await call
        except (KeyWrongLastSequenceError, KeyNotFoundError):
            raise
        except NATS_FAULTS as error:
            raise Outage(f"the record {self._key} can't be reached: {error!r}") from error
