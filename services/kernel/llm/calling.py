"""One call of a model, and what its money needs: budget → turn → ledger → call → cache → ledger.

What is known here alone, an answer and how a call ended, is held until it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol, TypeVar

import structlog

from services.kernel.contracts.attempt import AttemptHistory, Outcome
from services.kernel.contracts.term import TermAccepted
from services.kernel.errors import PipelineError, ReplyRejected, Throttled, UncertainCall
from services.kernel.holding import Holding
from services.kernel.llm.budget import Budget, Reservation
from services.kernel.llm.cache import CompletionCache, kept_as
from services.kernel.llm.claims import Claim, ClaimLost
from services.kernel.llm.prompt import CompletionRequest, Inquiry
from services.kernel.llm.provider import Completion, UnfitCompletion
from services.kernel.llm.repair import repair_of
from services.kernel.llm.routes import Routes, Turn
from services.kernel.metrics import Metrics

ReplyT = TypeVar("ReplyT")
Parse = Callable[[Completion], ReplyT]
"""Raises ReplyRejected for an unfit completion."""

_STORY_MAX_CHARACTERS = 500
"""Of an error in the ledger: its records are small, and an error can quote a whole reply."""


class Ledger(Protocol):
    """Where every call is recorded: before it is sent, and how it ended."""

    @property
    def history(self) -> AttemptHistory: ...

    @property
    def used(self) -> int: ...

    @property
    def has_attempt_left(self) -> bool:
        """Another call may be made without a new delivery."""
        ...

    async def begin(self, fingerprint: str, *, is_repair: bool = ...) -> str:
        """The id of the attempt."""
        ...

    async def settle(
        self, outcome: Outcome, *, paid_for: Completion | None = ..., error: str | None = ...
    ) -> None: ...

    async def recover(self, completion: Completion) -> bool:
        """True when a completion in the cache was paid for by a call of this very term.

        Settles that call if its process died before it could. Raises AlreadyDone for a term that
        has ended.
        """
        ...


@dataclass(frozen=True)
class _Call:
    """One call, and what it stands on."""

    request: CompletionRequest
    ledger: Ledger
    claim: Claim
    turn: Turn
    reservation: Reservation
    is_repair: bool


class Caller:
    """Makes the calls of one stage."""

    def __init__(
        self,
        routes: Routes,
        budget: Budget,
        cache: CompletionCache,
        metrics: Metrics,
        holding: Holding,
    ) -> None:
        self._routes = routes
        self._budget = budget
        self._cache = cache
        self._metrics = metrics
        self._holding = holding
        self._log = structlog.get_logger()

    async def call(
        self,
        inquiry: Inquiry,
        parse: Parse[ReplyT],
        ledger: Ledger,
        claim: Claim,
        term: TermAccepted,
    ) -> tuple[Completion, ReplyT]:
        """The completion and its reply, for whoever holds the claim. Waits while throttled.

        An unfit reply is asked for once more. Raises UnfitCompletion when the second one is unfit,
        too, or the term has no attempt left; ClaimLost, without a call, when the claim did not
        last until the turn, and BudgetReached when the term's batch has no money left.
        """
        try:
            return await self._called(inquiry, parse, ledger, claim, term)
        except UnfitCompletion as error:
            repair = repair_of(inquiry, error) if ledger.has_attempt_left else None
            if repair is None:
                raise
            self._log.info("repair.begun", reason=_story(error))
        try:
            called = await self._called(repair, parse, ledger, claim, term)
        except Exception as error:
            self._metrics.repaired("unfit" if isinstance(error, UnfitCompletion) else "failed")
            raise
        self._metrics.repaired("repaired")
        return called

    async def _called(
        self,
        inquiry: Inquiry,
        parse: Parse[ReplyT],
        ledger: Ledger,
        claim: Claim,
        term: TermAccepted,
    ) -> tuple[Completion, ReplyT]:
        """One answer, in a turn and with a reservation of its own."""
        is_repair = inquiry.repairs is not None
        while True:
            async with (
                self._budget.reserve(inquiry, term.batch) as reservation,
                self._routes.turn(inquiry, term.priority) as turn,
            ):
                request = inquiry.request(turn.access)
                call = _Call(request, ledger, claim, turn, reservation, is_repair)
                with suppress(Throttled):
                    return await self._in_turn(call, parse)

    async def _in_turn(self, call: _Call, parse: Parse[ReplyT]) -> tuple[Completion, ReplyT]:
        if not call.claim.is_fresh():
            raise ClaimLost("the claim was not renewed while the call waited for its turn")
        call_id = await call.ledger.begin(call.request.fingerprint, is_repair=call.is_repair)
        if not call.claim.is_held():
            await self._settle(call, "unbilled", error="not sent: its claim was lost")
            raise ClaimLost("the claim was lost while the call was recorded")
        call.reservation.keep()
        completion = await self._complete(call)
        try:
            reply = parse(completion)
        except ReplyRejected as error:
            await self._settle_billed(call, completion, error=_story(error))
            raise UnfitCompletion(error.reason, error.detail, completion) from error.__cause__
        except Exception as error:
            await self._settle_billed(call, completion, error=_story(error))
            raise
        kept = kept_as(completion, call.request, call_id)
        # In this order: who dies in between finds the answer in the cache and settles then.
        is_first = await self._holding.until_written(lambda: self._keep(call, kept))
        await self._settle_billed(call, completion, is_sure=is_first)
        return completion, reply

    async def _keep(self, call: _Call, kept: Completion) -> bool:
        """Puts the answer into the cache; False when it may not be the only one.

        Looked at before and after: what is held waits long, and a claim does not.
        """
        if not call.claim.is_held() and not await self._is_first(call, kept):
            return False
        await self._cache.put(call.request.fingerprint, kept)
        return call.claim.is_held() or await self._is_first(call, kept)

    async def _is_first(self, call: _Call, kept: Completion) -> bool:
        """Whether an answer whose claim was in doubt is the only one for its fingerprint.

        Not when somebody else is asking now, or has asked and been answered meanwhile.
        """
        if not await call.claim.retake():
            return False
        other = await self._cache.get(call.request.fingerprint)
        return other is None or other.call_id == kept.call_id

    async def _complete(self, call: _Call) -> Completion:
        """The provider's answer; any failure is settled. Unknown ones may be paid."""
        try:
            with self._metrics.call_seconds.time():
                return await call.turn.complete(call.request)
        except UnfitCompletion as error:
            await self._settle_billed(call, error.completion, error=_story(error))
            raise
        except Exception as error:
            outcome = _outcome_of(error)
            if outcome != "uncertain":
                call.reservation.settle(Decimal(0))
            self._metrics.called(outcome)
            await self._settle(call, outcome, error=_story(error))
            raise

    async def _settle_billed(
        self,
        call: _Call,
        completion: Completion,
        *,
        error: str | None = None,
        is_sure: bool = True,
    ) -> None:
        """A success that may be the second one is no sure one."""
        call.reservation.settle(completion.usage.cost_usd)
        self._metrics.called("unfit" if error else "billed")
        self._metrics.cost_usd.inc(float(completion.usage.cost_usd))
        if call.is_repair:
            self._metrics.repair_cost_usd.inc(float(completion.usage.cost_usd))
        await self._settle(
            call,
            "billed" if is_sure else "uncertain",
            paid_for=completion,
            error=error if is_sure else "answered after its claim was lost",
        )

    async def _settle(
        self,
        call: _Call,
        outcome: Outcome,
        *,
        paid_for: Completion | None = None,
        error: str | None = None,
    ) -> None:
        """How a call ended is known to nobody else: it is held until it is on record."""
        await self._holding.until_written(
            lambda: call.ledger.settle(outcome, paid_for=paid_for, error=error)
        )


def _outcome_of(error: Exception) -> Outcome:
    """How a call without an answer ended."""
    match error:
        case Throttled():
            return "throttled"
        case UncertainCall():
            return "uncertain"
        case PipelineError():
            return "unbilled"
        case _:
            return "uncertain"


def _story(error: Exception) -> str:
    return (str(error) or repr(error))[:_STORY_MAX_CHARACTERS]
