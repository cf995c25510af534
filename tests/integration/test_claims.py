"""Single flight over replicas: against a real bucket, one call a fingerprint at a time."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

import pytest
from delivering import eventually
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from services.kernel import topology
from services.kernel.errors import Outage
from services.kernel.llm.claims import BucketClaims
from services.kernel.provisioning.provision import provision
from services.kernel.settings import NatsSettings

TTL_S = 1.0


@pytest.fixture
async def bucket(nc: Client) -> KeyValue:
    js = nc.jetstream(timeout=5)
    await provision(js, NatsSettings(stream_max_mib=64, ack_wait_s=TTL_S))
    return await js.key_value(topology.CLAIMS.name)


def claims(bucket: KeyValue, holder: str) -> BucketClaims:
    return BucketClaims(bucket, ttl_s=TTL_S, holder=holder)


async def is_free(bucket: KeyValue, fingerprint: str) -> bool:
    async with claims(bucket, "asker").claim(fingerprint) as claim:
        return claim is not None


async def test_of_many_pairs_exactly_one_each_may_call(bucket: KeyValue) -> None:
    first, second = claims(bucket, "first"), claims(bucket, "second")
    called: list[str] = []

    async def ask(replica: BucketClaims, fingerprint: str) -> None:
        async with replica.claim(fingerprint) as is_ours:
            if is_ours:
                called.append(fingerprint)

    pairs = [f"{n:064x}" for n in range(1000)]
    for at in range(0, len(pairs), 100):
        some = pairs[at : at + 100]
        await asyncio.gather(*(ask(r, f) for f in some for r in (first, second)))
    assert sorted(called) == sorted(pairs)


async def test_a_claim_that_failed_is_free_at_once(bucket: KeyValue) -> None:
    with pytest.raises(ValueError, match="the call failed"):
        async with claims(bucket, "first").claim("f"):
            raise ValueError("the call failed")
    assert await is_free(bucket, "f")


async def test_a_claim_that_was_answered_stays_until_it_expires(bucket: KeyValue) -> None:
    """Who looked into the cache a moment too early must not find the way free now."""
    async with claims(bucket, "first").claim("f") as is_ours:
        assert is_ours
    assert not await is_free(bucket, "f")
    await eventually(lambda: is_free(bucket, "f"))


async def test_a_claim_that_expires_while_it_is_asked_for_is_no_outage(bucket: KeyValue) -> None:
    """Thousands of tries around the moment of expiry: taken or free, and nothing else."""
    async with claims(bucket, "first").claim("f") as is_ours:
        assert is_ours
    deadline = asyncio.get_running_loop().time() + 5 * TTL_S
    while not any(await asyncio.gather(*(is_free(bucket, "f") for _ in range(20)))):
        assert asyncio.get_running_loop().time() < deadline


async def test_a_claim_is_kept_while_its_call_runs_longer_than_it_lives(bucket: KeyValue) -> None:
    async with AsyncExitStack() as stack:
        assert await stack.enter_async_context(claims(bucket, "first").claim("f"))
        for _ in range(5):
            await asyncio.sleep(TTL_S / 2)
            assert not await is_free(bucket, "f")


async def test_a_claim_that_was_lost_is_told_and_does_not_end_the_call(bucket: KeyValue) -> None:
    async with claims(bucket, "first").claim("f") as claim:
        assert claim is not None
        assert claim.is_held()
        await bucket.put("f", b"somebody else")
        await eventually(lambda: not claim.is_held())
    assert (await bucket.get("f")).value == b"somebody else"


async def test_a_claim_that_expired_is_lost(bucket: KeyValue) -> None:
    async with claims(bucket, "first").claim("f") as claim:
        await bucket.purge("f")
        await bucket._js.purge_stream("KV_CLAIMS")
        await eventually(lambda: claim is not None and not claim.is_held())


async def test_what_is_lost_already_is_not_taken_from_its_new_holder(bucket: KeyValue) -> None:
    with suppress(ValueError):
        async with claims(bucket, "first").claim("f"):
            await bucket.put("f", b"somebody else")
            raise ValueError("the call failed")
    assert (await bucket.get("f")).value == b"somebody else"


async def test_a_claim_that_can_not_be_renewed_is_held_as_long_as_it_lives(
    bucket: KeyValue,
) -> None:
    now = 100.0
    cut_off = BucketClaims(Deaf(bucket), ttl_s=TTL_S, holder="first", clock=lambda: now)
    async with cut_off.claim("f") as claim:
        assert claim is not None
        now += TTL_S / 2
        assert claim.is_fresh()
        now += TTL_S / 2 - 0.01
        assert (claim.is_fresh(), claim.is_held()) == (False, True)
        now += 0.02
        assert not claim.is_held()


async def test_a_claim_in_doubt_is_taken_again_unless_somebody_else_has_it(
    bucket: KeyValue, js: JetStreamContext
) -> None:
    async with claims(bucket, "first").claim("f") as claim:
        assert claim is not None
        assert await claim.retake()
        await bucket.purge("f")
        assert await claim.retake()
        assert claim.is_held()
        await bucket.put("f", b"somebody else")
        assert not await claim.retake()
        assert not claim.is_held()
        await js.delete_stream("KV_CLAIMS")
        with pytest.raises(Outage):
            await claim.retake()


async def test_a_renewal_whose_answer_was_lost_is_one(bucket: KeyValue) -> None:
    deaf = Deaf(bucket, lost=1)
    async with BucketClaims(deaf, ttl_s=TTL_S, holder="first").claim("f") as claim:
        await eventually(lambda: deaf.renewed >= 3)
        assert claim is not None
        assert claim.is_held()


class Deaf:
    """A bucket that does what it is asked, and whose first `lost` answers to updates are lost."""

    def __init__(self, bucket: KeyValue, lost: int = 1_000) -> None:
        self.create, self.get, self.delete = bucket.create, bucket.get, bucket.delete
        self._bucket = bucket
        self._lost = lost
        self.renewed = 0

    async def update(self, key: str, value: bytes, last: int) -> int:
        revision = await self._bucket.update(key, value, last)
        self.renewed += 1
        if self.renewed <= self._lost:
            raise TimeoutError
        return revision


async def test_without_the_bucket_nothing_is_paid(bucket: KeyValue, js: JetStreamContext) -> None:
    await js.delete_stream("KV_CLAIMS")
    with pytest.raises(Outage, match="can't be claimed"):
        async with claims(bucket, "first").claim("f"):
            pass
