"""One process of one stage: real delivery, asker and ledger on a link of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from model.consumer import Consumer, Handed
from model.network import Link
from model.provider import FIT_USD
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.kv import KeyValue
from unit.asking_fakes import access
from unit.pace_fakes import MemoryBucket
from unit.route_fakes import route_on, routes_of

from services.kernel import topology
from services.kernel.circumstances import Circumstances
from services.kernel.fleet.money.purses import Bounds, Purses
from services.kernel.fleet.money.spending import Account
from services.kernel.holding import Holding
from services.kernel.llm.asker import Asker
from services.kernel.llm.cache import BucketCache
from services.kernel.llm.calling import Caller
from services.kernel.llm.claims import BucketClaims
from services.kernel.llm.fleet_budget import FleetBudget
from services.kernel.llm.prices import Prices, WorstCase
from services.kernel.llm.prompt import Inquiry
from services.kernel.metrics import Metrics
from services.kernel.model_settings import StageSettings
from services.kernel.record import Record
from services.kernel.settings import NatsSettings
from services.kernel.stream.attempt_store import AttemptStore
from services.kernel.stream.checkpoint import Checkpoint
from services.kernel.stream.delivery import Delivery, Handler
from services.kernel.stream.endings import Endings
from services.kernel.stream.in_hand import InHand
from services.kernel.stream.lanes import Lanes
from services.kernel.stream.outgoing import Publisher
from services.kernel.stream.retry import RetryPolicy
from services.stage1.analyses import AnalysesOnStream
from services.stage1.handler import AnalyzeTerms
from services.stage2.handler import WriteCards

if TYPE_CHECKING:
    from model.world import World

POLICY = RetryPolicy(max_attempts=3, base_s=1, cap_s=30)
NATS = NatsSettings(ack_wait_s=20, publish_timeout_s=5)
_WORKERS = 2


class FixedWorstCase(WorstCase):
    """No call costs more than a fit one."""

    def __init__(self) -> None:
        super().__init__(Prices({}), ())

    def __call__(self, inquiry: Inquiry) -> Decimal:
        return FIT_USD


WORST_CASE = FixedWorstCase()
_ELECTION_S = 15.0
_GRACE_S = 25.0
_PULL_AGAIN_S = 2.0

Receive = Callable[[Handed], None]


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline: what it reads, what it writes, what it does."""

    service: topology.ServiceName
    stream: topology.Stream
    next_stream: topology.Stream
    next_subject: Callable[[str, str], str]
    handler: Callable[[Asker, JetStreamContext], Handler]


def _analyze_terms(asker: Asker, js: JetStreamContext) -> Handler:
    return AnalyzeTerms(asker, AnalysesOnStream(js))


def _write_cards(asker: Asker, _js: JetStreamContext) -> Handler:
    return WriteCards(asker)


STAGES = (
    Stage("stage1", topology.TERMS, topology.ANALYSES, topology.analyzed_subject, _analyze_terms),
    Stage("stage2", topology.ANALYSES, topology.CARDS, topology.finished_subject, _write_cards),
)
# They count for ever, and nobody here looks: one for all replicas of all worlds is enough.
_METRICS = {stage.service: Metrics(stage.service) for stage in STAGES}


