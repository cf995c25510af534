"""Our count of attempts, and the ledger of paid calls: one KV record a term and service.

A record is written before a call and settled after it, so a process that dies leaves a trace: an
attempt `started` and never settled. The server's delivery count rises when a replica stops, too.

A message can be in two hands at once, when a replica was cut off from the server for longer than
ack_wait, or when a consumer was made anew. What both may decide is decided by a write to this
record: who begins a call closes the calls that are open, who gives the term up closes everything,
and who publishes says so before. Whoever finds its own closed leaves the message to the other.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Set

from services.kernel.contracts.attempt import Attempt, AttemptHistory, GivenUp, Outcome
from services.kernel.errors import BatchCancelled, PermanentError, PipelineError
from services.kernel.record import Record
from services.kernel.stream.attempt_changes import (
    Attempts,
    PaidFor,
    answered,
    appended,
    begun,
    closed,
    failed,
    in_vain,
    is_answered,
    now,
    put_off,
    settled,
    settlement_of,
    unmarked,
    was_taken_over,
)
from services.kernel.stream.incoming import Identity


class AlreadyDone(PipelineError):
    """The term has ended in this service already; there is nothing left to do or to pay."""


class TakenOver(PipelineError):
    """Somebody else has the message now, and decides what becomes of it: leave it unanswered."""


class AttemptLedger:
    """The attempts for one delivery. Implements `kernel.llm.calling.Ledger`.

    `has_ended` tells whether the term's result or its dead letter stands; it is asked only when
    somebody has worked on this term before. `is_cancelled`: nothing more may be spent on it.
    """

    def __init__(
        self,
        record: Record[AttemptHistory],
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
        self._own: set[str] = set()
        self._known_answers: Set[str] = frozenset()

    @property
    def history(self) -> AttemptHistory:
        return self._record.value

    @property
    def used(self) -> int:
        """Attempts used since the last replay."""
        return self.history.count(self._replay)

    @property
    def in_attempt(self) -> bool:
        """This delivery has an attempt of its own on record."""
        return self._open is not None

    async def give_up(self, reason: str) -> None:
        """Before the term's end is written: from now on no other hand can publish a result.

        Raises TakenOver when one is about to.
        """
        if not self._record.is_known:
            return  # Nobody has worked on it.

        def change(history: AttemptHistory) -> AttemptHistory:
            self._check_unanswered(history)
            given_up = GivenUp(replay=self._replay, reason=reason)
            attempts = closed(history.attempts, self._open)
            return history.model_copy(update={"attempts": attempts, "given_up": given_up})

        self.check_mine()
        await self._record.change(change)

    async def conclude(self) -> None:
        """Before a result is published: from now on no other hand can give the term up.

        Raises TakenOver when one has.
        """
        if self._open is not None and self._current_fingerprint() is None:
            await self._record.change(self._concluded)
        self.check_mine()

    def _concluded(self, history: AttemptHistory) -> AttemptHistory:
        self._check_kept(history)
        done = settled(history.attempts, self._current(), settlement_of("cached", None, None))
        return history.model_copy(update={"attempts": done})

    def _check_kept(self, history: AttemptHistory) -> None:
        if history.is_given_up(self._replay):
            raise TakenOver("another hand has given it up, and writes that down")

    def _check_unanswered(self, history: AttemptHistory) -> None:
        """What was answered before this hand looked may be lost or unfit by now."""
        if answered(history.attempts) - self._known_answers - self._own:
            raise TakenOver("another hand was answered meanwhile")

    def check_mine(self) -> None:
        """Raises TakenOver when another hand decides what becomes of the message."""
        if self._open and was_taken_over(self.history.attempts, self._open):
            raise TakenOver("another hand has taken it over")

    @property
    def is_answered(self) -> bool:
        """It was paid for since the last replay: the rest of its way costs nothing."""
        return any(a.replay == self._replay and is_answered(a) for a in self.history.attempts)

    async def reopen(self) -> None:
        """Reads what earlier deliveries left.

        Raises AlreadyDone when the term has ended, and PermanentError when its attempts are used
        up: then handling it may be what ends its process each time.
        """
        await self._record.load()
        await self._check_open()

    async def _check_open(self) -> None:
        self._known_answers = answered(self.history.attempts)
        await self._check_ended()
        given_up = self.history.given_up
        if given_up and self.history.is_given_up(self._replay):
            raise PermanentError(
                "given up before, by a process that ended before it was written",
                reason=given_up.reason,
            )
        used = in_vain(self.history.attempts, self._replay, self._own)
        if used >= self._max_attempts:
            raise PermanentError(
                f"given up after {used} attempts that ended without an answer; "
                "handling it may have ended its process each time",
                reason="attempts_used_up",
            )

    async def _check_ended(self) -> None:
        if await self._has_ended():
            raise AlreadyDone(f"{self._identity.batch}/{self._identity.id} has ended")

    async def mark_started(self) -> None:
        """Counts an attempt before any work: what kills its process each time runs out of them."""
        if self._open is None:
            await self._append(self._new())

    @property
    def has_attempt_left(self) -> bool:
        """A further call is within the bound, as far as this hand knows."""
        return in_vain(self.history.attempts, self._replay) < self._max_attempts

    async def begin(self, fingerprint: str, *, is_repair: bool = False) -> str:
        """Records a call before it is sent; its id.

        Raises BatchCancelled when nothing more may be spent, and what `reopen` raises.
        """
        if self._is_cancelled():
            raise BatchCancelled(f"batch {self._identity.batch} was cancelled")
        call = self._new(fingerprint, is_repair=is_repair)
        if not self._record.is_known:
            if await self._record.create(AttemptHistory(attempts=(call,))):
                self._open = call.id
                return call.id
            await self._record.load()
            if not self._has(call):  # It may be there all the same: the answer was lost.
                await self._check_open()
        marked = self._open if self._current_fingerprint() is None else None
        await self._record.change(lambda history: self._begun(history, call, marked))
        self._open = call.id
        return call.id

    def _begun(self, history: AttemptHistory, call: Attempt, marked: str | None) -> AttemptHistory:
        self._check_kept(history)
        if in_vain(history.attempts, self._replay, self._own) >= self._max_attempts:
            raise TakenOver("another hand has its last attempt")
        self._check_unanswered(history)
        return history.model_copy(update={"attempts": begun(history.attempts, call, marked)})

    async def settle(
        self, outcome: Outcome, *, paid_for: PaidFor | None = None, error: str | None = None
    ) -> None:
        """Records how the call that was begun ended, and what was paid for it."""
        settlement = settlement_of(outcome, paid_for, error)
        own = self._current()
        if outcome == "throttled":
            await self._change(lambda attempts: put_off(attempts, own, settlement))
            self._open = None
        else:
            await self._change(lambda attempts: settled(attempts, own, settlement))

    async def recover(self, completion: PaidFor) -> bool:
        """True when a completion in the cache was paid for by a call of this very term.

        If its process died before it could say so, the call is settled now. An open call whose
        answer it is not stays uncertain. Raises AlreadyDone when the term has ended: a consumer
        that was made anew delivers its message as if for the first time.
        """
        if not self._record.is_known:
            await self._record.load()
            if self.history.attempts or self.history.given_up or self._is_cancelled():
                await self._check_ended()
                self._check_kept(self.history)
                await self.mark_started()
        own = [a for a in self.history.attempts if a.id and a.id == completion.call_id]
        if own and own[0].outcome == "started":
            settlement = settlement_of("billed", completion, None)
            await self._change(lambda attempts: settled(attempts, own[0].id, settlement))
        return bool(own)

    async def fail(self, error: str) -> None:
        """Notes why this delivery failed, on its attempt or on a new one without a call."""
        ended_at = now()
        if self._open is None:
            failure = self._new().model_copy(
                update={"outcome": "failed", "error": error, "finished_at": ended_at}
            )
            await self._append(failure)
        else:
            own = self._current()
            await self._change(lambda attempts: failed(attempts, own, error, ended_at))

    async def take_back(self) -> None:
        """Uncounts an attempt that was only marked: a call that was begun stays on record."""
        if self._open is None or self._current_fingerprint() is not None:
            return
        own = self._current()
        await self._change(lambda attempts: unmarked(attempts, own))
        self._open = None

    async def _append(self, attempt: Attempt) -> None:
        await self._change(lambda attempts: appended(attempts, attempt))
        self._open = attempt.id

    async def _change(self, change: Callable[[Attempts], Attempts]) -> None:
        await self._record.change(
            lambda history: history.model_copy(update={"attempts": change(history.attempts)})
        )

    def _new(self, fingerprint: str | None = None, *, is_repair: bool = False) -> Attempt:
        id_ = secrets.token_hex(4)
        self._own.add(id_)
        return Attempt(
            id=id_,
            replay=self._replay,
            outcome="started",
            fingerprint=fingerprint,
            is_repair=is_repair,
            started_at=now(),
        )

    def _has(self, attempt: Attempt) -> bool:
        return any(a.id == attempt.id for a in self.history.attempts)

    def _current(self) -> str:
        assert self._open is not None, "settled a call that was never begun"  # noqa: S101
        return self._open

    def _current_fingerprint(self) -> str | None:
        own = (a.fingerprint for a in self.history.attempts if a.id == self._open)
        return next(own, None) if self._open else None
