"""Opening the ledger of a delivery in the bucket of attempts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nats.js.kv import KeyValue

from services.kernel import topology
from services.kernel.contracts.attempt import AttemptHistory
from services.kernel.record import Record
from services.kernel.stream.attempts import AttemptLedger
from services.kernel.stream.incoming import Identity


class AttemptStore:
    """The attempts of one service; one record a term."""

    def __init__(self, bucket: KeyValue, service: str) -> None:
        self._bucket = bucket
        self._service = service

    def ledger(
        self,
        identity: Identity,
        *,
        replay: int,
        max_attempts: int,
        has_ended: Callable[[], Awaitable[bool]],
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> AttemptLedger:
        key = topology.attempts_key(self._service, identity.batch, identity.id)
        return AttemptLedger(
            Record(self._bucket, key, AttemptHistory()),
            identity,
            replay=replay,
            max_attempts=max_attempts,
            has_ended=has_ended,
            is_cancelled=is_cancelled,
        )
