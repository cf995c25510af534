"""The completion cache: what it gives back, what counts as not there, and when it is away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nats.errors
import nats.js.errors
import pytest
from asking_fakes import completion

from services.kernel.errors import Outage
from services.kernel.llm.cache import BucketCache

KEY = "f" * 64


@dataclass
class Entry:
    value: bytes | None


class FakeBucket:
    """A KV bucket in a dictionary; `fault` is raised by whatever is asked of it."""

    def __init__(self, *, fault: Exception | None = None, **entries: bytes | None) -> None:
        self.entries = entries
        self._fault = fault

    async def get(self, key: str) -> Entry:
        if self._fault:
            raise self._fault
        if key not in self.entries:
            raise nats.js.errors.KeyNotFoundError
        return Entry(self.entries[key])

    async def put(self, key: str, value: bytes) -> int:
        if self._fault:
            raise self._fault
        self.entries[key] = value
        return 1


def cache(**of: Any) -> BucketCache:
    return BucketCache(FakeBucket(**of))  # type: ignore[arg-type]


async def test_what_was_put_in_comes_out() -> None:
    one = cache()
    kept = completion('{"term": "책"}', cost_usd="0.0000123")
    await one.put(KEY, kept)
    assert await one.get(KEY) == kept


async def test_a_completion_that_was_never_put_in_is_not_there() -> None:
    assert await cache().get(KEY) is None


@pytest.mark.parametrize(
    "value", [b"", None, b"no JSON", b"[]", b'{"text": 1}', b'{"model": "m", "provider": "p"}']
)
async def test_what_another_version_wrote_is_as_good_as_not_there(value: bytes | None) -> None:
    assert await cache(**{KEY: value}).get(KEY) is None


async def test_fields_of_a_newer_version_are_left_out() -> None:
    newer = completion().to_bytes()[:-1] + b',"from_the_future":{"x":1}}'
    assert await cache(**{KEY: newer}).get(KEY) == completion()


FAULTS = [
    nats.errors.TimeoutError(),
    nats.errors.ConnectionClosedError(),
    nats.errors.MaxPayloadError(),
    nats.js.errors.ServiceUnavailableError(code=503, err_code=10077, description="full"),
    nats.js.errors.NoStreamResponseError(),
    OSError("network is unreachable"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_a_bucket_that_is_away_is_an_outage_and_no_miss(fault: Exception) -> None:
    away = cache(fault=fault)
    with pytest.raises(Outage, match="can't be read"):
        await away.get(KEY)
    with pytest.raises(Outage, match="can't be written"):
        await away.put(KEY, completion())
