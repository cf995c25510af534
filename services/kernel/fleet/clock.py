"""One clock for all replicas: that of the NATS server, read off the local monotonic one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import structlog
from nats.js import JetStreamContext

from services.kernel import topology
from services.kernel.nats_faults import NATS_FAULTS

_LOOKS: Final = 3
"""The quickest of so many answers tells the time best."""
_AGAIN_S: Final = 60.0


class FleetClock:
    """Seconds since the epoch as the server reckons them. It never depends on this machine's date.

    Before the first look it is the machine's own time. `monotonic` gives seconds.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset_s = time.time() - monotonic()

    def now(self) -> float:
        return self._monotonic() + self._offset_s

    async def set(self, js: JetStreamContext) -> None:
        """Looks at the server's clock. Raises what NATS raises."""
        offsets = [await self._look(js) for _ in range(_LOOKS)]
        _round_trip_s, self._offset_s = min(offsets)

    async def keep(self, js: JetStreamContext) -> None:
        """Looks again every minute, for ever: clocks drift."""
        while True:
            await asyncio.sleep(_AGAIN_S)
            try:
                await self.set(js)
            except NATS_FAULTS as error:
                structlog.get_logger().info("clock.unread", error=repr(error))

    async def _look(self, js: JetStreamContext) -> tuple[float, float]:
        """How long the answer took, and the offset that it tells."""
        asked_at = self._monotonic()
        # Asked for by hand: the client leaves out the server's time.
        subject = f"{js._prefix}.STREAM.INFO.KV_{topology.FLEET.name}"  # noqa: SLF001
        info: dict[str, Any] = await js._api_request(subject)  # noqa: SLF001
        answered_at = self._monotonic()
        server_s = datetime.fromisoformat(info["ts"]).timestamp()
        return answered_at - asked_at, server_s - (asked_at + answered_at) / 2
