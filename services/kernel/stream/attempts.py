"""Our count of attempts, and the ledger of paid calls: one KV record a term and service.

A record is written before a call and settled after it, so a process that dies leaves a trace: an
attempt `started` and never settled. The server's delivery count can't do this (it rises when a
replica stops and can fall back after a crash).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Protocol, TypeVar

from nats.js.errors import (
    KeyNotFoundError,
    KeyWrongLastSequenceError,
)
from nats.js.kv import KeyValue

from services.kernel import topology
from services.kernel.contracts.attempt import Attempt, AttemptHistory, Outcome
from services.kernel.contracts.provenance import Usage
from services.kernel.errors import Outage, PipelineError
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.stream.incoming import Identity

T = TypeVar("T")


class AlreadyDone(PipelineError):
    """The next stream holds the result already; there is nothing left to do or to pay."""


class PaidFor(Protocol):
    """What the ledger records of a completion."""

    @property
    def model(self) -> str: ...

    @property
    def generation_id(self) -> str | None: ...

    @property
    def usage(self) -> Usage: ...


class AttemptLedger:
    """The attempts for one delivery. Implements `kernel.llm.asker.Ledger`.

    `is_done` tells whether the next stream holds the result; it is asked only when somebody has
    worked on this term before.
    """

    def __init__(
        self, bucket: KeyValue, key: str, *, replay: int, is_done: Callable[[], Awaitable[bool]]
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._replay = replay
        self._is_done = is_done
        self._revision: int | None = None
        self._open: int | None = None
        self.history = AttemptHistory()

    @property
    def used(self) -> int:
        """Attempts used since the last replay."""
        return self.history.count(self._replay)

    @property
    def answered(self) -> bool:
        """The last attempt got its answer: what is left to do costs nothing."""
        last = self.history.attempts[-1:]
        return bool(last) and last[0].outcome == "billed" and last[0].error is None

    @property
    def in_attempt(self) -> bool:
        """This delivery has an attempt of its own on record."""
        return self._open is not None

    async def reopen(self) -> None:
        """Reads what earlier deliveries left, for a message that was handed out before."""
        await self._load()
        if await self._is_done():
            raise AlreadyDone(self._key)

    async def mark_started(self) -> None:
        """Counts an attempt before any work: what kills its process each time runs out of them."""
        if self._open is None:
            await self._append(Attempt(replay=self._replay, outcome="started", started_at=_now()))

    async def begin(self, fingerprint: str) -> None:
        """Records a call before it is sent. Raises AlreadyDone when the result exists."""
        if self._revision is None and await self._first(fingerprint):
            return
        if self._revision is None:
            await self.reopen()
        call = Attempt(
            replay=self._replay, outcome="started", fingerprint=fingerprint, started_at=_now()
        )
        if self._open is None or self._current().fingerprint is not None:
            await self._append(call)  # A second call of this delivery is a call of its own.
        else:
            await self._replace(call)

    async def settle(
        self,
        outcome: Outcome,
        *,
        cost_usd: Decimal = Decimal(0),
        generation_id: str | None = None,
        model: str | None = None,
        error: str | None = None,
    ) -> None:
        """Records how the call that was begun ended."""
        settled = self._current().model_copy(
            update={
                "outcome": outcome,
                "cost_usd": cost_usd,
                "generation_id": generation_id,
                "model": model,
                "error": error,
                "finished_at": _now(),
            }
        )
        if outcome == "throttled":
            await self._put_off(settled)
        else:
            await self._replace(settled)

    async def _put_off(self, throttled: Attempt) -> None:
        """Refusals in a row become one entry: a provider may turn us away for days."""
        assert self._open is not None, "put off a call that was never begun"  # noqa: S101
        earlier = self.history.attempts[: self._open]
        before = earlier[-1] if earlier else None
        if before and before.outcome == "throttled" and before.replay == throttled.replay:
            times = before.times + 1
            throttled = throttled.model_copy(
                update={"times": times, "started_at": before.started_at}
            )
            earlier = earlier[:-1]
        await self._store(AttemptHistory(attempts=(*earlier, throttled)))
        self._open = None

    async def recover(self, fingerprint: str, completion: PaidFor) -> bool:
        """Settles a call of an earlier delivery that died after its answer was put in the cache.

        Only redelivered messages have such calls, and their history is loaded.
        """
        for index, attempt in enumerate(self.history.attempts):
            if attempt.outcome == "started" and attempt.fingerprint == fingerprint:
                settled = attempt.model_copy(
                    update={
                        "outcome": "billed",
                        "cost_usd": completion.usage.cost_usd,
                        "generation_id": completion.generation_id,
                        "model": completion.model,
                        "finished_at": _now(),
                    }
                )
                await self._replace(settled, index)
                return True
        return False

    async def fail(self, error: str) -> None:
        """Notes why this delivery failed, on its attempt or on a new one without a call."""
        if self._revision is None:
            await self._load()
        if self._open is None:
            failed = Attempt(
                replay=self._replay,
                outcome="failed",
                started_at=_now(),
                finished_at=_now(),
                error=error,
            )
            await self._append(failed)
            return
        current = self._current()
        outcome = "failed" if current.outcome == "started" else current.outcome
        await self._replace(
            current.model_copy(update={"outcome": outcome, "error": error, "finished_at": _now()})
        )

    async def take_back(self) -> None:
        """Uncounts an attempt that was only marked: a call that was begun stays on record."""
        if self._open is None or self._current().outcome != "started":
            return
        if self._current().fingerprint is None:
            attempts = list(self.history.attempts)
            del attempts[self._open]
            await self._store(AttemptHistory(attempts=tuple(attempts)))
            self._open = None

    def _current(self) -> Attempt:
        assert self._open is not None, "settled a call that was never begun"  # noqa: S101
        return self.history.attempts[self._open]

    async def _first(self, fingerprint: str) -> bool:
        """Creates the record; False when there is one already."""
        first = Attempt(
            replay=self._replay, outcome="started", fingerprint=fingerprint, started_at=_now()
        )
        history = AttemptHistory(attempts=(first,))
        try:
            self._revision = await _guarded(
                self._bucket.create(self._key, history.to_bytes(), validate_keys=False)
            )
        except KeyWrongLastSequenceError:
            return False
        self.history, self._open = history, 0
        return True

    async def _append(self, attempt: Attempt) -> None:
        await self._store(AttemptHistory(attempts=(*self.history.attempts, attempt)))
        self._open = len(self.history.attempts) - 1

    async def _replace(self, attempt: Attempt, index: int | None = None) -> None:
        at = self._open if index is None else index
        assert at is not None, "replaced an attempt that was never begun"  # noqa: S101
        attempts = list(self.history.attempts)
        attempts[at] = attempt
        await self._store(AttemptHistory(attempts=tuple(attempts)))

    async def _store(self, history: AttemptHistory) -> None:
        try:
            self._revision = await _guarded(
                self._bucket.update(
                    self._key, history.to_bytes(), last=self._revision, validate_keys=False
                )
            )
        except KeyWrongLastSequenceError as error:
            # Another replica has the same message in hand: let one of the two come back later.
            raise Outage(f"attempts of {self._key} were written by somebody else") from error
        self.history = history

    async def _load(self) -> None:
        try:
            entry = await _guarded(self._bucket.get(self._key, validate_keys=False))
        except KeyNotFoundError as error:
            # A deleted key keeps a marker, whose revision the next write must name.
            self._revision = getattr(error.entry, "revision", None) or 0
            return
        self._revision = entry.revision or 0
        self.history = AttemptHistory.model_validate_json(entry.value or b"{}")


class AttemptStore:
    """Opens the ledger of a delivery."""

    def __init__(self, bucket: KeyValue, service: str) -> None:
        self._bucket = bucket
        self._service = service

    def ledger(
        self, identity: Identity, *, replay: int, is_done: Callable[[], Awaitable[bool]]
    ) -> AttemptLedger:
        key = topology.attempts_key(self._service, identity.batch, identity.id)
        return AttemptLedger(self._bucket, key, replay=replay, is_done=is_done)


async def _guarded(call: Awaitable[T]) -> T:
    """Bucket faults become Outage; an answer about the key itself passes through."""
    try:
        return await call
    except (KeyWrongLastSequenceError, KeyNotFoundError):
        raise
    except NATS_FAULTS as error:
        raise Outage(f"the attempts can't be recorded: {error!r}") from error


def _now() -> datetime:
    return datetime.now(UTC)
