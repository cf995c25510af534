"""The frame of a service: broker, subscriber, probes, and the order of starting and stopping.

FastStream runs the consumer; what becomes of a message is `kernel.stream.delivery`'s. Building an
app does no I/O and needs no secret: everything is opened when it starts.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from faststream import AckPolicy, FastStream
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from services.kernel import topology
from services.kernel.circumstances import Circumstances
from services.kernel.connected import Connected
from services.kernel.holding import Holding
from services.kernel.logs import configure_logs
from services.kernel.loop_lag import watch_loop
from services.kernel.metrics import Metrics
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.probes import serve_probes
from services.kernel.provisioning.pausing import pause_at_least
from services.kernel.provisioning.provision import consumer_config, provision
from services.kernel.provisioning.watching import Watch
from services.kernel.settings import KernelSettings
from services.kernel.stream.attempt_store import AttemptStore
from services.kernel.stream.cancellations import Cancellations
from services.kernel.stream.checkpoint import Checkpoint
from services.kernel.stream.delivery import Delivery, Handler
from services.kernel.stream.endings import Endings
from services.kernel.stream.fetching import note_fetched
from services.kernel.stream.in_hand import InHand
from services.kernel.stream.incoming import Identity, Incoming, identity_of_subject
from services.kernel.stream.lane_share import LaneShare
from services.kernel.stream.lanes import Lanes
from services.kernel.stream.outgoing import Publisher
from services.kernel.stream.retry import RetryPolicy

_PULL_TIMEOUT_S = 5.0
_PROVISIONING_POLL_S = 1.0
_PING_S = 5
"""A server that leaves a ping unanswered until the next one is taken for gone."""


@dataclass(frozen=True)
class Service:
    """What makes one service different from the others.

    `open_handler` opens what the handler needs and closes it at the end. `concurrency` messages
    of each of its consumers are handled at once. They are fetched `fetch_size` at a time: one where
    handling is long, so that no message waits here while another replica is idle; many where it is
    short.
    `next_checkpoint` gives the stream that the service writes. `spends`: it pays for calls, so
    the terms of a cancelled batch end here.
    `check_settings` raises SettingsError before anything is opened.
    """

    name: topology.ServiceName
    open_handler: Callable[[Connected], AbstractAsyncContextManager[Handler]]
    next_checkpoint: Callable[[JetStreamContext], Checkpoint]
    concurrency: int
    fetch_size: int = 1
    spends: bool = False
    identify: Callable[[Incoming], Identity] = identity_of_subject
    check_settings: Callable[[], object] = lambda: None


class Frame:
    """One running service. `app` is what `cardflow run` and `faststream run` start."""

    def __init__(self, service: Service, settings: KernelSettings) -> None:
        self._service = service
        self._settings = settings
        self._metrics = Metrics(service.name)
        self._in_hand = InHand(self._metrics, ack_wait_s=settings.nats.ack_wait_s)
        self._watch = Watch(service.name, settings.nats)
        self._nc: Client | None = None
        self._deliver: LaneShare | None = None
        self._open = AsyncExitStack()
        self._log = structlog.get_logger()
        self._not_ready: str | None = "starting"
        self._dependencies: dict[str, str | None] = {}
        self._stopping = False
        self._circumstances = Circumstances()
        self.broker = self._build_broker()
        self._subscribe()
        self.app = FastStream(
            self.broker,
            logger=None,
            lifespan=self._lifespan,
            on_startup=[self._open_resources],
            after_startup=[self._started],
            on_shutdown=[self._stop_consuming],
            after_shutdown=[self._close_resources],
        )

    def _build_broker(self) -> NatsBroker:
        nats_settings = self._settings.nats
        return NatsBroker(
            [url.strip() for url in nats_settings.url.split(",")],
            name=f"cardflow-{self._service.name}",
            # Not "faststream": that one comes with a handler, and a line for every message.
            logger=logging.getLogger("cardflow.consumer"),
            apply_types=False,
            decoder=_as_received,
            graceful_timeout=self._settings.grace_s,
            allow_reconnect=True,
            max_reconnect_attempts=-1,  # The default gives up after two minutes, for good.
            reconnect_time_wait=1,
            # The default takes four minutes to notice a server that hangs.
            ping_interval=_PING_S,
            max_outstanding_pings=1,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
        )

    def _subscribe(self) -> None:
        """Each lane has as many workers as the main consumer: none waits for another's."""
        service = self._service
        for consumer in topology.consumers_of(service.name):
            subscriber = self.broker.subscriber(
                stream=JStream(consumer.stream, declare=False),
                durable=consumer.durable,
                config=consumer_config(consumer, self._settings.nats),
                # Never FastStream's own batches: an error while one is collected drops the
                # messages that it holds already, without an answer.
                pull_sub=PullSub(batch_size=service.fetch_size, timeout=_PULL_TIMEOUT_S),
                max_workers=service.concurrency,
                ack_policy=AckPolicy.MANUAL,
                no_reply=True,
            )
            subscriber(self._on_message)

    async def _on_message(self, message: Msg) -> None:
        assert self._deliver is not None  # noqa: S101
        await self._deliver(message)

    @asynccontextmanager
    async def _lifespan(self, **_options: Any) -> AsyncIterator[None]:
        log = self._settings.log
        configure_logs(self._service.name, level=log.level, format=log.format)
        self._service.check_settings()
        async with serve_probes(self._settings.http, self._metrics, self._readiness):
            yield

    async def _open_resources(self) -> None:
        self._not_ready = "connecting to NATS"
        self._nc = nc = await self.broker.connect()
        js = nc.jetstream(timeout=self._settings.nats.publish_timeout_s)
        await self._wait_until_provisioned(js)
        self._not_ready = "opening resources"
        publisher = Publisher(js, timeout_s=self._settings.nats.publish_timeout_s)
        self._dependencies["results"] = None
        holding = Holding(self._note_held)
        cancellations = Cancellations(js)
        if self._service.spends:
            self._circumstances.cancelled = cancellations
            await cancellations.listen(nc)
            self._in_background(cancellations.read_again())
        handler = await self._open.enter_async_context(
            self._service.open_handler(
                Connected(
                    nc,
                    js,
                    self._metrics,
                    holding,
                    self._dependencies,
                    self._circumstances,
                    lambda until: pause_at_least(js, self._service.name, until),
                )
            )
        )
        delivery = Delivery(
            self._service.name,
            handler,
            publisher=publisher,
            attempts=AttemptStore(await js.key_value(topology.ATTEMPTS.name), self._service.name),
            endings=Endings(js, self._service.name, self._service.next_checkpoint(js)),
            lanes=Lanes(js, publisher, self._service.name),
            policy=RetryPolicy.of(self._settings.retry),
            in_hand=self._in_hand,
            holding=holding,
            metrics=self._metrics,
            circumstances=self._circumstances,
            identify=self._service.identify,
        )
        self._deliver = LaneShare(delivery, concurrency=self._service.concurrency)

    async def _wait_until_provisioned(self, js: JetStreamContext) -> None:
        """Never creates anything: a consumer made from a guess would hide the real one."""
        while True:
            try:
                missing = [
                    d
                    for d in await provision(js, self._settings.nats, check_only=True)
                    if d.setting == "exists"
                ]
            except NATS_FAULTS as error:
                self._not_ready = f"NATS can't be asked: {error!r}"
            else:
                if not missing:
                    return
                self._not_ready = f"{missing[0]}; run `cardflow provision`"
            self._log.info("provisioning.awaited", reason=self._not_ready)
            await asyncio.sleep(_PROVISIONING_POLL_S)

    async def _started(self) -> None:
        for subscriber in self.broker.subscribers:
            note_fetched(subscriber, self._in_hand, self._watch.look_now)
        assert self._nc is not None  # noqa: S101
        self._in_background(self._watch.run(self._nc.jetstream()))
        self._in_background(self._in_hand.keep_alive())
        self._in_background(watch_loop(self._metrics))
        self._not_ready = None
        self._log.info("service.started", concurrency=self._service.concurrency)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs it until the service stops."""
        self._open.callback(asyncio.create_task(work).cancel)

    def _note_held(self, reason: str | None) -> None:
        self._dependencies["results"] = reason and f"held until they can be written: {reason}"

    async def _stop_consuming(self) -> None:
        """Stops fetching, lets work in hand finish, gives back what was not begun."""
        self._stopping = True
        self._not_ready = "stopping"
        self._circumstances.is_stopping = True
        if self._deliver is not None:
            await self._deliver.close()
        # All at once: none may fetch while another still waits for its work to finish.
        await asyncio.gather(*(subscriber.stop() for subscriber in self.broker.subscribers))
        await self._in_hand.hand_back()
        await self._open.aclose()

    async def _close_resources(self) -> None:
        self._log.info("service.stopped")

    async def _readiness(self) -> dict[str, str | None]:
        connected = self._nc is not None and self._nc.is_connected
        disconnected = None if connected else "not connected"
        return {
            "nats": disconnected,
            **self._watch.reasons(),
            **self._dependencies,
            self._service.name: self._not_ready,
        }

    async def _on_error(self, error: Exception) -> None:
        # A denied publish shows up here only; to its sender it looks like a timeout.
        self._log.warning("nats.error", error=repr(error))

    async def _on_disconnected(self) -> None:
        if not self._stopping:
            self._log.warning("nats.disconnected", hint="reconnecting until the server is back")

    async def _on_reconnected(self) -> None:
        self._log.info("nats.reconnected")

    async def _on_closed(self) -> None:
        """A closed connection never comes back: end the process, so that it is started anew."""
        if not self._stopping:
            self._log.error("nats.closed", hint="the connection is closed for good; exiting")
            os._exit(70)


async def _as_received(message: NatsMessage) -> Any:
    return message.raw_message


def service_app(service: Service, settings: KernelSettings) -> FastStream:
    """The FastStream app of one service."""
    return Frame(service, settings).app
