"""Our count of attempts, and the ledger of paid calls: one KV record a term and service.

A record is written before a call and settled after it, so a process that dies leaves a trace: an
attempt `started` and never settled. The server's delivery count can't do this (it rises when a
replica stops and can fall back after a crash).

A message can be in two hands at once, when a replica was cut off from the server for longer than
ack_wait. Whoever begins a call then finds the other's open: it becomes `uncertain`, and stays so
when its answer comes after all, with what it cost.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from nats.js.kv import KeyValue

from services.kernel import topology
from services.kernel.contracts.attempt import Attempt, AttemptHistory, Outcome
from services.kernel.contracts.provenance import Usage
from services.kernel.errors import BatchCancelled, PermanentError, PipelineError
from services.kernel.stream.attempt_changes import (
    appended,
    begun,
    failed,
    put_off,
    settled,
    taken_over,
    unmarked,
    was_taken_over,
)
from services.kernel.stream.attempt_record import AttemptRecord
from services.kernel.stream.incoming import Identity


class AlreadyDone(PipelineError):
    """The term has ended in this service already; there is nothing left to do or to pay."""


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

    `has_ended` tells whether the term's result or its dead letter stands; it is asked only when
    somebody has worked on this term before. `is_cancelled`: nothing more may be spent on it.
    """

    def __init__(
        self,
        record: AttemptRecord,
        identity: Identity,
        *,
        replay: int,
        max_attempts: int,
        has_ended: Callable[[], Awaitable[bool]],
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._record = record
        self._identity = identity
        self._replay = replay
        self._max_attempts = max_attempts
        self._has_ended = has_ended
        self._is_cancelled = is_cancelled
        self._open: str | None = None

    @property
    def history(self) -> AttemptHistory:
        return self._record.history

    @property
    def used(self) -> int:
        """Attempts used since the last replay."""
        return self.history.count(self._replay)

    @property
    def in_attempt(self) -> bool:
        """This delivery has an attempt of its own on record."""
        return self._open is not None

    @property
    def was_taken_over(self) -> bool:
        """Somebody else has the message now, and decides what becomes of it."""
        return self._open is not None and was_taken_over(self.history.attempts, self._open)

    async def take_over(self) -> None:
        """Before the term is given up: a call that another hand has open can't publish any more."""
        if self._record.is_known:
            own = self._open
            await self._record.change(lambda attempts: taken_over(attempts, own))

    async def reopen(self) -> None:
        """Reads what earlier deliveries left.

        Raises AlreadyDone when the term has ended, and PermanentError when its attempts are used
        up: then handling it may be what ends its process each time.
        """
        await self._record.load()
        await self._check_open()

    async def _check_open(self) -> None:
        if await self._has_ended():
            raise AlreadyDone(f"{self._identity.batch}/{self._identity.id} has ended")
        if self.used >= self._max_attempts and not self._is_answered():
            raise PermanentError(
                f"given up after {self.used} attempts that ended without an answer; "
                "handling it may have ended its process each time",
                reason="attempts_used_up",
            )

    async def mark_started(self) -> None:
        """Counts an attempt before any work: what kills its process each time runs out of them."""
        if self._open is None:
            await self._append(self._new())

    async def begin(self, fingerprint: str) -> None:
        """Records a call before it is sent.

        Raises BatchCancelled when nothing more may be spent, and what `reopen` raises.
        """
        if self._is_cancelled():
            raise BatchCancelled(f"batch {self._identity.batch} was cancelled")
        call = self._new(fingerprint)
        if not self._record.is_known:
            if await self._record.create(call):
                self._open = call.id
                return
            await self._record.load()
            if not self._has(call):  # It may be there all the same: the answer was lost.
                await self._check_open()
        marked = self._open if self._current_fingerprint() is None else None
        await self._record.change(lambda attempts: begun(attempts, call, marked))
        self._open = call.id

    async def settle(
        self, outcome: Outcome, *, paid_for: PaidFor | None = None, error: str | None = None
    ) -> None:
        """Records how the call that was begun ended, and what was paid for it."""
        settlement = _settlement(outcome, paid_for, error)
        own = self._own()
        if outcome == "throttled":
            await self._record.change(lambda attempts: put_off(attempts, own, settlement))
            self._open = None
        else:
            await self._record.change(lambda attempts: settled(attempts, own, settlement))

    async def recover(self, fingerprint: str, completion: PaidFor) -> bool:
        """Settles a call of an earlier delivery that died after its answer was put in the cache.

        Reads the record when nobody has: a delivery that counts as the first one can follow others,
        since a server that crashed and a consumer that is made anew count from one again.
        """
        if not self._record.is_known:
            await self._record.load()
        calls = [
            attempt.id
            for attempt in self.history.attempts
            if attempt.outcome == "started" and attempt.fingerprint == fingerprint and attempt.id
        ]
        if not calls:
            return False
        settlement = _settlement("billed", completion, None)
        await self._record.change(lambda attempts: settled(attempts, calls[0], settlement))
        return True

    async def fail(self, error: str) -> None:
        """Notes why this delivery failed, on its attempt or on a new one without a call."""
        now = _now()
        if self._open is None:
            failure = self._new().model_copy(
                update={"outcome": "failed", "error": error, "finished_at": now}
            )
            await self._append(failure)
        else:
            own = self._own()
            await self._record.change(lambda attempts: failed(attempts, own, error, now))

    async def take_back(self) -> None:
        """Uncounts an attempt that was only marked: a call that was begun stays on record."""
        if self._open is None or self._current_fingerprint() is not None:
            return
        own = self._own()
        await self._record.change(lambda attempts: unmarked(attempts, own))
        self._open = None

    async def _append(self, attempt: Attempt) -> None:
        await self._record.change(lambda attempts: appended(attempts, attempt))
        self._open = attempt.id

    def _new(self, fingerprint: str | None = None) -> Attempt:
        return Attempt(
            id=secrets.token_hex(4),
            replay=self._replay,
            outcome="started",
            fingerprint=fingerprint,
            started_at=_now(),
        )

    def _has(self, attempt: Attempt) -> bool:
        return any(a.id == attempt.id for a in self.history.attempts)

    def _own(self) -> str:
        assert self._open is not None, "settled a call that was never begun"  # noqa: S101
        return self._open

    def _current_fingerprint(self) -> str | None:
        own = (a.fingerprint for a in self.history.attempts if a.id == self._open)
        return next(own, None) if self._open else None

    def _is_answered(self) -> bool:
        """The last attempt got its answer: what is left to do costs nothing."""
        last = self.history.attempts[-1:]
        return bool(last) and last[0].outcome == "billed" and last[0].error is None


class AttemptStore:
    """Opens the ledger of a delivery."""

    def __init__(self, bucket: KeyValue, service: str) -> None:
        self._bucket = bucket
        self._service = service

    def ledger(
        self,
        identity: Identity,
        *,
        replay: int,
        max_attempts: int,
        has_ended: Callable[[], Awaitable[bool]],
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> AttemptLedger:
        key = topology.attempts_key(self._service, identity.batch, identity.id)
        return AttemptLedger(
            AttemptRecord(self._bucket, key),
            identity,
            replay=replay,
            max_attempts=max_attempts,
            has_ended=has_ended,
            is_cancelled=is_cancelled,
        )


def _settlement(outcome: Outcome, paid_for: PaidFor | None, error: str | None) -> dict[str, Any]:
    settlement: dict[str, Any] = {"outcome": outcome, "error": error, "finished_at": _now()}
    if paid_for is not None:
        settlement |= {
            "model": paid_for.model,
            "generation_id": paid_for.generation_id,
            "prompt_tokens": paid_for.usage.prompt_tokens,
            "completion_tokens": paid_for.usage.completion_tokens,
            "cost_usd": paid_for.usage.cost_usd,
        }
    return settlement


def _now() -> datetime:
    return datetime.now(UTC)