class Replica:
    """From its start to its death. It shares nothing with others but broker and provider."""

    def __init__(self, world: World, stage: Stage, name: str) -> None:
        self.stage = stage
        self.name = name
        self._world = world
        self._loop = world.loop
        reads = topology.consumers_of(stage.service)
        consumers = [world.consumers[each.durable] for each in reads]
        self._pulls = [(consumer, self._receiving(consumer)) for consumer in consumers]
        self.link = Link(world.broker, world.network, on_death=self.die, note=world.note)
        self.cancelled = set(world.cancelled)
        self._circumstances = Circumstances(cancelled=self.cancelled)
        self._in_hand = InHand(_METRICS[stage.service], ack_wait_s=NATS.ack_wait_s)
        self._deliver = self._delivery(_METRICS[stage.service])
        self._is_stopping = False
        self._paying = self._loop.create_task(self._purses.run())
        self._paying.add_done_callback(self._on_ended)
        self._handling: set[asyncio.Task[None]] = set()
        self._keeping_alive = self._loop.create_task(self._in_hand.keep_alive())
        self._note("starts")
        for consumer, receive in self._pulls:
            for _ in range(_WORKERS):
                self._pull(consumer, receive)

    def die(self) -> None:
        """At once: nothing of it has an effect from now on."""
        if not self.link.is_dead:
            self._note("dies")
            self._world.deaths += 1
            self._end()

    async def stop(self) -> None:
        """Takes nothing more and ends what it works on; killed when that takes too long."""
        self._note("stops")
        self._is_stopping = True
        self._circumstances.is_stopping = True
        for consumer, receive in self._pulls:
            consumer.withdraw(receive)
        if self._handling:
            await asyncio.wait(self._handling, timeout=_GRACE_S)
        if self._handling:
            self.die()
        else:
            await self._in_hand.hand_back()
            self._paying.cancel()
            await self._purses.close()
            self._end()

    def _end(self) -> None:
        self.link.is_dead = True
        self._world.restart_soon(self.stage.service)
        for task in (self._keeping_alive, self._paying, *self._handling):
            task.cancel()

    def _pull(self, consumer: Consumer, receive: Receive) -> None:
        if not self.link.is_dead and not self._is_stopping:
            consumer.pull(receive)

    def _receiving(self, consumer: Consumer) -> Receive:
        def receive(handed: Handed) -> None:
            self._receive(handed, lambda: self._pull(consumer, receive))

        return receive

    def _receive(self, handed: Handed, pull_again: Callable[[], None]) -> None:
        """What comes to a dead replica, or gets lost, waits out its ack_wait."""
        if self.link.is_dead:
            return
        if self._world.network.loses_a_message():
            self._loop.call_later(_PULL_AGAIN_S, pull_again)
            return
        message = Msg(
            self.link,  # type: ignore[arg-type]
            subject=handed.stored.subject,
            reply=handed.reply,
            data=handed.stored.data,
            headers=dict(handed.stored.headers) or None,
        )
        self._note(f"gets {message.subject}, delivery {message.metadata.num_delivered}")
        self._in_hand.fetched([message])
        self._handle(self._deliver(message), pull_again)

    def _handle(self, work: Coroutine[Any, Any, None], pull_again: Callable[[], None]) -> None:
        task = self._loop.create_task(work)
        self._handling.add(task)
        task.add_done_callback(lambda task: self._on_handled(task, pull_again))

    def _on_handled(self, task: asyncio.Task[None], pull_again: Callable[[], None]) -> None:
        self._handling.discard(task)
        self._on_ended(task)
        pull_again()

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._world.crashes.append(f"{self.name} raised {error!r}")

    def _note(self, event: str) -> None:
        self._world.note(f"{self.name} {event}")

    def _delivery(self, metrics: Metrics) -> Delivery:
        js = JetStreamContext(self.link, timeout=NATS.publish_timeout_s)  # type: ignore[arg-type]
        checkpoint = Checkpoint(js, self.stage.next_stream.name, self.stage.next_subject)
        holding = Holding()
        publisher = Publisher(js, timeout_s=NATS.publish_timeout_s, election_s=_ELECTION_S)
        return Delivery(
            self.stage.service,
            self.stage.handler(self._asker(js, metrics, holding), js),
            publisher=publisher,
            attempts=AttemptStore(_bucket(js, topology.ATTEMPTS), self.stage.service),
            endings=Endings(js, self.stage.service, checkpoint),
            lanes=Lanes(js, publisher, self.stage.service),
            policy=POLICY,
            in_hand=self._in_hand,
            holding=holding,
            metrics=metrics,
            circumstances=self._circumstances,
            jitter=self._world.random.random,
        )

    def _asker(self, js: JetStreamContext, metrics: Metrics, holding: Holding) -> Asker:
        cache = BucketCache(_bucket(js, topology.COMPLETIONS))
        line = self._world.provider.line(self.link, self.name)
        route = route_on(MemoryBucket(), self._loop.time, access(), line)
        routes = routes_of([route], self._loop.time, asyncio.sleep)
        claims = BucketClaims(_bucket(js, topology.CLAIMS), ttl_s=NATS.ack_wait_s, holder=self.name)
        self._purses = Purses(
            lambda key: Record(_bucket(js, topology.FLEET), key, Account(), writes_max=50),
            lambda: self._world.limits,
            Bounds(),
            stage=self.stage.service,
            name=self.name,
            concurrency=_WORKERS,
            now=self._loop.time,
            metrics=metrics,
            circumstances=self._circumstances,
        )
        budget = FleetBudget(self._purses, WORST_CASE)
        return Asker(
            Caller(routes, budget, cache, metrics, holding),
            access(),
            cache,
            claims,
            StageSettings(),
            metrics,
            clock=self._loop.time,
        )


def _bucket(js: JetStreamContext, bucket: topology.Bucket) -> KeyValue:
    return KeyValue(bucket.name, f"KV_{bucket.name}", f"$KV.{bucket.name}.", js, direct=True)
