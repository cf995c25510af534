"""The rules of delivery, once for all services: from a message to its one answer.

    guard → handle → publish, await the PubAck → copy an urgent one into its lane → ack
    not normal, from the main consumer → left to its lane, then ack
    any error → RetryPolicy.decide → nak(delay) | dead letter, then ack
    its batch was cancelled → a record that says so, then ack

What happens when the process dies at any of these arrows: the server hands the message out again,
and everything up to the arrow is found done (first write wins, the cache, the ledger). What can't
be published is held in hand until it can.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import structlog
from nats.aio.msg import Msg
from structlog.contextvars import bind_contextvars, bound_contextvars

from services.kernel import topology
from services.kernel.circumstances import Circumstances
from services.kernel.errors import BatchCancelled, BudgetReached, Outage, PermanentError
from services.kernel.holding import Holding
from services.kernel.metrics import Metrics
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.stream.attempt_store import AttemptStore
from services.kernel.stream.attempts import AlreadyDone, AttemptLedger, TakenOver
from services.kernel.stream.dead_letters import CANCELLED, dead_letter, subject_of
from services.kernel.stream.endings import Endings
from services.kernel.stream.in_hand import InHand
from services.kernel.stream.incoming import (
    Identity,
    Incoming,
    Outgoing,
    identity_of_subject,
    read_delivery,
)
from services.kernel.stream.lanes import Lanes
from services.kernel.stream.outgoing import Publisher
from services.kernel.stream.retry import GiveUp, Retry, RetryPolicy
from services.kernel.stream.trace import Trace

_LOOK_EVERY: Final = 4
"""Deliveries of a term whose batch is over its budget."""


class Handler(Protocol):
    """What a service does with one message: a function from one event to the next.

    Returns what is to be published, or None when the message is dealt with.
    """

    async def __call__(self, incoming: Incoming, ledger: AttemptLedger, /) -> Outgoing | None: ...


class Delivery:
    """Carries messages of one service to their answer. Never raises for a message's sake."""

    def __init__(
        self,
        service: str,
        handle: Handler,
        *,
        publisher: Publisher,
        attempts: AttemptStore,
        endings: Endings,
        lanes: Lanes,
        policy: RetryPolicy,
        in_hand: InHand,
        holding: Holding,
        metrics: Metrics,
        circumstances: Circumstances | None = None,
        identify: Callable[[Incoming], Identity] = identity_of_subject,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._service = service
        self._handle = handle
        self._publisher = publisher
        self._attempts = attempts
        self._endings = endings
        self._lanes = lanes
        self._policy = policy
        self._in_hand = in_hand
        self._holding = holding
        self._circumstances = circumstances or Circumstances()
        self._metrics = metrics
        self._identify = identify
        self._jitter = jitter
        self._log = structlog.get_logger()

    async def __call__(self, message: Msg) -> None:
        incoming = read_delivery(message)
        identity = self._identify(incoming)
        trace = Trace.of(incoming.headers).child()
        ledger = self._attempts.ledger(
            identity,
            replay=incoming.replay,
            max_attempts=self._policy.max_attempts,
            has_ended=lambda: self._endings.has_ended(identity, incoming.replay),
            is_cancelled=lambda: identity.batch in self._circumstances.cancelled,
        )
        with (
            self._in_hand.work_on(message),
            bound_contextvars(
                batch=identity.batch,
                term_id=identity.id,
                stage=self._service,
                attempt=1,
                trace_id=trace.trace_id,
            ),
        ):
            try:
                if lane := self._lanes.lane_of(incoming):
                    outcome = await self._leave_to(lane, incoming, identity)
                else:
                    outcome = await self._carry_on(incoming, identity, ledger, trace)
            except TakenOver:
                self._note_taken_over()
                return
            except Exception as error:
                await self._answer_failure(message, incoming, identity, ledger, error)
                return
            await self._ack(message)
            self._metrics.completed(outcome)
            self._log.debug("message.completed", outcome=outcome)

    async def _leave_to(self, lane: topology.Lane, incoming: Incoming, identity: Identity) -> str:
        """On the main consumer: the lane's copy is what becomes of the term, also cancelled."""
        if await self._endings.has_ended(identity, incoming.replay):
            return "duplicate"
        await self._lanes.leave(incoming, lane)
        return "left_to_lane"

    async def _carry_on(
        self, incoming: Incoming, identity: Identity, ledger: AttemptLedger, trace: Trace
    ) -> str:
        try:
            return await self._carry(incoming, identity, ledger, trace)
        except AlreadyDone:
            if incoming.lane == "urgent":  # Who ended it may have died before this.
                await self._holding.until_written(lambda: self._lanes.hurry_on(identity))
            return "duplicate"

    async def _carry(
        self, incoming: Incoming, identity: Identity, ledger: AttemptLedger, trace: Trace
    ) -> str:
        if identity.batch in self._circumstances.cancelled:
            await ledger.reopen()
            if not ledger.is_answered:
                raise BatchCancelled(f"batch {identity.batch} was cancelled")
        self._put_off_unaffordable(incoming, identity)
        if incoming.redelivered or incoming.replay:
            await ledger.reopen()
            await ledger.mark_started()
            bind_contextvars(attempt=ledger.used)
        outgoing = await self._handle(incoming, ledger)
        await self._holding.until_written(ledger.conclude)
        if outgoing is None:
            return "published"
        headers = {topology.TRACEPARENT: trace.header()}
        if incoming.replay:
            headers[topology.REPLAYS] = str(incoming.replay)
        return await self._publish(outgoing, headers)

    async def _publish(self, outgoing: Outgoing, headers: dict[str, str]) -> str:
        subject, body = outgoing.subject, outgoing.body
        if outgoing.priority != "normal":
            headers = {**headers, topology.PRIORITY: outgoing.priority}
        published = await self._holding.until_written(
            lambda: self._publisher.publish(subject, body, headers=headers)
        )
        if outgoing.priority == "urgent":
            await self._holding.until_written(
                lambda: self._lanes.hurry(
                    subject, None if published == "duplicate" else body, headers
                )
            )
        return published

    def _put_off_unaffordable(self, incoming: Incoming, identity: Identity) -> None:
        """A batch without money comes again and again: that must cost the others nothing.

        Now and then it is looked whether the answer is known meanwhile: that costs no money.
        """
        looks = incoming.deliveries % _LOOK_EVERY == 1
        if identity.batch in self._circumstances.unaffordable and not looks:
            raise BudgetReached(f"the budget of batch {identity.batch} is used up")

    async def _answer_failure(
        self,
        message: Msg,
        incoming: Incoming,
        identity: Identity,
        ledger: AttemptLedger,
        error: Exception,
    ) -> None:
        """When even the answer fails, the server's ack clock hands the message out again."""
        try:
            await self._decide(message, incoming, identity, ledger, error)
        except TakenOver:
            self._note_taken_over()
        except Exception as second:
            self._log.warning(
                "answer.failed", error=repr(second), after=repr(error), hint="will be redelivered"
            )

    def _note_taken_over(self) -> None:
        self._log.warning("message.taken_over", hint="another replica answers it")
        self._metrics.completed("deferred")

    async def _decide(
        self,
        message: Msg,
        incoming: Incoming,
        identity: Identity,
        ledger: AttemptLedger,
        error: Exception,
    ) -> None:
        verdict = await self._verdict(incoming, ledger, error)
        ledger.check_mine()
        match verdict:
            case GiveUp(reason):
                await self._end(incoming, identity, ledger, error, reason)
                await self._ack(message)
            case Retry(delay_s):
                await message.nak(delay=delay_s)
                self._metrics.completed("deferred" if isinstance(error, Outage) else "retried")
                self._log.info(
                    "retry.scheduled",
                    delay_s=round(delay_s, 3),
                    attempt=ledger.used,
                    error=str(error),
                )

    async def _end(
        self,
        incoming: Incoming,
        identity: Identity,
        ledger: AttemptLedger,
        error: Exception,
        reason: str,
    ) -> None:
        """Writes the record of a term that became nothing; one that stands is left as it is."""
        await self._holding.until_written(lambda: ledger.give_up(reason))
        if await self._endings.is_superseded(incoming) or await self._endings.has_ended(
            identity, incoming.replay
        ):
            self._metrics.completed("duplicate")
            return
        letter = dead_letter(
            self._service,
            incoming,
            identity,
            reason=reason,
            error=error,
            history=ledger.history,
        )
        await self._holding.until_written(
            lambda: self._publisher.publish(subject_of(letter), letter.to_bytes())
        )
        if reason == CANCELLED:
            self._metrics.completed("cancelled")
            self._log.info("message.cancelled")
        else:
            self._metrics.completed("dead")
            self._log.warning("message.dead", reason=reason, error=letter.message)

    async def _verdict(
        self, incoming: Incoming, ledger: AttemptLedger, error: Exception
    ) -> Retry | GiveUp:
        if isinstance(error, BatchCancelled):
            with suppress(Outage):
                await ledger.take_back()
            return GiveUp(CANCELLED)
        verdict = self._policy.decide(error, attempt=max(ledger.used, 1), jitter=self._jitter())
        if isinstance(verdict, Retry) and not verdict.uses_attempt:
            with suppress(Outage):  # When the bucket is away too, the mark stays counted.
                await ledger.take_back()
            # No attempt tells how long this has been going on; the server's count does.
            return self._policy.decide(error, attempt=incoming.deliveries, jitter=self._jitter())
        if isinstance(error, PermanentError) and not ledger.in_attempt:
            return verdict  # Refused before any work was done: no attempt.
        await ledger.fail(f"{type(error).__name__}: {error}"[:500])
        return self._policy.decide(error, attempt=ledger.used, jitter=self._jitter())

    @staticmethod
    async def _ack(message: Msg) -> None:
        """A lost ack costs a redelivery, which finds the work done: not worth a round trip."""
        with suppress(*NATS_FAULTS):
            await message.ack()
