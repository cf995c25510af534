"""The way between a replica and the broker: what is lost, late, unanswered, or cut by a death.

`Link` has the two methods of a NATS connection that JetStream stands on, so a replica's whole
traffic passes it. What a dead replica still tries to send goes nowhere, even from its `finally`
blocks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random

import nats.errors
from model.broker import Broker, Headers
from nats.aio.msg import Msg

_LATENCY_S = (0.001, 0.004)


class Fate(Enum):
    """What becomes of one request."""

    SERVED = "served"
    LOST = "lost on its way"
    UNANSWERED = "done, but its reply is lost"
    LATE = "done after its sender has stopped waiting"
    UNHEARD = "turned away: no leader"
    DEATH_BEFORE = "its sender dies before it is sent"
    DEATH_AFTER = "its sender dies when it is done"


TROUBLES = (Fate.LOST, Fate.UNANSWERED, Fate.LATE, Fate.UNHEARD)
DEATHS = (Fate.DEATH_BEFORE, Fate.DEATH_AFTER)

KINDS = {
    "ledger": "$KV.ATTEMPTS.",
    "claim": "$KV.CLAIMS.",
    "cache": "$KV.COMPLETIONS.",
    "money": "$KV.FLEET.",
    "read": "$JS.API.DIRECT.GET.",
    "answer": "$JS.ACK.",
    "output": "",
}
"""The kinds of requests, by how their subject begins; the first that fits."""


def kind_of(subject: str) -> str:
    return next(kind for kind, prefix in KINDS.items() if subject.startswith(prefix))


@dataclass
class Planned:
    """Trouble for the request of this kind after the next `skip` ones."""

    kind: str
    fate: Fate
    skip: int


class Network:
    """What all links have in common. With `loss` above 0 any request may meet with trouble."""

    def __init__(self, random: Random, loop: asyncio.AbstractEventLoop) -> None:
        self.random = random
        self.loop = loop
        self.planned: list[Planned] = []
        self.loss = 0.0
        self.is_down = False
        self.troubled_at_s: dict[str, float] = {}
        self._held: list[Callable[[], None]] = []

    def set_down(self, is_down: bool) -> None:
        """When the broker is back, clients send what they have kept, and it half arrives."""
        self.is_down = is_down
        if is_down:
            return
        held, self._held = self._held, []
        for send in held:
            if self.random.random() < 0.5:
                send()

    def hold(self, send: Callable[[], None]) -> None:
        self._held.append(send)

    def latency_s(self) -> float:
        return self.random.uniform(*_LATENCY_S)

    def note_trouble(self, subject: str) -> None:
        self.troubled_at_s[kind_of(subject)] = self.loop.time()

    def fate(self, subject: str) -> Fate:
        fate = self._planned_fate(kind_of(subject))
        if fate is Fate.SERVED and self.loss and self.random.random() < self.loss:
            fate = self.random.choice(TROUBLES)
        if fate is not Fate.SERVED or self.is_down:
            self.note_trouble(subject)
        return fate

    def loses_a_message(self) -> bool:
        """One that the broker hands out."""
        return self.is_down or (self.loss > 0 and self.random.random() < self.loss)

    def _planned_fate(self, kind: str) -> Fate:
        for plan in self.planned:
            if plan.kind == kind:
                if plan.skip == 0:
                    self.planned.remove(plan)
                    return plan.fate
                plan.skip -= 1
        return Fate.SERVED


class Link:
    """The connection of one replica. Stands in for `nats.aio.client.Client`."""

    def __init__(
        self,
        broker: Broker,
        network: Network,
        *,
        on_death: Callable[[], None],
        note: Callable[[str], None],
    ) -> None:
        self._broker = broker
        self._network = network
        self._loop = network.loop
        self._on_death = on_death
        self._note = note
        self.is_dead = False

    def check_alive(self) -> None:
        """Whatever a dead process still runs ends at its next effect."""
        if self.is_dead:
            raise asyncio.CancelledError

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: Headers | None = None
    ) -> None:
        """Sends, and waits for nothing."""
        self.check_alive()
        fate = self._network.fate(subject)
        self._send(fate, subject, payload, headers, timeout=1.0, reply=None)
        if self.is_dead:
            raise asyncio.CancelledError

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,
        headers: Headers | None = None,
    ) -> Msg:
        """Raises nats-py's errors when there is no reply in time, or nobody to give one."""
        self.check_alive()
        fate = self._network.fate(subject)
        if fate is Fate.UNHEARD:
            await asyncio.sleep(self._network.latency_s())
            raise nats.errors.NoRespondersError
        reply: asyncio.Future[Msg] = self._loop.create_future()
        timer = self._loop.call_later(timeout, _end, reply, nats.errors.TimeoutError())
        self._send(fate, subject, payload, headers, timeout=timeout, reply=reply)
        try:
            return await reply
        finally:
            timer.cancel()

    def _send(
        self,
        fate: Fate,
        subject: str,
        payload: bytes,
        headers: Headers | None,
        *,
        timeout: float,
        reply: asyncio.Future[Msg] | None,
    ) -> None:
        if fate is not Fate.SERVED:
            self._note(f"{subject} {payload[:24]!r}: {fate.value}")
        if fate is Fate.DEATH_BEFORE:
            self._on_death()
        if fate in (Fate.LOST, Fate.UNHEARD, Fate.DEATH_BEFORE):
            return

        late_s = 1.5 * timeout if fate is Fate.LATE else 0.0

        def send() -> None:
            wait_s = self._network.latency_s() + late_s
            self._loop.call_later(wait_s, self._arrive, fate, subject, payload, headers, reply)

        if self._network.is_down:
            self._network.hold(send)
        else:
            send()

    def _arrive(
        self,
        fate: Fate,
        subject: str,
        payload: bytes,
        headers: Headers | None,
        reply: asyncio.Future[Msg] | None,
    ) -> None:
        if self.is_dead and self._network.random.random() < 0.5:
            return  # It was on its way when its sender died.
        answer = self._broker.receive(subject, payload, headers)
        if kind_of(subject) == "output":
            self._note(f"{subject}: {answer.data.decode()}")
        if b'"code": 503' in answer.data and b"per subject" not in answer.data:
            self._network.note_trouble(subject)  # Its stream is full.
        if fate is Fate.DEATH_AFTER:
            self._on_death()
        elif fate is Fate.SERVED and reply is not None:
            message = Msg(None, data=answer.data, headers=answer.headers)  # type: ignore[arg-type]
            self._loop.call_later(self._network.latency_s(), _end, reply, message)


def _end(reply: asyncio.Future[Msg], result: Msg | Exception) -> None:
    if reply.done():
        return
    if isinstance(result, Exception):
        reply.set_exception(result)
    else:
        reply.set_result(result)
