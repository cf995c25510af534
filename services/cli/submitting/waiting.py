"""Following a batch to its end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from nats.js import JetStreamContext

from services.cli.bar import figures_bar
from services.cli.common import err
from services.cli.machine.pauses import pauses_line
from services.cli.machine.provider_health import paused_by_hand
from services.cli.submitting.batch_status import BatchStatus, batch_status
from services.kernel import topology
from services.kernel.contracts.dead_letter import DeadLetter
from services.kernel.errors import Outage
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.provisioning.pausing import Paused
from services.kernel.stream.reading import messages_of

_INTERVAL_S: Final = 0.5
_FINAL_S: Final = 5.0
"""How long the exporter's last figures may come after the last card."""
_SILENCE_S: Final = 60.0
"""A server that is started again, with its streams to recover, is back by then."""
_EXAMPLES: Final = 10


def say_paused(paused: Paused) -> None:
    """One line on standard error: waiting is in vain until somebody acts."""
    err.print(pauses_line(paused) if paused else "resumed: no service is paused", markup=False)


async def wait_for_batch(
    js: JetStreamContext,
    batch: str,
    *,
    timeout_s: float | None = None,
    on_status: Callable[[BatchStatus], None] = lambda _status: None,
    on_paused: Callable[[Paused], None] = say_paused,
    interval_s: float = _INTERVAL_S,
    silence_s: float = _SILENCE_S,
) -> BatchStatus:
    """The status when every term that arrived has ended (`is_over`), or after `timeout_s`.

    `on_paused` hears which services are paused, whenever that changes; waiting goes on.
    Sits out a restart of the server. Raises Outage when it is silent for `silence_s`, or says
    nothing at all in `timeout_s`.
    """
    clock = asyncio.get_running_loop().time
    begin = heard = clock()
    over: float | None = None
    status: BatchStatus | None = None
    paused_before: Paused = {}
    while True:
        try:
            status = await batch_status(js, batch)
            paused = await paused_by_hand(js)
        except NATS_FAULTS as error:
            if clock() - heard > silence_s:
                raise Outage(f"the server stopped answering ({error!r})") from error
        else:
            heard = clock()
            on_status(status)
            if paused != paused_before:
                on_paused(paused)
                paused_before = paused
            over = (over or heard) if status.is_over else None
            if over is not None and (status.is_final or heard - over >= _FINAL_S):
                return status
        if timeout_s is not None and clock() - begin >= timeout_s:
            if status is None:
                raise Outage(f"the server did not answer within {timeout_s:g} s")
            return status
        await asyncio.sleep(interval_s)


@contextmanager
def status_bar(batch: str) -> Iterator[Callable[[BatchStatus], None]]:
    """A bar on standard error that each status given to it moves; nothing off a terminal."""
    with figures_bar(batch) as (move, clock):
        begin_s = clock()
        ended_before: int | None = None

        def show(status: BatchStatus) -> None:
            nonlocal ended_before
            if ended_before is None:
                ended_before = status.ended
            elapsed_s = clock() - begin_s
            rate = (status.ended - ended_before) / elapsed_s if elapsed_s > 0 else 0.0
            move(status.ended, status.total, figures(status, rate))

        yield show


def figures(status: BatchStatus, rate: float) -> str:
    """What stands beside the bar; `rate` is in terms a second."""
    parts = [f"{status.dead} dead", f"{rate:.0f}/s", f"${status.cost_usd:.4f}"]
    if status.cancelled:
        parts.insert(1, f"{status.cancelled} cancelled")
    if status.eta_s:
        parts.insert(-1, f"eta {status.eta_s:.0f} s")
    return " · ".join(parts)


@dataclass
class DeadTerms:
    """Why terms of a batch have died: how many for each reason, and the first few."""

    by_reason: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: list[DeadLetter] = field(default_factory=list)

    def as_json(self) -> list[dict[str, Any]]:
        return [
            {"service": service, "reason": reason, "count": count}
            for (service, reason), count in self.by_reason.most_common()
        ]


async def dead_terms(js: JetStreamContext, batch: str) -> DeadTerms:
    """Reads the dead letters of a batch."""
    dead = DeadTerms()
    async for message in messages_of(js, topology.DEAD_LETTERS.name, f"dead.*.{batch}.*"):
        letter = DeadLetter.model_validate_json(message.data)
        dead.by_reason[letter.service, letter.reason] += 1
        if len(dead.examples) < _EXAMPLES:
            dead.examples.append(letter)
    return dead
