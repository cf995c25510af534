"""The deliveries that this process holds: kept alive while work runs, handed back at a stop.

One loop serves all of them; a task a message would cost more than many messages do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog
from nats.aio.msg import Msg

from services.kernel.metrics import Metrics
from services.kernel.nats_faults import NATS_FAULTS


class InHand:
    """Messages fetched (`waiting`) and being worked on (`working`), by object.

    Not by reply subject: a consumer that is made anew gives the same ones again.
    """

    def __init__(self, metrics: Metrics, *, ack_wait_s: float) -> None:
        self._metrics = metrics
        self._interval_s = ack_wait_s / 3
        self._waiting: dict[int, Msg] = {}
        self._working: dict[int, Msg] = {}

    def fetched(self, messages: list[Msg]) -> None:
        """The client fetched these; their work has not begun."""
        self._waiting.update((id(message), message) for message in messages)

    @contextmanager
    def work_on(self, message: Msg) -> Iterator[None]:
        """Keeps the server from handing the message to another replica meanwhile."""
        self._waiting.pop(id(message), None)
        self._working[id(message)] = message
        self._metrics.received.inc()
        self._metrics.in_progress.inc()
        try:
            with self._metrics.handling.time():
                yield
        finally:
            del self._working[id(message)]
            self._metrics.in_progress.dec()

    async def keep_alive(self) -> None:
        """Tells the server every third of ack_wait that we still hold our messages. Runs for ever.

        What waits for a worker is held too, so its clock must not run out either.
        """
        while True:
            await asyncio.sleep(self._interval_s)
            for message in [*self._working.values(), *self._waiting.values()]:
                # Answered meanwhile, or no connection: the server's clock decides then.
                with suppress(*NATS_FAULTS):
                    await message.in_progress()

    async def hand_back(self) -> None:
        """Naks what was fetched and never begun, so that others get it at once."""
        waiting, self._waiting = list(self._waiting.values()), {}
        for message in waiting:
            with suppress(*NATS_FAULTS):
                await message.nak()
        if waiting:
            structlog.get_logger().info("messages.handed_back", count=len(waiting))
