"""Asking a model for one thing: cache → claim → call; see `calling` for what a call takes."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic

import structlog

from services.kernel.contracts.provenance import StageProvenance
from services.kernel.contracts.term import TermAccepted
from services.kernel.errors import ReplyRejected
from services.kernel.llm.cache import CompletionCache
from services.kernel.llm.calling import Caller, Ledger, Parse, ReplyT
from services.kernel.llm.claims import ClaimLost, Claims
from services.kernel.llm.prompt import Inquiry, Prompt
from services.kernel.llm.provider import Completion
from services.kernel.llm.routes import Clock, Sleep
from services.kernel.metrics import Metrics
from services.kernel.model_settings import StageSettings
from services.kernel.provider_access import ProviderAccess

_FIRST_LOOK_S = 0.05
_LONGEST_LOOK_S = 1.0
"""Between two looks for the answer that somebody else has asked for."""

_STALE_LOOK_S = 0.3
"""A claim outlives its success by two thirds of its life, at least 0.6 s: who looked into the cache
no longer ago than this, and then got the claim, has missed no answer."""


@dataclass(frozen=True)
class Answer(Generic[ReplyT]):
    """What the model said, and how it came about."""

    reply: ReplyT
    provenance: StageProvenance


class Asker:
    """Asks on behalf of one stage. A cache hit takes no permit and no money."""

    def __init__(
        self,
        caller: Caller,
        access: ProviderAccess,
        cache: CompletionCache,
        claims: Claims,
        stage: StageSettings,
        metrics: Metrics,
        *,
        fallbacks: tuple[ProviderAccess, ...] = (),
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._caller = caller
        self._access = access
        self._cache = cache
        self._claims = claims
        self._stage = stage
        self._metrics = metrics
        self._fallbacks = fallbacks
        self._clock = clock
        self._sleep = sleep
        self._log = structlog.get_logger()

    async def ask(
        self, prompt: Prompt, parse: Parse[ReplyT], ledger: Ledger, term: TermAccepted
    ) -> Answer[ReplyT]:
        """The parsed reply, on behalf of `term`. `parse` raises ReplyRejected for an unfit one."""
        started_at = datetime.now(UTC)
        inquiry = Inquiry.of(prompt, self._access, self._stage, self._fallbacks)
        completion, reply, cached = await self._completed(inquiry, parse, ledger, term)
        history = ledger.history
        provenance = StageProvenance(
            model=completion.model,
            provider=completion.provider,
            fingerprint=inquiry.fingerprint,
            prompt_version=prompt.version,
            generation_id=completion.generation_id,
            cached=cached,
            rebuilt=completion.rebuilt,
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
        inquiry: Inquiry,
        parse: Parse[ReplyT],
        ledger: Ledger,
        term: TermAccepted,
    ) -> tuple[Completion, ReplyT, bool]:
        """The completion, its reply, and whether it was in the cache.

        While somebody else is asking for the same, theirs will be the answer, or their failure
        our turn.
        """
        looked_at = self._clock()
        hit = await self._from_cache(inquiry, parse)
        self._metrics.cache_asked(hit=hit is not None)
        pause_s = _FIRST_LOOK_S
        while hit is None:
            with suppress(ClaimLost):  # Then it may be theirs after all.
                async with self._claims.claim(inquiry.fingerprint) as claim:
                    is_fresh = self._clock() - looked_at < _STALE_LOOK_S
                    if claim and (is_fresh or not (hit := await self._from_cache(inquiry, parse))):
                        called = await self._caller.call(inquiry, parse, ledger, claim, term)
                        return (*called, False)
            if hit is None:
                await self._sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_LOOK_S)
                looked_at = self._clock()
                hit = await self._from_cache(inquiry, parse)
        completion, reply = hit
        is_saved = not await ledger.recover(completion)
        if is_saved:
            self._metrics.cache_saved_usd.inc(float(completion.usage.cost_usd))
        return completion, reply, is_saved

    async def _from_cache(
        self, inquiry: Inquiry, parse: Parse[ReplyT]
    ) -> tuple[Completion, ReplyT] | None:
        completion = await self._cache.get(inquiry.fingerprint)
        hit = None
        try:
            if completion is not None:
                hit = completion, parse(completion)
        except ReplyRejected as error:
            # The checks have become stricter since it was put in.
            self._log.warning("cache.unfit", fingerprint=inquiry.fingerprint, reason=error.reason)
        return hit
