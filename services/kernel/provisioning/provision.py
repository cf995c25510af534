"""Making the streams, consumers and buckets as the topology says, and reporting what differs.

The only place that creates any of them. Running it again changes nothing; a changed bound is
brought up to date; what can't be changed on a living stream is reported and left alone. A stream
that was lost and that another one determines is filled again from that one: its feeder's consumer
is made anew, so that everything is delivered again, and found in the cache.
"""

from __future__ import annotations

from collections.abc import Set
from contextlib import suppress

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
from services.kernel.provisioning.altering import update_consumer, update_stream
from services.kernel.provisioning.drift import Drift, differing
from services.kernel.provisioning.losses import consequence, feeders_of
from services.kernel.settings import NatsSettings

_DAY_S = 86_400.0
_DUPLICATE_WINDOW_S = 120.0
_MAX_ACK_PENDING = 20_000
"""Terms that wait to be tried again count, too: those of a batch over its budget above all, which
must not keep other batches from being delivered."""


def stream_config(stream: topology.Stream, settings: NatsSettings) -> StreamConfig:
    return StreamConfig(
        name=stream.name,
        subjects=list(stream.subjects),
        retention=RetentionPolicy.WORK_QUEUE if stream.until_acked else RetentionPolicy.LIMITS,
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
    return ConsumerConfig(
        name=consumer.durable,
        durable_name=consumer.durable,
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=settings.ack_wait_s,
        max_deliver=-1,
        max_ack_pending=_MAX_ACK_PENDING,
        filter_subjects=list(consumer.subjects),
    )


async def provision(
    js: JetStreamContext,
    settings: NatsSettings,
    *,
    check_only: bool = False,
    only: Set[str] | None = None,
    bounds: bool = True,
) -> list[Drift]:
    """Everything that differed. With `check_only` nothing is changed.

    `only`: names of the streams (a bucket's begins with KV_) and consumers to look at; all when
    None. `bounds` of False leaves alone what is not serious: bounds that somebody else may have
    chosen. May be interrupted anywhere, and run by several at once: the next run completes it.
    """
    streams = [("stream", stream_config(s, settings)) for s in topology.STREAMS]
    buckets = [("bucket", bucket_config(b, settings)) for b in topology.BUCKETS]
    looked_at = [
        (kind, config, await _found_stream(js, config.name or ""))
        for kind, config in [*streams, *buckets]
        if only is None or config.name in only
    ]
    consumers = [
        (consumer, service, await _found_consumer(js, consumer))
        for service in topology.SERVICES
        for consumer in topology.consumers_of(service)
        if only is None or consumer.durable in only
    ]
    pauses = {c.durable: state.pause_until for c, _, state in consumers if state is not None}
    is_new = not any(found for _, _, found in looked_at)
    missing = {config.name or "" for _, config, found in looked_at if found is None}
    lost = frozenset() if is_new else frozenset(missing)
    drifts: list[Drift] = []
    for kind, config, found in looked_at:
        if found is None:
            drifts.append(await _create_stream(js, kind, config, lost, check_only=check_only))
        else:
            drifts += await _compare_stream(
                js, kind, config, found, bounds=bounds, check_only=check_only
            )
    remade = {feeder.durable for name in lost for feeder in feeders_of(name, lost)}
    for consumer, service, state in consumers:
        # Made anew it stays paused; a lane is paused with its service.
        pause_until = pauses.get(consumer.durable, pauses.get(service))
        wanted = consumer_config(consumer, settings).evolve(pause_until=pause_until)
        if state is None or (consumer.durable in remade and not check_only):
            drifts.append(
                await _create_consumer(js, consumer, wanted, state, check_only=check_only)
            )
        else:
            drifts += await _compare_consumer(
                js, consumer, wanted, state, bounds=bounds, check_only=check_only
            )
    return drifts


async def _found_stream(js: JetStreamContext, name: str) -> StreamConfig | None:
    try:
        return (await js.stream_info(name)).config
    except NotFoundError:
        return None


async def _found_consumer(
    js: JetStreamContext, consumer: topology.Consumer
) -> ConsumerConfig | None:
    try:
        info = await js.consumer_info(consumer.stream, consumer.durable)
    except NotFoundError:
        return None
    found: ConsumerConfig = info.config
    return found


async def _create_stream(
    js: JetStreamContext,
    kind: str,
    wanted: StreamConfig,
    lost: frozenset[str],
    *,
    check_only: bool,
) -> Drift:
    """Creates a stream or bucket, empty, and sees to it that it is filled again where it can be.

    The consumers that feed it are deleted before: however this ends, they are then missing, are
    made again, and deliver everything.
    """
    name = wanted.name or ""
    if not check_only:
        for feeder in feeders_of(name, lost):
            with suppress(NotFoundError):
                await js.delete_consumer(feeder.stream, feeder.durable)
        await js.add_stream(wanted)
    note = consequence(name, lost)
    return Drift(kind, name, "exists", True, None, changed=not check_only, note=note)


async def _compare_stream(
    js: JetStreamContext,
    kind: str,
    wanted: StreamConfig,
    found: StreamConfig,
    *,
    bounds: bool,
    check_only: bool,
) -> list[Drift]:
    changes = differing(wanted, found, bounds=bounds)
    refusals: dict[str, str] = {}
    if changes and not check_only:
        refusals = await update_stream(js, found, {name: new for name, new, _ in changes})
    return [
        Drift(
            kind,
            wanted.name or "",
            setting,
            new,
            old,
            changed=not check_only and setting not in refusals,
            note=refusals.get(setting, ""),
        )
        for setting, new, old in changes
    ]


async def _create_consumer(
    js: JetStreamContext,
    consumer: topology.Consumer,
    wanted: ConsumerConfig,
    before: ConsumerConfig | None,
    *,
    check_only: bool,
) -> Drift:
    """`before`: as it was when it was deleted to fill a stream again."""
    if not check_only:
        await js.add_consumer(consumer.stream, wanted)
    note = "" if before is None else "made anew, it delivers everything on its stream again"
    return Drift(
        "consumer", consumer.durable, "exists", True, None, changed=not check_only, note=note
    )


async def _compare_consumer(
    js: JetStreamContext,
    consumer: topology.Consumer,
    wanted: ConsumerConfig,
    found: ConsumerConfig,
    *,
    bounds: bool,
    check_only: bool,
) -> list[Drift]:
    changes = differing(wanted, found, bounds=bounds)
    note = ""
    if changes and not check_only:
        names = {name for name, _, _ in changes}
        kept = {name: old for name, _, old in differing(wanted, found) if name not in names}
        note = await update_consumer(js, consumer, wanted.evolve(**kept))
    return [
        Drift("consumer", consumer.durable, setting, new, old, changed=not check_only, note=note)
        for setting, new, old in changes
    ]
