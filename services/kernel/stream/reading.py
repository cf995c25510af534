"""Reading the streams as a whole: counts by subject, all messages of a filter, following on.

Nothing is stored for a batch's status: it is what the streams hold.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RawStreamMsg
from nats.js.errors import NotFoundError

from services.kernel import topology
from services.kernel.errors import SettingsError
from services.kernel.nats_faults import NATS_FAULTS

_FETCH = 256
_FETCH_S = 2.0
_LIVE_S = 0.25
"""How long a card may wait for company before a follower sees it."""
_CONNECT_S = 3
_FORGOTTEN_S = 300.0


@asynccontextmanager
async def connected(url: str, *, name: str = "cardflow-cli") -> AsyncIterator[Client]:
    """A connection for a command: fails at once when there is no server. Raises SettingsError.

    Once it stands it is made again when it breaks.
    """
    servers = url.split(",")
    faults = 0
    greeted = False

    async def on_error(error: Exception) -> None:
        """Ends the first round through the servers; later the command's own call raises."""
        nonlocal faults
        faults += 1
        if not greeted and faults >= len(servers):
            raise error

    try:
        nc = await nats.connect(
            servers,
            name=name,
            connect_timeout=_CONNECT_S,
            allow_reconnect=True,
            max_reconnect_attempts=5,
            error_cb=on_error,
        )
        greeted = True
    except NATS_FAULTS as error:
        raise SettingsError(
            f"no NATS server at {url} ({type(error).__name__}); start `cardflow up`, or name the "
            "right one with --data DIR or --nats URL"
        ) from error
    try:
        yield nc
    finally:
        await nc.close()


async def subjects_of(js: JetStreamContext, stream: str, subject_filter: str) -> dict[str, int]:
    """Each subject under the filter with its count of messages; empty without the stream.

    The server answers with at most 100,000 subjects a page, and the client asks for one page only.
    """
    subjects: dict[str, int] = {}
    while True:
        request = json.dumps({"subjects_filter": subject_filter, "offset": len(subjects)}).encode()
        try:
            answer = await js._api_request(f"{js._prefix}.STREAM.INFO.{stream}", request)  # noqa: SLF001
        except NotFoundError:
            return {}
        page: dict[str, int] = answer["state"].get("subjects") or {}
        subjects |= page
        if not page or len(subjects) >= answer.get("total", 0):
            return subjects


async def messages_of(js: JetStreamContext, stream: str, subject_filter: str) -> AsyncIterator[Msg]:
    """Every message under the filter that the stream holds now, in order; none without the stream.

    A page of them is in memory at a time.
    """
    async with AsyncExitStack() as resources:
        try:
            subscription = await resources.enter_async_context(
                _subscribed(js, stream, subject_filter, DeliverPolicy.ALL)
            )
        except NotFoundError:
            return
        if not (await subscription.consumer_info()).num_pending:
            return
        while True:
            try:
                messages = await subscription.fetch(_FETCH, timeout=_FETCH_S)
            except TimeoutError:  # The client raises its own and the plain one.
                if not (await subscription.consumer_info()).num_pending:
                    return  # What was counted has been removed meanwhile.
                continue
            for message in messages:
                yield message
                if not message.metadata.num_pending:
                    return


async def follow(
    js: JetStreamContext, stream: str, subject_filter: str, *, from_start: bool
) -> AsyncGenerator[Msg]:
    """The messages under the filter as they come, for ever."""
    policy = DeliverPolicy.ALL if from_start else DeliverPolicy.NEW
    async with _subscribed(js, stream, subject_filter, policy) as subscription:
        while True:
            with suppress(TimeoutError):
                for message in await subscription.fetch(_FETCH, timeout=_LIVE_S):
                    yield message


@asynccontextmanager
async def _subscribed(
    js: JetStreamContext, stream: str, subject_filter: str, policy: DeliverPolicy
) -> AsyncIterator[JetStreamContext.PullSubscription]:
    """A consumer for this reader alone; the server forgets it some minutes after."""
    subscription = await js.pull_subscribe(
        subject_filter,
        stream=stream,
        config=ConsumerConfig(
            deliver_policy=policy, ack_policy=AckPolicy.NONE, inactive_threshold=_FORGOTTEN_S
        ),
    )
    try:
        yield subscription
    finally:
        with suppress(*NATS_FAULTS):  # The connection may be closed before a reader is.
            await subscription.unsubscribe()


