"""A KV bucket in memory, whose answers can be lost. Stands in for `nats.js.kv.KeyValue`."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import nats.errors
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

from services.kernel.fleet.money.spending import Account
from services.kernel.record import Record


@dataclass
class Entry:
    value: bytes
    revision: int


@dataclass
class MemoryBucket:
    """`faults` meet the next writes: "lost" (not done), "unanswered" (done), None (all is well).

    After an unanswered one `deaf_for` reads fail, too: whether it was done is not to be found out.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    faults: deque[str | None] = field(default_factory=deque)
    writes: int = 0
    is_away: bool = False
    deaf_for: int = 0

    async def get(self, key: str, **_options: Any) -> Entry:
        await self._pass()
        if self.deaf_for:
            self.deaf_for -= 1
            raise nats.errors.TimeoutError
        if key not in self.entries:
            raise KeyNotFoundError
        return self.entries[key]

    async def update(self, key: str, value: bytes, last: int | None = None, **_options: Any) -> int:
        await self._pass()
        fault = self.faults.popleft() if self.faults else None
        if fault == "lost":
            raise nats.errors.TimeoutError
        entry = self.entries.get(key)
        if (entry.revision if entry else 0) != (last or 0):
            raise KeyWrongLastSequenceError
        self.writes += 1
        self.entries[key] = Entry(value, self.writes)
        await self._pass()
        if fault == "unanswered":
            raise nats.errors.TimeoutError
        return self.writes

    async def _pass(self) -> None:
        """Others get their turn, as over a network."""
        await asyncio.sleep(0)
        if self.is_away:
            raise nats.errors.TimeoutError

    def record(self, key: str) -> Record[Account]:
        return Record(self, key, Account(), writes_max=50)  # type: ignore[arg-type]

    def account(self, key: str) -> Account:
        entry = self.entries.get(key)
        return Account.model_validate_json(entry.value) if entry else Account()
