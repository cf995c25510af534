"""nats-server after its disk was full: started again, once there is room.

A stream whose write failed refuses all further ones until the server is started again, though there
is room again. What it acknowledged is on the disk and is there afterwards.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from services.kernel.topology import MIB

_ROOM_SHARE: Final = 0.05
_ROOM_MAX_BYTES: Final = 256 * MIB
"""A twentieth of the disk, but no more than this, must be free: else it is full again at once."""
_AGAIN_MIN_S: Final = 10.0
_AGAIN_MAX_S: Final = 600.0
"""A restart that did not help is tried again after this, doubled each time up to that."""


class Storage:
    """Looks at the embedded server's storage, and mends it by a restart.

    `write_fault` tells why a stream can't be written, `restart` starts the server again, `free`
    gives a folder's disk as (size, free) in bytes.
    """

    def __init__(
        self,
        write_fault: Callable[[], Awaitable[str | None]],
        restart: Callable[[], Awaitable[None]],
        *,
        folder: Path,
        room: Callable[[Path], tuple[int, int]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write_fault = write_fault
        self._restart = restart
        self._folder = folder
        self._room = room or _room
        self._clock = clock
        self._told = False
        self._delay_s = _AGAIN_MIN_S
        self._not_before: float | None = None
        self._log = structlog.get_logger()

    async def is_sound(self) -> bool:
        """False while the server can't write; it is restarted meanwhile if that can help."""
        fault = await self._write_fault()
        if fault is None:
            self._note_sound()
            return True
        size, free = await asyncio.to_thread(self._room, self._folder)
        needed = int(min(_ROOM_MAX_BYTES, size * _ROOM_SHARE))
        if not self._told:
            self._told = True
            self._log.error(
                "storage.failed",
                error=fault,
                free_mib=free // MIB,
                hint=f"nothing is lost; make room on the disk of {self._folder}: once "
                f"{max(1, needed // MIB)} MiB are free, nats-server is started again by itself",
            )
        now = self._clock()
        if free < needed or (self._not_before is not None and now < self._not_before):
            return False
        self._not_before = now + self._delay_s
        self._delay_s = min(self._delay_s * 2, _AGAIN_MAX_S)
        await self._restart()
        self._log.warning(
            "nats.restarted",
            reason="it refused to write after its disk had been full; there is room now",
            error=fault,
            free_mib=free // MIB,
        )
        return False

    def _note_sound(self) -> None:
        if self._told:
            self._told = False
            self._log.info("storage.mended")
        if self._not_before is not None and self._clock() > self._not_before + _AGAIN_MAX_S:
            self._not_before, self._delay_s = None, _AGAIN_MIN_S


def _room(folder: Path) -> tuple[int, int]:
    usage = shutil.disk_usage(folder)
    return usage.total, usage.free
