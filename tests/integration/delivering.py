"""A service's delivery on a real server, with a handler of the test's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from services.kernel import topology
from services.kernel.contracts.dead_letter import DeadLetter
from services.kernel.holding import Holding
from services.kernel.metrics import Metrics
from services.kernel.stream.attempt_store import AttemptStore
from services.kernel.stream.attempts import AttemptLedger
from services.kernel.stream.checkpoint import Checkpoint
from services.kernel.stream.delivery import Delivery, Handler
from services.kernel.stream.endings import Endings
from services.kernel.stream.in_hand import InHand
from services.kernel.stream.incoming import Identity, Incoming, Outgoing
from services.kernel.stream.lanes import Lanes
from services.kernel.stream.outgoing import Publisher
from services.kernel.stream.retry import RetryPolicy

BATCH = "b1"
QUICK = RetryPolicy(max_attempts=3, base_s=0.02, cap_s=0.05)


async def eventually(
    condition: Callable[[], bool] | Callable[[], Awaitable[bool]], *, within_s: float = 15
) -> None:
    """Polls until the condition holds; fails when the time is over."""
    deadline = time.monotonic() + within_s
    while True:
        holds = condition()
        if await holds if isinstance(holds, Awaitable) else holds:
            return
        assert time.monotonic() < deadline, f"{condition} did not hold within {within_s} s"
        await asyncio.sleep(0.01)


async def analyze(incoming: Incoming, _ledger: object = None) -> Outgoing:
    """The shortest handler: the term's analysis is its own payload."""
    term_id = incoming.subject.rsplit(".", 1)[1]
    return Outgoing(topology.analyzed_subject(BATCH, term_id), incoming.data)


class Failing:
    """A handler that raises these errors, one a call, and then analyzes."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.calls = 0

    async def __call__(self, incoming: Incoming, _ledger: AttemptLedger, /) -> Outgoing:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)
        return await analyze(incoming)


@dataclass
class Wire:
    """What went over the wire, in its order: subjects published to, and the four answers."""

    seen: list[tuple[str, bytes]] = field(default_factory=list)

    @classmethod
    async def tapped(cls, nc: Client) -> Wire:
        wire = cls()

        async def note(message: Msg) -> None:
            if message.subject.startswith(("$JS.ACK.TERMS.", "terms.analyzed.", "dead.")):
                wire.seen.append((message.subject, message.data or b"+ACK"))

        await nc.subscribe(">", cb=note)
        await nc.flush()
        return wire

    @property
    def answers(self) -> list[bytes]:
        return [data for subject, data in self.seen if subject.startswith("$JS.ACK.")]

    @property
    def order(self) -> list[str]:
        return [
            data[:4].decode() if subject.startswith("$JS.ACK.") else subject.split(".")[0]
            for subject, data in self.seen
        ]


class Stage1:
    """TERMS → ANALYSES, fetched and delivered one message at a time."""

    def __init__(self, js: JetStreamContext, handle: Handler, **options: Any) -> None:
        self.js = js
        self.metrics = Metrics("stage1")
        self.held: list[str | None] = []
        self.in_hand = InHand(self.metrics, ack_wait_s=options.pop("ack_wait_s", 20))
        self._handle = handle
        self._options = {"policy": QUICK, "jitter": lambda: 1.0} | options

    async def open(self) -> Stage1:
        self.bucket = await self.js.key_value(topology.ATTEMPTS.name)
        self.attempts = AttemptStore(self.bucket, "stage1")
        self._subscription = await self.js.pull_subscribe_bind(
            durable="stage1", stream=topology.TERMS.name
        )
        publisher = Publisher(self.js, timeout_s=2, election_s=0.2)
        checkpoint = Checkpoint(self.js, topology.ANALYSES.name, topology.analyzed_subject)
        self.delivery = Delivery(
            "stage1",
            self._handle,
            publisher=publisher,
            attempts=self.attempts,
            endings=Endings(self.js, "stage1", checkpoint),
            lanes=Lanes(self.js, publisher, "stage1"),
            in_hand=self.in_hand,
            holding=Holding(self.held.append),
            metrics=self.metrics,
            **self._options,
        )
        return self

    async def accept(
        self, term_id: str = "t1", body: bytes = b'{"term": "x"}', **headers: str
    ) -> None:
        await self.js.publish(
            topology.accepted_subject(BATCH, term_id),
            body,
            headers={name.replace("_", "-"): value for name, value in headers.items()} or None,
        )

    async def fetch(self, timeout: float = 5) -> Msg:
        [message] = await self._subscription.fetch(1, timeout=timeout)
        return message

    async def deliver(self, times: int = 1) -> None:
        for _ in range(times):
            await self.delivery(await self.fetch())

    def ledger(self, *, replay: int = 0, term_id: str = "t1") -> AttemptLedger:
        async def nowhere() -> bool:
            return False

        return self.attempts.ledger(
            Identity(BATCH, term_id), replay=replay, max_attempts=99, has_ended=nowhere
        )

    async def analysis(self, term_id: str = "t1") -> bytes | None:
        try:
            subject = topology.analyzed_subject(BATCH, term_id)
            return (await self.js.get_last_msg(topology.ANALYSES.name, subject)).data
        except NotFoundError:
            return None

    async def letter(self, term_id: str = "t1") -> DeadLetter | None:
        try:
            subject = topology.dead_subject("stage1", BATCH, term_id)
            raw = await self.js.get_last_msg(topology.DEAD_LETTERS.name, subject)
        except NotFoundError:
            return None
        return DeadLetter.model_validate_json(raw.data or b"")

    async def is_settled(self) -> bool:
        """True when every message is answered for good; an ack takes a moment to arrive."""
        info = await self.js.consumer_info(topology.TERMS.name, "stage1")
        return not info.num_ack_pending and not info.num_pending

    def count(self, outcome: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            "cardflow_messages_completed_total", {"service": "stage1", "outcome": outcome}
        )
