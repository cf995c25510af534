"""One call of a model, and what its money needs: permit → ledger → call → cache → ledger.

What is known here alone, an answer and how a call ended, is held until it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import structlog

from services.kernel.contracts.attempt import AttemptHistory, Outcome
from services.kernel.errors import (
    PipelineError,
    ProviderBlocked,
    Throttled,
    TransientError,
    UncertainCall,
)
from services.kernel.holding import Holding
from services.kernel.llm.cache import CompletionCache
from services.kernel.llm.claims import Claim, ClaimLost
from services.kernel.llm.prompt import CompletionRequest
from services.kernel.llm.provider import Completion, Provider, UnfitCompletion
from services.kernel.llm.rate_limit import RateLimit
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

    async def begin(self, fingerprint: str) -> str:
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


class Caller:
    """Calls one provider. `note_trouble` hears why it does not serve us, and None when it does."""

    def __init__(
        self,
        provider: Provider,
        cache: CompletionCache,
        rate_limit: RateLimit,
        metrics: Metrics,
        holding: Holding,
        *,
        note_trouble: Callable[[str | None], None] = lambda _reason: None,
    ) -> None:
        self._provider = provider
        self._cache = cache
        self._rate_limit = rate_limit
        self._metrics = metrics
        self._holding = holding
        self._note_trouble = note_trouble
        self._log = structlog.get_logger()

    async def call(
        self,
        request: CompletionRequest,
        parse: Parse[ReplyT],
        ledger: Ledger,
        claim: Claim,
    ) -> tuple[Completion, ReplyT]:
        """The completion and its reply, for whoever holds the claim. Waits while throttled.

        Raises ClaimLost, without a call, when the claim did not last until the permit.
        """
        while True:
            await self._rate_limit.permit()
            if not claim.is_fresh():
                raise ClaimLost("the claim was not renewed while the call waited for its turn")
            call_id = await ledger.begin(request.fingerprint)
            if not claim.is_held():
                await self._settle(ledger, "unbilled", error="not sent: its claim was lost")
                raise ClaimLost("the claim was lost while the call was recorded")
            try:
                return await self._call_once(request, parse, ledger, claim, call_id)
            except Throttled as error:
                self._metrics.called("throttled")
                self._note_trouble(str(error) if isinstance(error, ProviderBlocked) else None)
                await self._settle(ledger, "throttled", error=_story(error))
                self._rate_limit.cool_down(error.retry_after_s)
                self._log.warning(
                    "provider.throttled", wait_s=round(error.retry_after_s, 3), reason=str(error)
                )

    async def _call_once(
        self,
        request: CompletionRequest,
        parse: Parse[ReplyT],
        ledger: Ledger,
        claim: Claim,
        call_id: str,
    ) -> tuple[Completion, ReplyT]:
        completion = await self._complete(request, ledger)
        try:
            reply = parse(completion)
        except Exception as error:
            await self._settle_billed(ledger, completion, error=_story(error))
            raise
        kept = completion.model_copy(update={"call_id": call_id})
        # In this order: who dies in between finds the answer in the cache and settles then.
        is_first = await self._holding.until_written(lambda: self._keep(request, claim, kept))
        await self._settle_billed(ledger, completion, is_sure=is_first)
        return completion, reply

    async def _keep(self, request: CompletionRequest, claim: Claim, kept: Completion) -> bool:
        """Puts the answer into the cache; False when it may not be the only one.

        Looked at before and after: what is held waits long, and a claim does not.
        """
        if not claim.is_held() and not await self._is_first(request, claim, kept):
            return False
        await self._cache.put(request.fingerprint, kept)
        return claim.is_held() or await self._is_first(request, claim, kept)

    async def _is_first(self, request: CompletionRequest, claim: Claim, kept: Completion) -> bool:
        """Whether an answer whose claim was in doubt is the only one for its fingerprint.

        Not when somebody else is asking now, or has asked and been answered meanwhile.
        """
        if not await claim.retake():
            return False
        other = await self._cache.get(request.fingerprint)
        return other is None or other.call_id == kept.call_id

    async def _complete(self, request: CompletionRequest, ledger: Ledger) -> Completion:
        """The provider's answer; any failure but Throttled is settled. Unknown ones may be paid."""
        try:
            with self._metrics.call_seconds.time():
                return await self._provider.complete(request)
        except Throttled:
            raise
        except UnfitCompletion as error:
            await self._settle_billed(ledger, error.completion, error=_story(error))
            raise
        except Exception as error:
            known = isinstance(error, PipelineError) and not isinstance(error, UncertainCall)
            outcome: Outcome = "unbilled" if known else "uncertain"
            if isinstance(error, TransientError):
                self._note_trouble(str(error))
            self._metrics.called(outcome)
            await self._settle(ledger, outcome, error=_story(error))
            raise

    async def _settle_billed(
        self,
        ledger: Ledger,
        completion: Completion,
        *,
        error: str | None = None,
        is_sure: bool = True,
    ) -> None:
        """A success that may be the second one is no sure one."""
        self._note_trouble(None)
        self._metrics.called("unfit" if error else "billed")
        self._metrics.cost_usd.inc(float(completion.usage.cost_usd))
        await self._settle(
            ledger,
            "billed" if is_sure else "uncertain",
            paid_for=completion,
            error=error if is_sure else "answered after its claim was lost",
        )

    async def _settle(
        self,
        ledger: Ledger,
        outcome: Outcome,
        *,
        paid_for: Completion | None = None,
        error: str | None = None,
    ) -> None:
        """How a call ended is known to nobody else: it is held until it is on record."""
        await self._holding.until_written(
            lambda: ledger.settle(outcome, paid_for=paid_for, error=error)
        )


def _story(error: Exception) -> str:
    return (str(error) or repr(error))[:_STORY_MAX_CHARACTERS]
