"""Making the streams, consumers and buckets as the topology says, and reporting what differs.

The only place that creates any of them. Running it again changes nothing; a changed bound is
brought up to date; what can't be changed on a living stream is reported and left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import NotFoundError

from services.kernel import topology
from services.kernel.settings import NatsSettings

_DAY_S = 86_400.0
_DUPLICATE_WINDOW_S = 120.0
_MAX_ACK_PENDING = 2_000
"""Above 1.2 × concurrency × replicas of any stage that fits on one machine."""


@dataclass(frozen=True)
class Drift:
    """One thing that is not as the topology says. `found` of None: it does not exist."""

    kind: str
    name: str
    setting: str
    wanted: Any
    found: Any
    changed: bool

    def __str__(self) -> str:
        if self.setting == "exists":
            return f"{self.kind} {self.name}: {'created' if self.changed else 'missing'}"
        done = "changed to" if self.changed else "should be"
        return f"{self.kind} {self.name}: {self.setting} is {self.found}, {done} {self.wanted}"


def stream_config(stream: topology.Stream, settings: NatsSettings) -> StreamConfig:
    return StreamConfig(
        name=stream.name,
        subjects=list(stream.subjects),
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        discard_new_per_subject=stream.first_write_wins,
        max_msgs_per_subject=1 if stream.first_write_wins or stream.latest_only else -1,
        max_bytes=settings.stream_max_mib * topology.MIB,
        max_msg_size=stream.max_message_bytes,
        max_age=settings.max_age_days * _DAY_S,
        duplicate_window=_DUPLICATE_WINDOW_S,
        num_replicas=settings.replicas,
        allow_direct=True,
    )


def bucket_config(bucket: topology.Bucket, settings: NatsSettings) -> StreamConfig:
    """A KV bucket is a stream of this form; written out, so that drift in it is seen too."""
    lifetime_s = {
        "forever": 0.0,
        "batch": settings.max_age_days * _DAY_S,
        "claim": settings.ack_wait_s,
    }[bucket.lifetime]
    return StreamConfig(
        name=f"KV_{bucket.name}",
        description=bucket.purpose,
        subjects=[f"$KV.{bucket.name}.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        max_msgs_per_subject=1,
        max_bytes=settings.stream_max_mib * topology.MIB,
        max_age=lifetime_s,
        # The server wants it no longer than the age.
        duplicate_window=min(_DUPLICATE_WINDOW_S, lifetime_s or _DUPLICATE_WINDOW_S),
        num_replicas=settings.replicas,
        allow_direct=True,
        allow_rollup_hdrs=True,
        deny_delete=True,
    )


def consumer_config(consumer: topology.Consumer, settings: NatsSettings) -> ConsumerConfig:
    """Server redelivery is unlimited: past a server limit a message just stays, unseen."""
    stream = next(s for s in topology.STREAMS if s.name == consumer.stream)
    return ConsumerConfig(
        name=consumer.durable,
        durable_name=consumer.durable,
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=settings.ack_wait_s,
        max_deliver=-1,
        max_ack_pending=_MAX_ACK_PENDING,
        filter_subjects=list(stream.subjects),
    )


async def provision(
    js: JetStreamContext, settings: NatsSettings, *, check_only: bool = False
) -> list[Drift]:
    """Everything that differed. With `check_only` nothing is changed."""
    drifts: list[Drift] = []
    streams = [("stream", stream_config(s, settings)) for s in topology.STREAMS]
    buckets = [("bucket", bucket_config(b, settings)) for b in topology.BUCKETS]
    for kind, wanted in [*streams, *buckets]:
        drifts += await _provision_stream(js, kind, wanted, check_only=check_only)
    for consumer in topology.CONSUMERS.values():
        drifts += await _provision_consumer(js, consumer, settings, check_only=check_only)
    return drifts


async def _provision_stream(
    js: JetStreamContext, kind: str, wanted: StreamConfig, *, check_only: bool
) -> list[Drift]:
    name = wanted.name or ""
    try:
        found = (await js.stream_info(name)).config
    except NotFoundError:
        if not check_only:
            await js.add_stream(wanted)
        return [Drift(kind, name, "exists", True, None, changed=not check_only)]
    differing = _differing(wanted, found)
    if differing and not check_only:
        await js.update_stream(wanted)
    return [
        Drift(kind, name, setting, new, old, changed=not check_only)
        for setting, new, old in differing
    ]


async def _provision_consumer(
    js: JetStreamContext,
    consumer: topology.Consumer,
    settings: NatsSettings,
    *,
    check_only: bool,
) -> list[Drift]:
    wanted = consumer_config(consumer, settings)
    try:
        found = (await js.consumer_info(consumer.stream, consumer.durable)).config
    except NotFoundError:
        if not check_only:
            await js.add_consumer(consumer.stream, wanted)
        return [Drift("consumer", consumer.durable, "exists", True, None, changed=not check_only)]
    differing = _differing(wanted, found)
    if differing and not check_only:
        await js.add_consumer(consumer.stream, wanted)
    return [
        Drift("consumer", consumer.durable, setting, new, old, changed=not check_only)
        for setting, new, old in differing
    ]


def _differing(wanted: Any, found: Any) -> list[tuple[str, Any, Any]]:
    """(setting, wanted, found) of what the topology names; what it leaves open is not compared."""
    differing = []
    for setting, value in vars(wanted).items():
        actual = getattr(found, setting)
        if value is None or _same(value, actual):
            continue
        differing.append((setting, value, actual))
    return differing


def _same(wanted: Any, found: Any) -> bool:
    if found is None:  # The server leaves out what is false, zero or empty.
        return not wanted or wanted == -1
    if isinstance(wanted, list):
        return sorted(wanted) == sorted(found)
    return bool(wanted == found)
