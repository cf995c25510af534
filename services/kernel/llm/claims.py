"""Single flight: one call for a fingerprint at a time, over all replicas and batches.

A claim is a key in a bucket whose keys expire. It is renewed while the call runs, taken back when
the call fails, and left to expire when it succeeds: by then the answer is in the cache, where
whoever waits looks before every try for the claim.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol

import structlog
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from services.kernel.errors import Outage
from services.kernel.nats_faults import NATS_FAULTS


class ClaimLost(Outage):
    """Somebody else may be asking by now; nothing was sent."""


class Claim(Protocol):
    """The right to call for a fingerprint."""

    def is_held(self) -> bool:
        """False when it may have passed to somebody else, because it could not be renewed."""
        ...

    def is_fresh(self) -> bool:
        """False when it may be lost soon: it should have been renewed by now."""
        ...

    async def retake(self) -> bool:
        """Takes a doubtful claim again; False when somebody else has it now. Raises Outage."""
        ...


class Claims(Protocol):
    """Who may call for a fingerprint."""

    def claim(self, fingerprint: str) -> AbstractAsyncContextManager[Claim | None]:
        """A claim inside the block for one at a time; None: somebody else is asking right now."""
        ...


class BucketClaims:
    """Claims in a KV bucket whose keys live `ttl_s` seconds after they were last written.

    A replica that dies keeps its claim that long; one that is cut off from the bucket for longer
    loses it, and knows. `clock` gives seconds.
    """

    def __init__(
        self,
        bucket: KeyValue,
        *,
        ttl_s: float,
        holder: str,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._bucket = bucket
        self._ttl_s = ttl_s
        self._holder = holder
        self._clock = clock or (lambda: asyncio.get_running_loop().time())

    @asynccontextmanager
    async def claim(self, fingerprint: str) -> AsyncIterator[Claim | None]:
        """Raises Outage when the bucket can't be written: without a claim nothing is paid."""
        token = f"{self._holder}:{secrets.token_hex(4)}".encode()
        claim = _BucketClaim(self._bucket, fingerprint, token, self._ttl_s, self._clock)
        if not await claim.take():
            yield None
            return
        renewing = asyncio.create_task(claim.renew())
        try:
            yield claim
        except BaseException:
            renewing.cancel()
            await claim.release()
            raise
        finally:
            renewing.cancel()


class _BucketClaim:
    """One claim: the key, the revision at which it is ours, and since when."""

    def __init__(
        self,
        bucket: KeyValue,
        fingerprint: str,
        token: bytes,
        ttl_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._bucket = bucket
        self._fingerprint = fingerprint
        self._token = token
        self._ttl_s = ttl_s
        self._clock = clock
        self._revision = 0
        self._renewed_at = 0.0
        self._is_lost = False

    def is_held(self) -> bool:
        return self._is_held_for(0.0)

    def is_fresh(self) -> bool:
        return self._is_held_for(self._ttl_s / 3)

    def _is_held_for(self, time_s: float) -> bool:
        return not self._is_lost and self._clock() - self._renewed_at < self._ttl_s - time_s

    async def take(self) -> bool:
        asked_at = self._clock()
        try:
            self._revision = await self._bucket.create(self._fingerprint, self._token)
        except (KeyWrongLastSequenceError, KeyNotFoundError):
            return False  # Taken; or gone while the client looked who has it: ours the next time.
        except NATS_FAULTS as error:
            raise Outage(f"the call can't be claimed: {error!r}") from error
        self._renewed_at = asked_at
        return True

    async def retake(self) -> bool:
        try:
            is_ours = await self.take() or await self._is_ours_after_all()
        except NATS_FAULTS as error:
            raise Outage(f"the claim can't be looked at: {error!r}") from error
        self._is_lost = not is_ours
        return is_ours

    async def renew(self) -> None:
        """Every third of its life, until it is lost. Runs until it is cancelled."""
        while not self._is_lost:
            await asyncio.sleep(self._ttl_s / 3)
            try:
                await self._renew_once()
            except NATS_FAULTS as error:
                structlog.get_logger().warning(
                    "claim.unrenewed", fingerprint=self._fingerprint, error=repr(error)
                )

    async def _renew_once(self) -> None:
        asked_at = self._clock()
        try:
            self._revision = await self._bucket.update(
                self._fingerprint, self._token, last=self._revision
            )
        except KeyWrongLastSequenceError:
            self._is_lost = not await self._is_ours_after_all()
            if self._is_lost:
                structlog.get_logger().warning("claim.lost", fingerprint=self._fingerprint)
        else:
            self._renewed_at = asked_at

    async def _is_ours_after_all(self) -> bool:
        """A renewal whose answer was lost has moved the revision on."""
        try:
            entry = await self._bucket.get(self._fingerprint)
        except KeyNotFoundError:
            return False
        self._revision = entry.revision or 0
        return entry.value == self._token

    async def release(self) -> None:
        """Only what is still ours; else it expires by itself, a little later."""
        with suppress(*NATS_FAULTS):
            await self._bucket.delete(self._fingerprint, last=self._revision)
