"""Whom a stage asks: a route is one model at one provider. The seam to limits and health.

A call is made in a turn: a turn is given when a route may be asked now, and ends with the call.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final, Protocol

from services.kernel.contracts.term import Priority
from services.kernel.errors import Outage
from services.kernel.llm.prompt import CompletionRequest, Inquiry
from services.kernel.llm.provider import Completion
from services.kernel.llm.route import Route
from services.kernel.provider_access import ProviderAccess

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]

_PATIENCE_S: Final = 5.0
"""A cool-down of the first route that is over sooner is waited for: a fallback is second best."""
_LOOK_S: Final = 0.5
"""Nobody waits longer without looking at the routes again: others may have changed them."""
_LOOK_AGAIN_S: Final = 0.05
_SPREAD_MAX_S: Final = 2.0
_SPREAD_SHARE: Final = 0.25
"""After a cool-down calls begin spread over this share of it, so that the first ones find out
whether it was long enough."""
_WATCH_S: Final = 1.0
_WORTH_A_PAUSE_S: Final = 1.0
_PROBE_S: Final = 60.0
"""Enough to get a permit and an answer. Whoever dies with the probe holds the others up no longer;
two probes at once, after so long, do no harm."""


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


class OrderedRoutes:
    """The first route that may be asked; all of them are known to the whole fleet.

    `chosen` gives the route of a model that a question itself names: no other one answers it.
    `pause_until` stops the stage's consumer until a time by the clock of the fleet, `now`.
    `note_trouble` hears why nobody can be asked.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        chosen: Callable[[str], Awaitable[Route]],
        now: Clock,
        pause_until: Callable[[float], Awaitable[None]],
        note_trouble: Callable[[str | None], None],
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._routes = routes
        self._chosen = chosen
        self._now = now
        self._pause_until = pause_until
        self._note_trouble = note_trouble
        self._sleep = sleep
        self._jitter = jitter
        self._paused_until = 0.0

    @asynccontextmanager
    async def turn(self, inquiry: Inquiry, priority: Priority) -> AsyncIterator[Turn]:
        routes = await self._routes_for(inquiry)
        probe = secrets.token_hex(4)
        while True:
            route = await self._usable(routes, probe)
            try:
                async with route.turn(inquiry, priority) as turn:
                    if not route.health.admits(probe):
                        continue  # It was closed while this call waited for its permit.
                    yield turn
                    return
            finally:
                route.health.release_probe(probe)

    async def watch(self) -> None:
        """Tells metrics and /readyz once a second how the routes are, for ever.

        A replica that has nothing to ask would not notice otherwise.
        """
        was_shut = False
        while True:
            shut = [circuit for route in self._routes if (circuit := route.health.shut())]
            is_shut = len(shut) == len(self._routes)
            if is_shut:
                self._note_trouble(shut[0].reason)
            elif was_shut:
                self._note_trouble(None)
            was_shut = is_shut
            for route in self._routes:
                route.tell_metrics()
            await asyncio.sleep(_WATCH_S)

    async def _routes_for(self, inquiry: Inquiry) -> Sequence[Route]:
        model = inquiry.prompt.model
        if model is None or model == inquiry.first.model:
            return self._routes
        return [await self._chosen(model)]

    async def _usable(self, routes: Sequence[Route], probe: str) -> Route:
        """The first that may be asked, waited for; of a half-open one `probe` is the probe."""
        share = self._jitter()
        while True:
            opening = [self._opens_at(route, share) for route in routes]
            for route, opens_at in zip(routes, opening, strict=True):
                if opens_at <= self._now() and await self._may_ask(route, probe):
                    return route
                if self._is_soon_open(route, opens_at):
                    break
            await self._wait(routes, opening)

    def _opens_at(self, route: Route, share: float) -> float:
        """When one call of many may ask it: after a cool-down, at its share of the spread."""
        view = route.health.view
        length_s = view.closed_until - view.cooled_at
        spread_s = min(_SPREAD_SHARE * length_s, _SPREAD_MAX_S)
        return max(view.closed_until + share * spread_s, route.health.opens_at())

    async def _may_ask(self, route: Route, probe: str) -> bool:
        with suppress(Outage):  # Nobody can tell who probes.
            return await route.health.claim(probe, lasting_s=_PROBE_S)
        return False

    def _is_soon_open(self, route: Route, opens_at: float) -> bool:
        return route.health.state() == "closed" and 0 < opens_at - self._now() <= _PATIENCE_S

    async def _wait(self, routes: Sequence[Route], opening: Sequence[float]) -> None:
        shut = [circuit for route in routes if (circuit := route.health.shut())]
        if len(shut) == len(routes):
            first = min(shut, key=lambda circuit: circuit.open_until)
            self._note_trouble(first.reason)
            await self._pause(first.open_until)
        wait_s = min(opening) - self._now()
        await self._sleep(min(max(wait_s, _LOOK_AGAIN_S), _LOOK_S))

    async def _pause(self, until: float) -> None:
        """Once for each opening, and only for one that is worth it."""
        if until - self._now() >= _WORTH_A_PAUSE_S and until != self._paused_until:
            self._paused_until = until
            await self._pause_until(until)
