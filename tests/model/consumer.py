"""A durable consumer: who gets which message when, and again after which silence."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from model.broker import Stored, Stream
from nats.js.api import RetentionPolicy

from services.kernel import topology

_EPOCH_NS = 1_770_000_000 * 10**9


@dataclass(frozen=True)
class Handed:
    """One hand-out of a message: `reply` is the subject that its answers go to."""

    stored: Stored
    reply: str


class Consumer:
    """Hands out what stands on its subjects of a stream until it is acknowledged.

    A puller that died without a word still gets one message, as a pull request on a real server
    does; the message then waits out its ack_wait.
    """

    def __init__(
        self,
        stream: Stream,
        reads: topology.Consumer,
        *,
        ack_wait_s: float,
        max_ack_pending: int,
        loop: asyncio.AbstractEventLoop,
        random: Random,
    ) -> None:
        self.stream = stream
        self._durable = reads.durable
        self._prefix = reads.subjects[0].partition("*")[0]
        self._ack_wait_s = ack_wait_s
        self._max_ack_pending = max_ack_pending
        self._loop = loop
        self._random = random
        self._pullers: deque[Callable[[Handed], None]] = deque()
        self.was_begun_anew = False
        self._begin()
        stream.listeners.append(self._on_stored)

    def _begin(self) -> None:
        self._handed = 0
        self._due: list[int] = [s for s, m in self.stream.messages.items() if self._reads(m)]
        self._pending: dict[int, asyncio.TimerHandle] = {}
        self._deliveries: dict[int, int] = {}
        self.acked: set[int] = set()

    def begin_anew(self) -> None:
        """Deleted and made again: everything on the stream is handed out from the beginning.

        The hand-outs are numbered from 1 again, and so a reply subject may come a second time
        while its first bearer is still worked on.
        """
        self.was_begun_anew = True
        for timer in self._pending.values():
            timer.cancel()
        self._begin()
        self._hand_out()

    def count_less(self) -> None:
        """What a crash of the server may do to the delivery counts."""
        self._deliveries = {seq: max(count - 1, 0) for seq, count in self._deliveries.items()}

    @property
    def unanswered(self) -> dict[int, Stored]:
        """What has still to be delivered, or to be answered."""
        messages = self.stream.messages.items()
        return {s: m for s, m in messages if s not in self.acked and self._reads(m)}

    def _reads(self, stored: Stored) -> bool:
        return stored.subject.startswith(self._prefix)

    def pull(self, puller: Callable[[Handed], None]) -> None:
        """Asks for one message, which `puller` gets as soon as there is one."""
        self._pullers.append(puller)
        self._hand_out()

    def withdraw(self, puller: Callable[[Handed], None]) -> None:
        if puller in self._pullers:
            self._pullers.remove(puller)

    def on_ack(self, reply: str, payload: bytes) -> None:
        """An answer counts for the message, whichever of its hand-outs it was given to."""
        *_, sequence, handed, _at, _left = reply.split(".")
        if int(sequence) not in self._pending or int(handed) > self._handed:
            return
        if payload in (b"", b"+ACK"):
            self._pending.pop(int(sequence)).cancel()
            self.acked.add(int(sequence))
            stored = self.stream.messages.get(int(sequence))
            if stored and self.stream.config.retention is RetentionPolicy.WORK_QUEUE:
                self.stream.drop(stored)
            self._hand_out()
        elif payload.startswith(b"-NAK"):
            options = json.loads(payload[4:] or b"{}")
            self._wait(int(sequence), options.get("delay", 0) / 10**9)
        else:
            self._wait(int(sequence), self._ack_wait_s)

    def _on_stored(self, stored: Stored) -> None:
        if self._reads(stored):
            self._due.append(stored.sequence)
            self._hand_out()

    def _hand_out(self) -> None:
        while self._due and self._pullers and len(self._pending) < self._max_ack_pending:
            sequence = self._due.pop(self._random.randrange(len(self._due)))
            stored = self.stream.messages.get(sequence)
            if stored is None or sequence in self.acked:
                continue  # Purged, or answered late.
            self._handed += 1
            count = self._deliveries[sequence] = self._deliveries.get(sequence, 0) + 1
            at_ns = _EPOCH_NS + int(stored.at_s * 10**9)
            name = self.stream.config.name
            reply = f"$JS.ACK.{name}.{self._durable}.{count}.{sequence}.{self._handed}.{at_ns}.0"
            self._wait(sequence, self._ack_wait_s)
            self._pullers.popleft()(Handed(stored, reply))

    def _wait(self, sequence: int, seconds: float) -> None:
        if sequence in self._pending:
            self._pending[sequence].cancel()
        self._pending[sequence] = self._loop.call_later(seconds, self._again, sequence)

    def _again(self, sequence: int) -> None:
        del self._pending[sequence]
        self._due.append(sequence)
        self._hand_out()
