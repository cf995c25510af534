"""Asking a model for one thing: cache → claim → rate limit → ledger → call → cache → ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Generic, Protocol, TypeVar

import structlog

from services.kernel.contracts.attempt import AttemptHistory, Outcome
from services.kernel.contracts.provenance import StageProvenance
from services.kernel.errors import (
    Outage,
    PipelineError,
    ProviderBlocked,
    ReplyRejected,
    Throttled,
    TransientError,
    UncertainCall,
)
from services.kernel.llm.cache import CompletionCache
from services.kernel.llm.claims import Claims
from services.kernel.llm.prompt import CompletionRequest, Prompt, completion_request
from services.kernel.llm.provider import Completion, Provider, UnfitCompletion
from services.kernel.llm.rate_limit import RateLimit, Sleep
from services.kernel.metrics import Metrics
from services.kernel.settings import ProviderAccess, StageSettings

ReplyT = TypeVar("ReplyT")

_FIRST_LOOK_S = 0.05
_LONGEST_LOOK_S = 1.0
"""Between two looks for the answer that somebody else has asked for."""

_STORY_MAX_CHARACTERS = 500
"""Of an error in the ledger: its records are small, and an error can quote a whole reply."""


class Ledger(Protocol):
    """Where every call is recorded: before it is sent, and how it ended."""

    @property
    def history(self) -> AttemptHistory: ...

    @property
    def used(self) -> int: ...

    async def begin(self, fingerprint: str) -> None: ...

    async def settle(
        self,
        outcome: Outcome,
        *,
        cost_usd: Decimal = ...,
        generation_id: str | None = ...,
        model: str | None = ...,
        error: str | None = ...,
    ) -> None: ...

    async def recover(self, fingerprint: str, completion: Completion) -> bool:
        """Settles a call whose process died after its answer was put into the cache."""
        ...


@dataclass(frozen=True)
class Answer(Generic[ReplyT]):
    """What the model said, and how it came about."""

    reply: ReplyT
    provenance: StageProvenance


class Asker:
    """Asks one provider on behalf of one stage.

    A cache hit takes no permit and no money. Being throttled uses up no attempt: the term waits in
    hand until the provider lets us go on. `note_trouble` hears why the provider does not serve
    us, and None when it does.
    """

    def __init__(
        self,
        provider: Provider,
        access: ProviderAccess,
        cache: CompletionCache,
        claims: Claims,
        rate_limit: RateLimit,
        stage: StageSettings,
        metrics: Metrics,
        *,
        sleep: Sleep = asyncio.sleep,
        note_trouble: Callable[[str | None], None] = lambda _reason: None,
    ) -> None:
        self._provider = provider
        self._access = access
        self._cache = cache
        self._claims = claims
        self._rate_limit = rate_limit
        self._stage = stage
        self._metrics = metrics
        self._note_trouble = note_trouble
        self._sleep = sleep
        self._log = structlog.get_logger()

    async def ask(
        self, prompt: Prompt, parse: Callable[[Completion], ReplyT], ledger: Ledger
    ) -> Answer[ReplyT]:
        """The parsed reply. `parse` raises ReplyRejected for an unfit one."""
        started_at = datetime.now(UTC)
        request = completion_request(
            prompt,
            self._access,
            max_tokens=self._stage.max_tokens,
            temperature=self._stage.temperature,
        )
        completion, reply, cached = await self._completed(request, parse, ledger)
        history = ledger.history
        provenance = StageProvenance(
            model=completion.model,
            provider=completion.provider,
            fingerprint=request.fingerprint,
            prompt_version=prompt.version,
            generation_id=completion.generation_id,
            cached=cached,
            attempts=ledger.used,
            calls=history.calls,
            usage=completion.usage,
            cost_usd=history.cost_usd,
            started_at=started_at,
            finished_at=datetime.now(UTC),
        )
        return Answer(reply, provenance)

    async def _completed(
        self,
        request: CompletionRequest,
        parse: Callable[[Completion], ReplyT],
        ledger: Ledger,
    ) -> tuple[Completion, ReplyT, bool]:
        """The completion, its reply, and whether it was in the cache.

        While somebody else is asking for the same, theirs will be the answer, or their failure
        our turn.
        """
        hit = await self._from_cache(request, parse)
        self._metrics.cache_asked(hit=hit is not None)
        delay_s = _FIRST_LOOK_S
        while hit is None:
            async with self._claims.claim(request.fingerprint) as is_ours:
                if is_ours:
                    return (*await self._call(request, parse, ledger), False)
            await self._sleep(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_LOOK_S)
            hit = await self._from_cache(request, parse)
        completion, reply = hit
        return completion, reply, not await ledger.recover(request.fingerprint, completion)

    async def _from_cache(
        self, request: CompletionRequest, parse: Callable[[Completion], ReplyT]
    ) -> tuple[Completion, ReplyT] | None:
        completion = await self._cache.get(request.fingerprint)
        hit = None
        try:
            if completion is not None:
                hit = completion, parse(completion)
        except ReplyRejected as error:
            # The checks have become stricter since it was put in.
            self._log.warning("cache.unfit", fingerprint=request.fingerprint, reason=error.reason)
        return hit

    async def _call(
        self,
        request: CompletionRequest,
        parse: Callable[[Completion], ReplyT],
        ledger: Ledger,
    ) -> tuple[Completion, ReplyT]:
        while True:
            await self._rate_limit.permit()
            await ledger.begin(request.fingerprint)
            try:
                return await self._call_once(request, parse, ledger)
            except Throttled as error:
                self._metrics.called("throttled")
                self._note_trouble(str(error) if isinstance(error, ProviderBlocked) else None)
                await ledger.settle("throttled", error=_story(error))
                self._rate_limit.cool_down(error.retry_after_s)
                self._log.warning(
                    "provider.throttled", wait_s=round(error.retry_after_s, 3), reason=str(error)
                )

    async def _call_once(
        self,
        request: CompletionRequest,
        parse: Callable[[Completion], ReplyT],
        ledger: Ledger,
    ) -> tuple[Completion, ReplyT]:
        completion = await self._complete(request, ledger)
        try:
            reply = parse(completion)
        except Exception as error:
            await self._settle_billed(ledger, completion, error=_story(error))
            raise
        # In this order: who dies in between finds the answer in the cache and settles then.
        try:
            await self._cache.put(request.fingerprint, completion)
        except Outage as error:
            # The answer is paid for and in hand: giving it up would pay for it again.
            self._log.warning("cache.unwritten", reason=str(error))
        await self._settle_billed(ledger, completion)
        return completion, reply

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
            await ledger.settle(outcome, error=_story(error))
            raise

    async def _settle_billed(
        self, ledger: Ledger, completion: Completion, *, error: str | None = None
    ) -> None:
        self._note_trouble(None)
        self._metrics.called("unfit" if error else "billed")
        self._metrics.cost_usd.inc(float(completion.usage.cost_usd))
        await ledger.settle(
            "billed",
            cost_usd=completion.usage.cost_usd,
            generation_id=completion.generation_id,
            model=completion.model,
            error=error,
        )


def _story(error: Exception) -> str:
    return (str(error) or repr(error))[:_STORY_MAX_CHARACTERS]
