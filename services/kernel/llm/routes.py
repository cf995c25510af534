"""Whom a stage asks: a route is one model at one provider. The seam to limits and health.

A call is made in a turn: a turn is given when a route may be asked now, and ends with the call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog

from services.kernel.contracts.term import Priority
from services.kernel.errors import ProviderBlocked, ReplyRejected, Throttled, TransientError
from services.kernel.fleet.pace import Pace, PaceTurn
from services.kernel.llm.prompt import CompletionRequest, Inquiry
from services.kernel.llm.provider import Completion, Provider, UnfitCompletion
from services.kernel.llm.tokens import TokenEstimate
from services.kernel.model_settings import ProviderAccess

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


class Turn(Protocol):
    """The right to make one call now, on one route."""

    @property
    def access(self) -> ProviderAccess:
        """Provider and model of the route."""
        ...

    async def complete(self, request: CompletionRequest) -> Completion:
        """Makes the call and learns from how it ends. Raises what `Provider.complete` raises."""
        ...


class Routes(Protocol):
    """The routes of one stage, in order of preference."""

    def turn(self, inquiry: Inquiry, priority: Priority) -> AbstractAsyncContextManager[Turn]:
        """A turn inside the block; waits for it, while nobody may be asked, for as long as that
        takes. Urgent ones go first."""
        ...


class SingleRoute:
    """One provider and model, at a pace that all replicas of the stage keep together.

    `note_trouble` hears why it does not serve us, and None when it does. When it asks for a pause,
    this process makes one; `clock` gives seconds.
    """

    def __init__(
        self,
        access: ProviderAccess,
        provider: Provider,
        pace: Pace,
        *,
        note_trouble: Callable[[str | None], None] = lambda _reason: None,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.access = access
        self._provider = provider
        self._pace = pace
        self._estimate = TokenEstimate()
        self._note_trouble = note_trouble
        self._clock = clock
        self._sleep = sleep
        self._closed_until = clock()
        self._log = structlog.get_logger()

    @asynccontextmanager
    async def turn(self, inquiry: Inquiry, priority: Priority) -> AsyncIterator[Turn]:
        tokens = self._estimate.of(len(inquiry.request(self.access).body), inquiry.max_tokens)
        while True:
            await self._pause()
            async with self._pace.turn(tokens, priority) as paced:
                if self._clock() < self._closed_until:
                    continue  # Somebody was told to wait while this one waited for its turn.
                yield _SingleTurn(self, paced, inquiry.max_tokens)
                return

    def cool_down(self, wait_s: float) -> None:
        """Nobody in this process calls for `wait_s` seconds from now."""
        self._closed_until = max(self._closed_until, self._clock() + wait_s)

    async def complete(
        self, request: CompletionRequest, paced: PaceTurn, max_tokens: int
    ) -> Completion:
        await paced.in_time()
        try:
            completion = await self._provider.complete(request)
        except Throttled as error:
            self._note_trouble(str(error) if isinstance(error, ProviderBlocked) else None)
            self.cool_down(error.retry_after_s)
            self._log.warning(
                "provider.throttled", wait_s=round(error.retry_after_s, 3), reason=str(error)
            )
            raise
        except TransientError as error:
            self._note_trouble(str(error))
            raise
        except UnfitCompletion as error:
            self._note_trouble(None)
            paced.used(self._estimate.learn(error.completion.usage, len(request.body), max_tokens))
            raise
        except ReplyRejected:
            self._note_trouble(None)
            raise
        self._note_trouble(None)
        paced.used(self._estimate.learn(completion.usage, len(request.body), max_tokens))
        return completion

    async def _pause(self) -> None:
        while (wait_s := self._closed_until - self._clock()) > 0:
            await self._sleep(wait_s)


@dataclass(frozen=True)
class _SingleTurn:
    """One turn on the only route."""

    _route: SingleRoute
    _paced: PaceTurn
    _max_tokens: int

    @property
    def access(self) -> ProviderAccess:
        return self._route.access

    async def complete(self, request: CompletionRequest) -> Completion:
        return await self._route.complete(request, self._paced, self._max_tokens)
