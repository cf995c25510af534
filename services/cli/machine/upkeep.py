"""What `cardflow up` mends by itself while everything runs: streams, consumers, a disk that was
full.

Bounds that differ are left alone: somebody may have chosen them with `cardflow provision`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from services.cli.machine.storage import Storage
from services.kernel.errors import SettingsError
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.provisioning.provision import provision
from services.kernel.settings import KernelSettings, load_settings
from services.kernel.stream.reading import connected

_TIMEOUT_S = 10.0


async def keep_up(nats_url: str, storage: Storage | None, on_look: Callable[[], None]) -> None:
    """Looks every `watch_interval_s`, for ever; `on_look` is called each time.

    Nothing is repaired while the storage is unsound: what seems missing may be there again after
    the restart.
    """
    repairs = Repairs(nats_url)
    while True:
        await asyncio.sleep(repairs.interval_s)
        try:
            on_look()
            if storage is None or await storage.is_sound():
                await repairs.make()
        except Exception as error:  # Whatever it is: the next look may fare better.
            structlog.get_logger().error("upkeep.failed", error=repr(error))


class Repairs:
    """Makes the streams, consumers and buckets again as they should be; tells each repair once."""

    def __init__(self, nats_url: str) -> None:
        self._url = nats_url
        self._settings = load_settings(KernelSettings).nats
        self._told: set[str] = set()
        self._log = structlog.get_logger()

    @property
    def interval_s(self) -> float:
        return self._settings.watch_interval_s

    async def make(self) -> None:
        try:
            async with connected(self._url) as nc:
                drifts = await provision(
                    nc.jetstream(timeout=_TIMEOUT_S), self._settings, bounds=False
                )
        except (SettingsError, *NATS_FAULTS) as error:
            self._log.debug("repair.delayed", error=repr(error))
            return
        refused = {str(drift) for drift in drifts if not drift.changed}
        for drift in drifts:
            if drift.changed:
                self._log.warning("drift.repaired", drift=str(drift))
        for drift_words in sorted(refused - self._told):
            self._log.error("drift.left", drift=drift_words)
        self._told = refused
