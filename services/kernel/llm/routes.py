"""Whom a stage asks: a route is one model at one provider. The seam to limits and health.

A call is made in a turn: a turn is given when a route may be asked now, and ends with the call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import structlog

from services.kernel.contracts.term import Priority
from services.kernel.errors import ProviderBlocked, ReplyRejected, Throttled, TransientError
from services.kernel.llm.prompt import CompletionRequest, Inquiry
from services.kernel.llm.provider import Completion, Provider
from services.kernel.llm.rate_limit import RateLimit
from services.kernel.model_settings import ProviderAccess


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
    """One provider and model, with a rate limit of this process alone.

    `note_trouble` hears why it does not serve us, and None when it does.
    """

    def __init__(
        self,
        access: ProviderAccess,
        provider: Provider,
        rate_limit: RateLimit,
        *,
        note_trouble: Callable[[str | None], None] = lambda _reason: None,
    ) -> None:
        self.access = access
        self._provider = provider
        self._rate_limit = rate_limit
        self._note_trouble = note_trouble
        self._log = structlog.get_logger()

    @asynccontextmanager
    async def turn(self, inquiry: Inquiry, priority: Priority) -> AsyncIterator[Turn]:
        await self._rate_limit.permit()
        yield self

    async def complete(self, request: CompletionRequest) -> Completion:
        try:
            completion = await self._provider.complete(request)
        except Throttled as error:
            self._note_trouble(str(error) if isinstance(error, ProviderBlocked) else None)
            self._rate_limit.cool_down(error.retry_after_s)
            self._log.warning(
                "provider.throttled", wait_s=round(error.retry_after_s, 3), reason=str(error)
            )
            raise
        except TransientError as error:
            self._note_trouble(str(error))
            raise
        except ReplyRejected:
            self._note_trouble(None)
            raise
        self._note_trouble(None)
        return completion
