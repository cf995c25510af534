"""A running service's look at what it stands on: its streams, its consumers, its buckets.

Changes nothing: `provision` repairs. What is wrong is told once when it changes, not at each look.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime
from typing import Final

import structlog
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from services.kernel import topology
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.provisioning.pausing import consumer_state, until_words
from services.kernel.provisioning.provision import provision
from services.kernel.settings import NatsSettings
from services.kernel.topology import ServiceName

_WRITES: Final[dict[ServiceName, topology.Stream]] = {
    "ingest": topology.TERMS,
    "stage1": topology.ANALYSES,
    "stage2": topology.CARDS,
    "exporter": topology.BATCHES,
}
_FEEDS_LANES: Final = ("ingest", "stage1")
_ASKS_A_MODEL: Final = ("stage1", "stage2")
_UNTIL_REPAIRED_S: Final = 3.0
"""Between two looks at most while something is wrong: the repair should not go unnoticed."""
_LEAST_S: Final = 1.0
"""Between two looks, however often a fetch fails: a look is some ten requests."""


def used_by(service: ServiceName) -> frozenset[str]:
    """The names of the streams, buckets and consumers that a service can't do without."""
    consumers = topology.consumers_of(service)
    streams = {
        *(consumer.stream for consumer in consumers),
        _WRITES[service].name,
        topology.DEAD_LETTERS.name,
    }
    if service in _FEEDS_LANES:
        streams.add(topology.LANES.name)
    buckets = {topology.ATTEMPTS}
    if service in _ASKS_A_MODEL:
        buckets |= {topology.COMPLETIONS, topology.CLAIMS, topology.FLEET}
    durables = {consumer.durable for consumer in consumers}
    return frozenset({*durables, *streams, *(f"KV_{bucket.name}" for bucket in buckets)})


class Watch:
    """Looks every `watch_interval_s`, and soon after `look_now`."""

    def __init__(self, service: ServiceName, settings: NatsSettings) -> None:
        self._service = service
        self._settings = settings
        self._names = used_by(service)
        self._wanted = asyncio.Event()
        self._told: list[str] = []
        self._paused_until: datetime | None = None
        self._reasons: dict[str, str | None] = {}
        self._log = structlog.get_logger()

    def reasons(self) -> dict[str, str | None]:
        """For /readyz: what keeps the service from its work, by name. A pause does not count."""
        return dict(self._reasons)

    def look_now(self) -> None:
        """A fetch failed: what it fetched from may be gone."""
        self._wanted.set()

    async def run(self, js: JetStreamContext) -> None:
        """Looks for ever."""
        while True:
            try:
                await self._look(js)
            except NATS_FAULTS as error:
                self._reasons = {"streams": f"can't be asked: {error!r}"}
                self.look_now()
            await asyncio.sleep(_LEAST_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s()):
                    await self._wanted.wait()
            self._wanted.clear()

    def _pause_s(self) -> float:
        interval_s = self._settings.watch_interval_s
        if self._reasons:
            interval_s = min(interval_s, _UNTIL_REPAIRED_S)
        return max(0.0, interval_s - _LEAST_S)

    async def _look(self, js: JetStreamContext) -> None:
        drifts = await provision(js, self._settings, check_only=True, only=self._names)
        self._reasons = {
            f"{drift.kind} {drift.name}": f"{drift}; run `cardflow provision`"
            for drift in drifts
            if drift.is_serious
        }
        told = list(map(str, drifts))
        if told != self._told:
            if drifts:
                self._log.warning("drift.noticed", drift=told, hint="run `cardflow provision`")
            else:
                self._log.info("drift.ended")
            self._told = told
        await self._look_for_pause(js)

    async def _look_for_pause(self, js: JetStreamContext) -> None:
        try:
            until = (await consumer_state(js, self._service)).paused_until
        except NotFoundError:
            return
        if until is not None and until != self._paused_until:
            self._log.warning(
                "service.paused",
                until=until_words(until),
                hint=f"cardflow resume {self._service}",
            )
        elif until is None and self._paused_until is not None:
            self._log.info("service.resumed")
        self._paused_until = until
