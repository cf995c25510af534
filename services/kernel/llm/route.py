"""One model at one provider: a call there, and what is learned from how it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from services.kernel.contracts.term import Priority
from services.kernel.errors import (
    CallRefused,
    PermanentError,
    ProviderBlocked,
    ReplyRejected,
    Throttled,
    TransientError,
    Unavailable,
    UncertainCall,
)
from services.kernel.fleet.health.health import Health
from services.kernel.fleet.pace.pace import Pace, PaceTurn
from services.kernel.llm.prompt import CompletionRequest, Inquiry
from services.kernel.llm.provider import Completion, Provider, UnfitCompletion
from services.kernel.llm.tokens import TokenEstimate
from services.kernel.metrics import Metrics
from services.kernel.provider_access import ProviderAccess

_REASON_MAX_CHARACTERS: Final = 300
"""Of an error in the record that all replicas read."""


@dataclass(frozen=True)
class Route:
    """`name` is one of few, for metrics. `now` is the clock of the fleet.

    `stage_pace`: the limits of the stage, where they hold for this route, too. `pace`: those of the
    route itself, `requests_per_minute` as set or, for 0, as learned; where the stage has a limit of
    requests, nothing is learned.
    """

    name: str
    access: ProviderAccess
    provider: Provider
    health: Health
    pace: Pace
    stage_pace: Pace | None
    requests_per_minute: float
    metrics: Metrics
    now: Callable[[], float]
    note_trouble: Callable[[str | None], None]
    estimate: TokenEstimate = field(default_factory=TokenEstimate)

    @asynccontextmanager
    async def turn(self, inquiry: Inquiry, priority: Priority) -> AsyncIterator[RouteTurn]:
        """Waits for the limits; health is for the caller to look at, before and after."""
        tokens = self.estimate.of(len(inquiry.request(self.access).body), inquiry.max_tokens)
        async with AsyncExitStack() as held:
            paced = [
                await held.enter_async_context(pace.turn(tokens, priority)) for pace in self.paces
            ]
            yield RouteTurn(self, paced, inquiry.max_tokens, self.health.state() != "closed")

    def tell_metrics(self) -> None:
        learned = self.health.limit() if self.learns else 0.0
        self.metrics.route_seen(self.name, self.health.state(), learned)

    @property
    def learns(self) -> bool:
        """Nobody said what its limit of requests is."""
        stage = self.stage_pace
        is_set = self.requests_per_minute or (stage and stage.limits.requests_per_minute)
        return not is_set

    @property
    def paces(self) -> list[Pace]:
        own = [self.pace] if self.learns or self.requests_per_minute else []
        return [self.stage_pace, *own] if self.stage_pace else own


@dataclass(frozen=True)
class RouteTurn:
    """One turn on one route. Implements `kernel.llm.routes.Turn`."""

    _route: Route
    _paced: Sequence[PaceTurn]
    _max_tokens: int
    _is_probe: bool

    @property
    def access(self) -> ProviderAccess:
        return self._route.access

    async def complete(self, request: CompletionRequest) -> Completion:
        route = self._route
        for paced in self._paced:
            await paced.in_time()
        began_at = route.now()
        if route.learns:
            route.health.asked(route.pace.granted)
        route.metrics.route_called(route.name)
        try:
            completion = await self._send(request)
        except Throttled as error:
            self._note_throttled(error, began_at)
            raise
        except TransientError as error:
            self._note_failed(error, began_at)
            if self._is_probe and not isinstance(error, UncertainCall):
                raise Throttled(str(error), retry_after_s=0.0) from error  # No term's failure.
            raise
        except CallRefused as error:
            await self._note_refused(error, request, began_at)
            raise
        except (ReplyRejected, PermanentError) as error:
            paid_for = error.completion if isinstance(error, UnfitCompletion) else None
            self._note_answered(paid_for, request, began_at)
            raise
        self._note_answered(completion, request, began_at)
        return completion

    async def _send(self, request: CompletionRequest) -> Completion:
        try:
            return await self._route.provider.complete(request)
        finally:
            for paced in self._paced:
                paced.over()

    def _note_answered(
        self, completion: Completion | None, request: CompletionRequest, began_at: float
    ) -> None:
        route = self._route
        route.health.answered(began_at)
        route.note_trouble(None)
        if completion is None:
            return
        used = route.estimate.learn(completion.usage, len(request.body), self._max_tokens)
        for paced in self._paced:
            paced.used(used)
        if completion.exhausted_for_s is not None:
            route.health.cool_down(completion.exhausted_for_s, "the provider says no call is left")

    def _note_throttled(self, error: Throttled, began_at: float) -> None:
        route = self._route
        match error:
            case ProviderBlocked():
                route.note_trouble(str(error))
                if route.health.blocked(began_at, error.retry_after_s, _reason(error)):
                    self._tell_opened(str(error))
            case Unavailable():
                self._note_failed(error, began_at)
            case _:
                route.note_trouble(None)
                if route.health.cool_down(error.retry_after_s, _reason(error)):
                    route.metrics.route_cooled(route.name)
                    self._log().warning(
                        "provider.throttled",
                        wait_s=round(error.retry_after_s, 3),
                        reason=str(error),
                    )
                if route.learns:
                    route.health.limited(began_at, error.retry_after_s, route.pace.granted)

    def _note_failed(self, error: Exception, began_at: float) -> None:
        self._route.note_trouble(str(error))
        if self._route.health.failed(began_at, _reason(error)):
            self._tell_opened(str(error))

    async def _note_refused(
        self, error: CallRefused, request: CompletionRequest, began_at: float
    ) -> None:
        """Raises Throttled when it is no fault of the question."""
        route = self._route
        route.note_trouble(None)
        was_shut = route.health.shut() is not None
        circuit = await route.health.refused(request.fingerprint, began_at, _reason(error))
        if circuit is not None:
            route.note_trouble(str(error))
            if not was_shut:
                self._tell_opened(str(error))
            raise Throttled(
                f"{error}; several in a row: the prompt is at fault, or the model is gone",
                retry_after_s=0.0,
            ) from error

    def _tell_opened(self, reason: str) -> None:
        route = self._route
        route.metrics.route_opened(route.name)
        circuit = route.health.shut()
        self._log().warning(
            "route.opened",
            reason=reason,
            wait_s=round(circuit.open_until - route.now(), 3) if circuit else 0.0,
        )

    def _log(self) -> structlog.stdlib.BoundLogger:
        log: structlog.stdlib.BoundLogger = structlog.get_logger()
        return log.bind(route=self._route.name, model=self._route.access.model)


def _reason(error: Exception) -> str:
    return str(error)[:_REASON_MAX_CHARACTERS]
