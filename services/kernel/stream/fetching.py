"""What a pull loop fetches, seen by those who must know of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog
from nats.aio.msg import Msg

from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.stream.in_hand import InHand

_AGAIN_S: Final = 1.0
"""After a fetch that failed: without a pause a missing consumer costs most of a core."""


def note_fetched(
    subscriber: Any, in_hand: InHand, on_failed: Callable[[], None] = lambda: None
) -> None:
    """Lets `in_hand` see what the pull loop fetches, so that a stop can give it back.

    FastStream drops fetched messages whose handler has not begun when it stops; they would wait
    out the ack_wait. A fetch that fails ends empty: FastStream knows only one of the two time-outs
    that the client raises, and asks again at once after any other error. `on_failed` hears of it.
    """
    subscription = subscriber.subscription
    fetch = subscription.fetch

    async def fetch_and_note(*args: Any, **kwargs: Any) -> list[Msg]:
        try:
            messages: list[Msg] = await fetch(*args, **kwargs)
        except TimeoutError:
            return []
        except NATS_FAULTS as error:
            structlog.get_logger().warning("fetch.failed", error=repr(error))
            on_failed()
            await asyncio.sleep(_AGAIN_S)
            return []
        in_hand.fetched(messages)
        return messages

    subscription.fetch = fetch_and_note
