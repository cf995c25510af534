"""Pausing a service on the server: its consumers hand out nothing more, on all replicas at once.

A pause outlives restarts of the services and of the server. Work in hand is finished. Times are
reckoned by the server's clock, since the server ends the pause.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from services.kernel import topology
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.topology import ServiceName

UNTIL_RESUMED: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""The server knows no pause without an end; a later date than some 250 years it can't reckon."""
_WAKING: Final = timedelta(seconds=0.2)
"""A pause that ends wakes the pulls that wait; one that is lifted leaves them asleep."""

Paused = Mapping[ServiceName, datetime]
"""The services that are paused, each with the end of its pause."""


@dataclass(frozen=True)
class ConsumerState:
    """The consumers of a service at one moment; `paused_until` of None: they hand out messages.

    `waiting`: not handed out yet. `in_hand`: handed out and not answered, or to be handed out
    again. Both count what waits in the lanes, too. `floor`: everything up to this place of the
    stream that the service reads is answered, or left to a lane.
    """

    now: datetime
    paused_until: datetime | None
    waiting: int
    in_hand: int
    floor: int
    ack_wait_s: float

    @property
    def open(self) -> int:
        """Messages that are not answered."""
        return self.waiting + self.in_hand


async def consumer_state(js: JetStreamContext, service: ServiceName) -> ConsumerState:
    """Raises NotFoundError when a consumer or its stream is missing.

    The main consumer is asked first: what it leaves to a lane is then counted there, if not here.
    """
    states = [await _state_of(js, consumer) for consumer in topology.consumers_of(service)]
    return replace(
        states[0],
        now=states[-1].now,
        paused_until=max((s.paused_until for s in states if s.paused_until), default=None),
        waiting=sum(state.waiting for state in states),
        in_hand=sum(state.in_hand for state in states),
    )


async def _state_of(js: JetStreamContext, consumer: topology.Consumer) -> ConsumerState:
    # Asked for by hand: the client leaves out the server's time.
    subject = f"CONSUMER.INFO.{consumer.stream}.{consumer.durable}"
    info: dict[str, Any] = await js._api_request(f"{js._prefix}.{subject}")  # noqa: SLF001
    config = info["config"]
    now = datetime.fromisoformat(info["ts"]) if "ts" in info else datetime.now(UTC)
    until = datetime.fromisoformat(config["pause_until"]) if info.get("paused") else None
    if until is not None and until <= now + _WAKING:
        until = None  # It is being resumed.
    return ConsumerState(
        now=now,
        paused_until=until,
        waiting=info.get("num_pending", 0),
        in_hand=info.get("num_ack_pending", 0),
        floor=info.get("ack_floor", {}).get("stream_seq", 0),
        ack_wait_s=config.get("ack_wait", 0) / 1e9,
    )


async def pause(
    js: JetStreamContext, service: ServiceName, *, lasting: timedelta | None = None
) -> datetime:
    """Pauses until the time that it returns: after `lasting`, or until it is resumed.

    Pausing again moves the end. Raises NotFoundError when the consumer is missing.
    """
    until = UNTIL_RESUMED
    if lasting is not None:
        until = min(until, (await consumer_state(js, service)).now + lasting)
    await _pause_until(js, service, until)
    return until


async def pause_at_least(js: JetStreamContext, service: ServiceName, until: float) -> None:
    """Pauses until that time (seconds since the epoch); one that lasts longer stays as it is.

    For a service that pauses itself: a pause that can't be made is none that is needed.
    """
    end = datetime.fromtimestamp(until, UTC)
    try:
        paused_until = (await consumer_state(js, service)).paused_until
        if paused_until is None or paused_until < end:
            await _pause_until(js, service, end)
    except NATS_FAULTS as error:
        structlog.get_logger().warning("pause.failed", error=repr(error))


async def resume(js: JetStreamContext, service: ServiceName) -> bool:
    """Ends a pause; False when there was none. The service goes on within a second."""
    state = await consumer_state(js, service)
    if state.paused_until is None:
        return False
    await _pause_until(js, service, state.now + _WAKING)
    return True


async def paused_services(js: JetStreamContext) -> dict[ServiceName, datetime]:
    """Which services are paused, and until when. A consumer that is missing is not paused."""
    paused: dict[ServiceName, datetime] = {}
    for service in topology.SERVICES:
        for consumer in topology.consumers_of(service):
            with suppress(NotFoundError):
                until = (await _state_of(js, consumer)).paused_until
                if until is not None:
                    paused[service] = max(until, paused.get(service, until))
    return paused


def is_open_ended(until: datetime) -> bool:
    return until >= UNTIL_RESUMED


def until_words(until: datetime) -> str:
    """`until resumed`, or `until 2026-05-04 12:00:00 UTC`."""
    if is_open_ended(until):
        return "until resumed"
    return f"until {until.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


async def _pause_until(js: JetStreamContext, service: ServiceName, until: datetime) -> None:
    end = until.astimezone(UTC).isoformat()
    for consumer in topology.consumers_of(service):
        await js.pause_consumer(consumer.stream, consumer.durable, end)
