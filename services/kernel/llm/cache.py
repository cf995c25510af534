"""Fit completions by fingerprint, in a bucket that all replicas and batches share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue
from pydantic import ValidationError

from services.kernel.errors import Outage
from services.kernel.llm.prompt import CompletionRequest
from services.kernel.llm.provider import Completion
from services.kernel.nats_faults import NATS_FAULTS


class CompletionCache(Protocol):
    """Keeps completions for good. Only fit ones are put in."""

    async def get(self, fingerprint: str) -> Completion | None: ...

    async def put(self, fingerprint: str, completion: Completion) -> None: ...


def kept_as(completion: Completion, request: CompletionRequest, call_id: str) -> Completion:
    """The completion with what tells later where it is from."""
    origin = {
        "call_id": call_id,
        "prompt": request.prompt,
        "prompt_version": request.prompt_version,
        "kept_at": datetime.now(UTC),
    }
    return completion.model_copy(update=origin)


class BucketCache:
    """The cache in a JetStream KV bucket. Raises Outage when the bucket is away or full."""

    def __init__(self, bucket: KeyValue) -> None:
        self._bucket = bucket

    async def get(self, fingerprint: str) -> Completion | None:
        try:
            entry = await self._bucket.get(fingerprint)
        except KeyNotFoundError:
            return None
        except NATS_FAULTS as error:
            raise Outage(f"the completion cache can't be read: {error!r}") from error
        try:
            return Completion.model_validate_json(entry.value or b"")
        except ValidationError:
            return None  # Written by another version: as good as not there.

    async def put(self, fingerprint: str, completion: Completion) -> None:
        try:
            await self._bucket.put(fingerprint, completion.to_bytes())
        except NATS_FAULTS as error:
            raise Outage(f"the completion cache can't be written: {error!r}") from error
