"""The pipeline's steps taken one by one on a real server, so that a test says how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from click.testing import Result
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from typer.testing import CliRunner

from services.cli.main import cli
from services.ingest.handler import accepted_term, identify_submission, read_submission
from services.kernel import topology
from services.kernel.contracts.attempt import AttemptHistory
from services.kernel.contracts.base import Batch
from services.kernel.contracts.batch import BatchCompleted, BatchOpened, BatchProgress
from services.kernel.contracts.card import CardsFinished
from services.kernel.contracts.identity import term_id
from services.kernel.errors import TermRefused
from services.kernel.stream.dead_letters import dead_letter, subject_of
from services.kernel.stream.incoming import read_delivery
from services.kernel.stream.outgoing import Publisher

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


async def cardflow(*arguments: str, input: str | None = None) -> Result:  # noqa: A002
    """The command, in a thread of its own: it brings its own event loop."""
    return await asyncio.to_thread(CliRunner().invoke, cli, list(arguments), input=input)


async def until(condition: Callable[[], Awaitable[bool]], *, within_s: float = 20) -> None:
    """Polls the condition to its deadline."""
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def submissions(js: JetStreamContext) -> list[RawStreamMsg]:
    """Everything on SUBMISSIONS, in order."""
    state = (await js.stream_info(topology.SUBMISSIONS.name)).state
    sequences = range(state.first_seq, state.last_seq + 1)
    return [await js.get_msg(topology.SUBMISSIONS.name, seq=sequence) for sequence in sequences]


async def opened(js: JetStreamContext, batch: str) -> BatchOpened:
    subject = topology.batch_subject(batch, "opened")
    message = await js.get_last_msg(topology.BATCHES.name, subject)
    return BatchOpened.model_validate_json(message.data or b"")


async def open_batch(js: JetStreamContext, batch: str, expected: int) -> None:
    event = BatchOpened(batch=Batch(batch), expected=expected, opened_at=NOON)
    await js.publish(topology.batch_subject(batch, "opened"), event.to_bytes())


async def ingest(js: JetStreamContext, count: int) -> None:
    """Does ingest's work on the next submissions."""
    consumer = await js.pull_subscribe_bind("ingest", stream=topology.SUBMISSIONS.name)
    done = 0
    while done < count:
        for message in await consumer.fetch(count - done, timeout=10):
            incoming = read_delivery(message)
            try:
                submission = read_submission(incoming.subject, incoming.data)
            except TermRefused as error:
                letter = dead_letter(
                    "ingest",
                    incoming,
                    identify_submission(incoming),
                    reason=error.reason,
                    error=error,
                    history=AttemptHistory(),
                )
                await js.publish(subject_of(letter), letter.to_bytes())
            else:
                event = accepted_term(submission, incoming, position=1)
                # Accepted before, it counts as done.
                await Publisher(js, timeout_s=5).publish(
                    topology.accepted_subject(event.batch, event.term_id), event.to_bytes()
                )
            await message.ack_sync()
            done += 1
    await consumer.unsubscribe()


async def finish(js: JetStreamContext, batch: str, *terms: str, **values: Any) -> None:
    """Does the work of both stages on these terms."""
    for term in terms:
        event = cards_finished(batch, term, **values)
        await js.publish(topology.analyzed_subject(batch, event.term_id), b"{}")
        await js.publish(topology.finished_subject(batch, event.term_id), event.to_bytes())


async def report(
    js: JetStreamContext, batch: str, *, finished: int, dead: int = 0, cancelled: int = 0
) -> None:
    """Does what the exporter does with the progress of a batch."""
    ended = finished + dead + cancelled
    figures = {"cancelled": cancelled, "current": ended, "total": ended}
    event = _progress(BatchProgress, batch, finished, dead, **figures)
    await js.publish(topology.batch_subject(batch, "progress"), event.to_bytes())


async def complete(js: JetStreamContext, batch: str, *, finished: int) -> None:
    event = _progress(BatchCompleted, batch, finished, 0, duration_s=1.0)
    await js.publish(topology.batch_subject(batch, "completed"), event.to_bytes())


def _progress(
    kind: type[BatchProgress], batch: str, finished: int, dead: int, **more: Any
) -> BatchProgress:
    return kind.model_validate(
        {
            "batch": batch,
            "current": finished + dead,
            "total": finished + dead,
            "progress": 1,
            "finished": finished,
            "dead": dead,
            "cached": 1,
            "calls": 2 * finished,
            "cost_usd": Decimal("0.25"),
            "at": NOON,
            **more,
        }
    )


def cards_finished(batch: str, term: str, **values: Any) -> CardsFinished:
    """The event of a finished term; everything that is not named has a fixed value."""
    stage = {
        "model": "test/model",
        "provider": "simulated",
        "fingerprint": "f" * 64,
        "prompt_version": "1",
        "cached": False,
        "attempts": 1,
        "calls": 1,
        "usage": {},
        "cost_usd": "0.00006",
        "started_at": NOON,
        "finished_at": NOON,
    }
    cards = [
        {
            "position": position,
            "term": f"{term}[tɕʰɛk̚]",
            "term_number": 1,
            "tab_name": tab_name,
            "primer": "You enter the room.",
            "front": "What lies on the desk?",
            "back": "A book.",
            "tags": ["pos:noun"],
        }
        for position, tab_name in enumerate(("Scene", "Hanja"), start=1)
    ]
    analysis = {
        "term_number": 1,
        "term": f"{term}[tɕʰɛk̚]",
        "ipa": "[tɕʰɛk̚]",
        "pos": "noun",
        "primary_meaning": "book",
        "metaphor": "a door of paper",
        "metaphor_noun": "door",
        "metaphor_action": "opens",
        "suggested_location": "desk",
        "anchor_object": "lamp",
        "anchor_sensory": "smell of paper",
        "explanation": "Pages open like doors.",
        "korean_keywords": [term],
    }
    defaults = {
        "batch": batch,
        "term_id": term_id(term, None),
        "term": term,
        "position": 1,
        "deck": batch,
        "pos": "noun",
        "analysis": analysis,
        "cards": cards,
        "stage1": stage,
        "stage2": stage,
        "submitted_at": NOON,
        "finished_at": NOON,
    }
    return CardsFinished.model_validate({**defaults, **values})
