"""Letting the pipeline run empty: ingest is paused, and all that it accepted comes to its end.

    SUBMISSIONS answered up to now → ingest paused → stage1, stage2, exporter have nothing left

Each service publishes before it acknowledges. So, once ingest rests, a stage without an open
message will never have one again when all before it have none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from services.cli.machine.pauses import pauses_as_json
from services.cli.submitting.batch_status import BatchStatus, batch_status, known_batches
from services.kernel import topology
from services.kernel.errors import Outage
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.provisioning.pausing import (
    ConsumerState,
    consumer_state,
    pause,
    paused_services,
)
from services.kernel.topology import SERVICES, ServiceName

_INTERVAL_S: Final = 0.25
_FIGURES_S: Final = 5.0
"""How long the exporter's last figures and deck files may come after the last card."""
_SILENCE_S: Final = 60.0
"""A server that is started again, with its streams to recover, is back by then."""

AFTER_INGEST: Final[tuple[ServiceName, ...]] = ("stage1", "stage2", "exporter")


@dataclass(frozen=True)
class Drained:
    """How far a drain came. `blocked`: paused services, for which it would have waited for ever.

    `open`: messages each service has not answered. `waiting`: submissions that ingest has not
    read; they stay on their stream. `batches`: as they stand at the end.
    """

    blocked: Mapping[ServiceName, datetime]
    open: Mapping[ServiceName, int]
    ingest_paused: bool
    waiting: int
    batches: tuple[BatchStatus, ...]

    @property
    def is_drained(self) -> bool:
        return self.ingest_paused and not any(self.open[service] for service in AFTER_INGEST)

    @property
    def unaccounted(self) -> list[BatchStatus]:
        """Batches with terms in flight that nobody works on; only the audit can say why."""
        return [batch for batch in self.batches if self.is_drained and batch.in_flight]

    def as_json(self) -> dict[str, Any]:
        fields = ("batch", "finished", "dead", "cancelled", "in_flight")
        return {
            "drained": self.is_drained,
            "ingest_paused": self.ingest_paused,
            "blocked": pauses_as_json(self.blocked),
            "open": dict(self.open),
            "submissions_waiting": self.waiting,
            "batches": [{name: getattr(each, name) for name in fields} for each in self.batches],
        }


class Drain:
    """One drain. `on_look` hears the open messages of each service at every look.

    Left alone, ingest stays paused after it, and also when it is broken off.
    """

    def __init__(
        self, js: JetStreamContext, on_look: Callable[[Mapping[ServiceName, int]], None]
    ) -> None:
        self._js = js
        self._on_look = on_look
        self.ingest_paused = False

    async def run(self, *, timeout_s: float | None = None) -> Drained:
        """Ends when all is drained, at once when a later service is paused, or when time is up.

        Raises Outage when the server is silent for a minute, NotFoundError when a stream is
        missing.
        """
        try:
            async with asyncio.timeout(timeout_s):
                blocked = await self._until_ingest_rests()
                if not blocked:
                    blocked = await self._until_empty(*AFTER_INGEST)
                if not blocked:
                    await self._until_told()
        except TimeoutError:
            blocked = {}
        return await self._outcome(blocked)

    async def _until_ingest_rests(self) -> Mapping[ServiceName, datetime]:
        """What is on SUBMISSIONS now is answered, then ingest is paused and has nothing in hand."""
        end = (await self._js.stream_info(topology.SUBMISSIONS.name)).state.last_seq
        while True:
            states, blocked = await self._look()
            ingest = states["ingest"]
            if blocked:
                return blocked
            if ingest.paused_until is not None or ingest.floor >= end or not ingest.open:
                break
            await asyncio.sleep(_INTERVAL_S)
        await pause(self._js, "ingest")
        self.ingest_paused = True
        # What is to be handed out again stays open while ingest is paused: it can't be waited for.
        clock = asyncio.get_running_loop().time
        deadline = clock() + ingest.ack_wait_s
        while clock() < deadline:
            states, blocked = await self._look()
            if blocked or not states["ingest"].in_hand:
                return blocked
            await asyncio.sleep(_INTERVAL_S)
        return {}

    async def _until_empty(self, *services: ServiceName) -> Mapping[ServiceName, datetime]:
        """The first service of the walk first: what it does comes to the next before it is done."""
        for service in services:
            while True:
                states, blocked = await self._look()
                if blocked or not states[service].open:
                    break
                await asyncio.sleep(_INTERVAL_S)
            if blocked:
                return blocked
        return {}

    async def _until_told(self) -> None:
        """Until the exporter has reported the end of each batch, for a few seconds at most."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + _FIGURES_S
        while clock() < deadline:
            batches = await self._batches()
            if all(each.is_final or not each.is_over for each in batches):
                return
            await asyncio.sleep(_INTERVAL_S)

    async def _look(
        self,
    ) -> tuple[dict[ServiceName, ConsumerState], dict[ServiceName, datetime]]:
        """Each consumer, and those that are paused after ingest. Sits out a server's restart."""
        clock = asyncio.get_running_loop().time
        begin = clock()
        while True:
            try:
                states = {service: await consumer_state(self._js, service) for service in SERVICES}
            except NotFoundError:
                raise
            except NATS_FAULTS as error:
                if clock() - begin > _SILENCE_S:
                    raise Outage(f"the server stopped answering ({error!r})") from error
                await asyncio.sleep(_INTERVAL_S)
            else:
                break
        self._on_look({service: state.open for service, state in states.items()})
        blocked = {
            service: states[service].paused_until
            for service in AFTER_INGEST
            if states[service].paused_until is not None
        }
        return states, {name: until for name, until in blocked.items() if until is not None}

    async def _batches(self) -> tuple[BatchStatus, ...]:
        return tuple([await batch_status(self._js, name) for name in await known_batches(self._js)])

    async def _outcome(self, blocked: Mapping[ServiceName, datetime]) -> Drained:
        states, _ = await self._look()
        paused = await paused_services(self._js)
        return Drained(
            blocked=blocked,
            open={service: state.open for service, state in states.items()},
            ingest_paused="ingest" in paused,
            waiting=states["ingest"].open,
            batches=await self._batches(),
        )
