"""The pipeline of the model: real stages, delivery and ledgers on a broker made for the test.

`World` is what a test holds: broker, network, provider and replicas, and what people do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from random import Random

from model.books import Books
from model.broker import Broker
from model.consumer import Consumer
from model.network import Link, Network
from model.provider import PEACEFUL, ModelProvider
from model.replica import NATS, STAGES, Replica
from model.virtual_time import VirtualLoop
from nats.js import JetStreamContext
from nats.js.kv import KeyValue
from unit.term_samples import accepted

from services.cli.letters.letters import Letter
from services.cli.letters.replaying import replay
from services.kernel import topology
from services.kernel.contracts.attempt import AttemptHistory
from services.kernel.contracts.dead_letter import DeadLetter
from services.kernel.contracts.term import Priority
from services.kernel.fleet.money.limits import BudgetLimits, account_key
from services.kernel.fleet.money.spending import Account
from services.kernel.record import Record
from services.kernel.stream.lanes import Lanes, priority_header
from services.kernel.stream.outgoing import Publisher

_HEARD_WITHIN_S = 5.0
_RESTARTED_AFTER_S = 3.0
_REPAIRED_AFTER_S = 15.0
"""Longer than any answer is under way: one of before would pass for one of after."""
_COPIED = 0.7


class World:
    """Everything there is. `journal` tells what happened, for whoever reads a failure."""

    def __init__(self, seed: int) -> None:
        self.loop = VirtualLoop()
        self.random = Random(seed)
        self.journal: list[str] = []
        self.broker = Broker(NATS, self.loop.time)
        self.network = Network(Random(seed + 1), self.loop)
        self.books = Books(self)
        self.provider = ModelProvider(self.books.on_call)
        self.consumers = {
            reads.durable: self._consumer(reads)
            for stage in STAGES
            for reads in topology.consumers_of(stage.service)
        }
        self.broker.on_ack = self._on_ack
        self.replicas: list[Replica] = []
        self.cancelled: set[str] = set()
        self.lost_copies: set[str] = set()
        self.limits = BudgetLimits()
        self.deaths = 0
        self.crashes: list[str] = []
        self.loop.set_exception_handler(lambda _loop, story: self.crashes.append(str(story)))
        self._ledgers: dict[str, tuple[int, AttemptHistory]] = {}
        self._healthy = Link(
            self.broker, Network(Random(0), self.loop), on_death=lambda: None, note=self.note
        )

    def story(self, lines: int) -> str:
        """The end of the journal, and what the ledgers and letters say."""
        told = self.journal[-lines:]
        for key, history in self.ledgers().items():
            told += [f"{key}: {a.outcome} replay {a.replay} {a.error}" for a in history.attempts]
        told += [f"{letter.address}: {letter.record.message}" for letter in self.letters()]
        return "\n".join(told)

    def note(self, event: str) -> None:
        self.journal.append(f"{self.loop.time():10.3f}  {event}")

    def _consumer(self, reads: topology.Consumer) -> Consumer:
        return Consumer(
            self.broker.streams[reads.stream],
            reads,
            ack_wait_s=NATS.ack_wait_s,
            max_ack_pending=100,
            loop=self.loop,
            random=self.random,
        )

    def _on_ack(self, subject: str, payload: bytes) -> None:
        self.consumers[subject.split(".")[3]].on_ack(subject, payload)

    def ledgers(self) -> dict[str, AttemptHistory]:
        """Every record of attempts by its key, as the bucket has it."""
        found = {}
        for key, stored in self.broker.keys(topology.ATTEMPTS).items():
            sequence, history = self._ledgers.get(key, (0, None))
            if history is None or sequence != stored.sequence:
                history = AttemptHistory.model_validate_json(stored.data)
                self._ledgers[key] = stored.sequence, history
            found[key] = history
        return found

    def accept(self, term: str, batch: str, priority: Priority = "normal") -> bool:
        """Publishes a term for stage 1; False when the stream refuses it or has it already.

        An urgent one may lack its copy in the lane: its writer died in between.
        """
        event = accepted(term, batch=batch, priority=priority)
        subject, body = topology.accepted_subject(batch, event.term_id), event.to_bytes()
        headers = priority_header(subject, body)
        reply = self.broker.streams[topology.TERMS.name].publish(subject, body, headers)
        is_new = b"error" not in reply.data
        if priority == "urgent" and self.is_whole and self.random.random() < _COPIED:
            js = JetStreamContext(self._healthy)  # type: ignore[arg-type]
            lanes = Lanes(js, Publisher(js, timeout_s=NATS.publish_timeout_s))
            self.loop.finish(lanes.hurry(subject, body if is_new else None, headers))
        return is_new

    def lose_the_lanes(self) -> None:
        """What they held is gone; some time later they are repaired."""
        self.note("LANES is lost")
        lanes = self.broker.streams[topology.LANES.name]
        for stored in list(lanes.messages.values()):
            self.lost_copies.add(topology.source_of(stored.subject)[0])
            lanes.drop(stored)
        self.loop.call_later(_REPAIRED_AFTER_S, self._repair_the_lanes)

    def _repair_the_lanes(self) -> None:
        """Everything before them is handed out again."""
        self.note("LANES is repaired")
        self.lost_copies.clear()
        for consumer in self.consumers.values():
            consumer.begin_anew()

    def cancel(self, batch: str) -> None:
        """Every replica hears of it a little later."""
        self.note(f"{batch} is cancelled")
        self.cancelled.add(batch)
        for replica in self.living():
            heard_s = self.random.uniform(0.0, _HEARD_WITHIN_S)
            self.loop.call_later(heard_s, replica.cancelled.add, batch)

    def set_budget(self, day_usd: Decimal | None) -> None:
        """Of every day; every replica knows at once."""
        self.note(f"the budget of a day is {day_usd} $")
        self.limits = BudgetLimits(day_usd=day_usd)

    def raise_batch_budget(self, batch: str, more_usd: Decimal) -> None:
        """As the command does, in the batch's account: over what it has, or what it may cost."""
        self._change_batch_budget(
            batch, lambda a: (a.total_usd if a.limit_usd is None else a.limit_usd) + more_usd
        )

    def _change_batch_budget(
        self, batch: str, limit_of: Callable[[Account], Decimal | None]
    ) -> None:
        js = JetStreamContext(self._healthy)  # type: ignore[arg-type]
        bucket = KeyValue("FLEET", "KV_FLEET", "$KV.FLEET.", js, direct=True)
        record = Record(bucket, account_key("batch", batch), Account())
        change = record.change(lambda a: a.model_copy(update={"limit_usd": limit_of(a)}))
        account = self.loop.finish(change)
        self.note(f"the budget of {batch} is {account.limit_usd} $")

    def accounts(self) -> dict[str, Account]:
        """Every account by its key, as the bucket has it."""
        return {
            key: Account.model_validate_json(stored.data)
            for key, stored in self.broker.keys(topology.FLEET).items()
        }

    def letters(self) -> list[Letter]:
        stream = self.broker.streams[topology.DEAD_LETTERS.name]
        return [
            Letter(subject, stored.sequence, DeadLetter.model_validate_json(stored.data))
            for subject, stored in stream.subjects().items()
            if subject.startswith("dead.")
        ]

    def replay(self, letter: Letter) -> None:
        js = JetStreamContext(self._healthy)  # type: ignore[arg-type]
        self.loop.finish(replay(js, letter))

    def start_replica(self, service: str) -> Replica:
        stage = next(stage for stage in STAGES if stage.service == service)
        replica = Replica(self, stage, f"{service}-{len(self.replicas) + 1}")
        self.replicas.append(replica)
        return replica

    def restart_soon(self, service: str) -> None:
        """What looks after the processes starts one when a stage has none left."""
        self.loop.call_later(_RESTARTED_AFTER_S, self._restart, service)

    def _restart(self, service: str) -> None:
        if not self.living(service):
            self.start_replica(service)

    def stop_replica(self, replica: Replica) -> None:
        """As on SIGTERM: time goes on until it has stopped, at most its grace period."""
        with suppress(asyncio.CancelledError):  # It may die of it.
            self.loop.finish(replica.stop())

    def living(self, service: str | None = None) -> list[Replica]:
        return [
            replica
            for replica in self.replicas
            if not replica.link.is_dead and service in (None, replica.stage.service)
        ]

    @property
    def is_quiet(self) -> bool:
        return not self.lost_copies and not any(
            consumer.unanswered for consumer in self.consumers.values()
        )

    @property
    def is_whole(self) -> bool:
        """The broker is there, and takes what it is given."""
        return not self.network.is_down and not any(
            stream.is_full for stream in self.broker.streams.values()
        )

    @property
    def was_peaceful(self) -> bool:
        """Nothing was lost, cut off, refused for good or sent again; all else may have happened."""
        troubled = self.deaths or self.network.troubled_at_s
        sent_again = any(consumer.was_begun_anew for consumer in self.consumers.values())
        moods = {call.mood for call in self.provider.calls}
        return not (troubled or sent_again or moods - set(PEACEFUL))

    def heal(self) -> None:
        """The last fault is over."""
        self.network.loss = 0.0
        self.network.planned.clear()
        self.provider.moods.clear()
        for stream in self.broker.streams.values():
            stream.is_full = False
        self.network.set_down(False)
        self.set_budget(None)
        for key, account in self.accounts().items():
            if key.startswith("spend.batch.") and account.limit_usd is not None:
                batch = key.removeprefix("spend.batch.")
                self._change_batch_budget(batch, lambda _account: None)