async def last_stored(js: JetStreamContext, stream: str, subject: str) -> RawStreamMsg | None:
    """The newest message on a subject as its stream holds it, or None."""
    try:
        return await js.get_last_msg(stream, subject, direct=True)
    except NotFoundError:
        return None


async def last_message(js: JetStreamContext, stream: str, subject: str) -> bytes | None:
    """What the newest message on a subject says, or None."""
    stored = await last_stored(js, stream, subject)
    return None if stored is None else stored.data


@dataclass(frozen=True)
class BatchCounts:
    """Where a batch's terms are. `refused` are the dead letters of ingest, `dead_later` all others.

    `ingested`: ingest has dealt with every submission of the batch. `cancelled` are accepted terms
    that nothing more is spent on.
    """

    submitted: int
    accepted: int
    analyzed: int
    finished: int
    refused: int
    dead_later: int
    ingested: bool
    cancelled: int = 0

    @property
    def ended(self) -> int:
        return self.finished + self.dead + self.cancelled

    @property
    def dead(self) -> int:
        return self.refused + self.dead_later

    @property
    def in_flight(self) -> int:
        return max(0, self.accepted - self.finished - self.dead_later - self.cancelled)

    @property
    def total(self) -> int:
        """Terms that the batch has: until all is ingested, what was submitted stands in."""
        known = self.accepted + self.refused
        return known if self.ingested else max(known, self.submitted)

    @property
    def settled(self) -> bool:
        return self.ingested and self.in_flight == 0


async def count_batch(js: JetStreamContext, batch: str) -> BatchCounts:
    """Counts a batch from the streams.

    Each figure is exact; together they are a moment apart, read in the order in which no term can
    seem to have ended that has not: what comes first in a term's walk is counted last.
    Raises NotFoundError while a stream is missing: without it terms would seem to have ended.
    """
    await _need_streams(js)
    submitted = await _submissions(js, batch)
    ingested = await _ingested(js, list(submitted))
    finished = await subjects_of(js, topology.CARDS.name, f"cards.finished.{batch}.*")
    dead = await subjects_of(js, topology.DEAD_LETTERS.name, f"dead.*.{batch}.*")
    cancelled = await subjects_of(js, topology.DEAD_LETTERS.name, f"cancelled.*.{batch}.*")
    analyzed = await subjects_of(js, topology.ANALYSES.name, f"terms.analyzed.{batch}.*")
    accepted = await subjects_of(js, topology.TERMS.name, f"terms.accepted.{batch}.*")
    refused = sum(subject.startswith("dead.ingest.") for subject in dead)
    unstored = sum(subject.startswith("dead.exporter.") for subject in dead)
    return BatchCounts(
        submitted=sum(submitted.values()),
        accepted=len(accepted),
        analyzed=len(analyzed),
        finished=len(finished) - unstored,
        refused=refused,
        dead_later=len(dead) - refused,
        ingested=ingested,
        cancelled=len(cancelled),
    )


async def _need_streams(js: JetStreamContext) -> None:
    answer = await js._api_request(f"{js._prefix}.STREAM.NAMES", b'{"offset": 0}')  # noqa: SLF001
    if missing := {s.name for s in topology.STREAMS} - set(answer.get("streams") or ()):
        raise NotFoundError(description=f"missing: {', '.join(sorted(missing))}")


def submission_subjects(batch: str) -> list[str]:
    """Where a batch's submissions stand; the default batch has two names."""
    subjects = [topology.submit_subject(batch)]
    return ["terms.submit", *subjects] if batch == topology.DEFAULT_BATCH else subjects


async def _submissions(js: JetStreamContext, batch: str) -> dict[str, int]:
    counted: dict[str, int] = {}
    for subject in submission_subjects(batch):
        counted |= await subjects_of(js, topology.SUBMISSIONS.name, subject)
    return counted


async def _ingested(js: JetStreamContext, subjects: list[str]) -> bool:
    """True when ingest's ack floor has passed the batch's last submission."""
    try:
        consumer = await js.consumer_info(topology.SUBMISSIONS.name, "ingest")
    except NotFoundError:
        return False
    floor = consumer.ack_floor.stream_seq if consumer.ack_floor else 0
    for subject in subjects:
        last = await js.get_last_msg(topology.SUBMISSIONS.name, subject, direct=True)
        if (last.seq or 0) > floor:
            return False
    return True
