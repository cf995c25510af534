"""ingest: SUBMISSIONS → TERMS. Composition only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from services.ingest.handler import AcceptTerms, FirstSequence, identify_submission
from services.kernel import topology
from services.kernel.app import Service, service_app
from services.kernel.connected import Connected
from services.kernel.errors import Outage
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.settings import KernelSettings, load_settings
from services.kernel.stream.checkpoint import Checkpoint
from services.kernel.stream.delivery import Handler

_AT_ONCE = 100


def first_sequences(js: JetStreamContext) -> FirstSequence:
    """Remembers, per subject, where its first message stands."""
    known: dict[str, int] = {}

    async def first_sequence(subject: str) -> int:
        if subject not in known:
            try:
                first = await js.get_msg(
                    topology.SUBMISSIONS.name, seq=1, subject=subject, next=True, direct=True
                )
            except NotFoundError:
                return 1
            except NATS_FAULTS as error:
                raise Outage(f"the order of arrival can't be read: {error!r}") from error
            known[subject] = first.seq or 1
        return known[subject]

    return first_sequence


@asynccontextmanager
async def _open_handler(connected: Connected) -> AsyncIterator[Handler]:
    yield AcceptTerms(first_sequences(connected.js))


app = service_app(
    Service(
        name="ingest",
        open_handler=_open_handler,
        next_checkpoint=lambda js: Checkpoint(js, topology.TERMS.name, topology.accepted_subject),
        concurrency=_AT_ONCE,
        fetch_size=_AT_ONCE,
        identify=identify_submission,
    ),
    load_settings(KernelSettings),
)
