"""Single flight: one call for a fingerprint at a time, over all replicas and batches.

A claim is a key in a bucket whose keys expire. It is renewed while the call runs, taken back when
the call fails, and left to expire when it succeeds: by then the answer is in the cache, where
whoever waits looks before every try for the claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol

import structlog
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from services.kernel.errors import Outage
from services.kernel.nats_faults import NATS_FAULTS


class Claims(Protocol):
    """Who may call for a fingerprint."""

    def claim(self, fingerprint: str) -> AbstractAsyncContextManager[bool]:
        """True inside the block for one at a time; False: somebody else is asking right now."""
        ...


class BucketClaims:
    """Claims in a KV bucket whose keys live `ttl_s` seconds after they were last written.

    A replica that dies keeps its claim that long; one whose event loop stands still for longer
    loses it, and the call may then be made twice.
    """

    def __init__(self, bucket: KeyValue, *, ttl_s: float, holder: str) -> None:
        self._bucket = bucket
        self._interval_s = ttl_s / 3
        self._holder = holder.encode()
        self._log = structlog.get_logger()

    @asynccontextmanager
    async def claim(self, fingerprint: str) -> AsyncIterator[bool]:
        """Raises Outage when the bucket can't be written: without a claim nothing is paid."""
        revision = await self._take(fingerprint)
        if revision is None:
            yield False
            return
        renewing = asyncio.create_task(self._renew(fingerprint, revision))
        try:
            yield True
        except BaseException:
            renewing.cancel()
            with suppress(*NATS_FAULTS):  # It expires by itself, a little later.
                await self._bucket.delete(fingerprint)
            raise
        finally:
            renewing.cancel()

    async def _take(self, fingerprint: str) -> int | None:
        try:
            return await self._bucket.create(fingerprint, self._holder)
        except (KeyWrongLastSequenceError, KeyNotFoundError):
            return None  # Taken; or gone while the client looked who has it: ours the next time.
        except NATS_FAULTS as error:
            raise Outage(f"the call can't be claimed: {error!r}") from error

    async def _renew(self, fingerprint: str, revision: int) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                revision = await self._bucket.update(fingerprint, self._holder, last=revision)
            except KeyWrongLastSequenceError:
                self._log.warning("claim.lost", fingerprint=fingerprint)
                return
            except NATS_FAULTS as error:
                self._log.warning("claim.unrenewed", fingerprint=fingerprint, error=repr(error))
