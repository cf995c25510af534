"""The records in FLEET as one replica sees them: changed by all, followed by each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.kv import KeyValue
from pydantic import ValidationError

from services.kernel import topology
from services.kernel.contracts.base import Contract
from services.kernel.errors import Outage
from services.kernel.record import Record

ValueT = TypeVar("ValueT", bound=Contract)

_READ_AGAIN_S: Final = 2.0
"""Hearing can fail: what is followed is read this often anyway."""
_WRITES_MAX: Final = 50
"""Tries of one change: every replica may be writing the same record."""


class Fleet:
    """The bucket, and which of its records this replica follows."""

    def __init__(self, bucket: KeyValue, nc: Client) -> None:
        self._bucket = bucket
        self._nc = nc
        self._followed: dict[str, tuple[Record[Any], Callable[[], None]]] = {}
        self._wanted: set[str] = set()
        self._woken = asyncio.Event()

    def record(self, key: str, empty: ValueT) -> Record[ValueT]:
        """A record to change; its `value` is as of the last look."""
        return Record(self._bucket, key, empty, writes_max=_WRITES_MAX)

    async def followed(
        self, key: str, empty: ValueT, on_change: Callable[[], None] = lambda: None
    ) -> Record[ValueT]:
        """A record whose `value` is kept up to date, within milliseconds as a rule.

        `on_change` is called after each look that found another value. Raises Outage when it
        can't be read at first.
        """
        record = self.record(key, empty)
        await record.load()
        self._followed[key] = record, on_change
        await self._nc.subscribe(f"$KV.{topology.FLEET.name}.{key}", cb=self._hear)
        return record

    async def follow(self) -> None:
        """Reads what was heard of, and everything every two seconds; for ever."""
        while True:
            try:
                async with asyncio.timeout(_READ_AGAIN_S):
                    await self._woken.wait()
            except TimeoutError:
                self._wanted.update(self._followed)
            self._woken.clear()
            wanted, self._wanted = self._wanted, set()
            for key in wanted:
                await self._read(*self._followed[key])

    async def _hear(self, message: Msg) -> None:
        self._wanted.add(message.subject.removeprefix(f"$KV.{topology.FLEET.name}."))
        self._woken.set()

    async def _read(self, record: Record[Any], on_change: Callable[[], None]) -> None:
        before = record.value
        try:
            await record.load()
        except (Outage, ValidationError) as error:
            structlog.get_logger().info("record.unread", error=str(error))
            return
        if record.value != before:
            on_change()
