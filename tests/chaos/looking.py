"""Looking at a running pipeline from outside: its streams, its probes, the simulator's books."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from nats.js import JetStreamContext
from running_pipeline import Pipeline, Replica, until

from services.cli.accounts.evidence import read_attempts
from services.kernel import topology
from services.kernel.contracts.attempt import Attempt
from services.kernel.contracts.base import Batch
from services.kernel.contracts.batch import BatchOpened
from services.kernel.contracts.term import Priority, TermSubmitted
from services.kernel.errors import PipelineError
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.stream.reading import connected, last_message, subjects_of

T = TypeVar("T")

STAGES = ("stage1", "stage2")
_AT_ONCE = 200


class OpenCall(NamedTuple):
    """A call that is recorded as begun, and not as ended."""

    key: str
    index: int


def on_streams(url: str, look: Callable[[JetStreamContext], Awaitable[T]]) -> T:
    """What `look` gives, on a connection of its own."""

    async def connect_and_look() -> T:
        async with connected(url) as nc:
            return await look(nc.jetstream(timeout=10))

    return asyncio.run(connect_and_look())


def open_batch(url: str, batch: str, expected: int) -> None:
    event = BatchOpened(batch=Batch(batch), expected=expected, opened_at=datetime.now(UTC))
    subject = topology.batch_subject(batch, "opened")
    on_streams(url, lambda js: js.publish(subject, event.to_bytes()))


def publish_terms(
    url: str, batch: str, words: Iterable[str], priority: Priority = "normal"
) -> None:
    """Returns when all of them are acknowledged."""
    subject = topology.submit_subject(batch)

    async def publish(js: JetStreamContext) -> None:
        pending = [_submission(word, priority) for word in words]
        while pending:
            portion, pending = pending[:_AT_ONCE], pending[_AT_ONCE:]
            await asyncio.gather(*(js.publish(subject, body) for body in portion))

    on_streams(url, publish)


def _submission(word: str, priority: Priority) -> bytes:
    if priority == "normal":
        return word.encode()
    return TermSubmitted(term=word, priority=priority).to_bytes()


def submit(url: str, batch: str, words: list[str], priority: Priority = "normal") -> None:
    """The whole batch at once, its end declared."""
    open_batch(url, batch, len(words))
    publish_terms(url, batch, words, priority)


def finished(url: str, batch: str) -> dict[str, int]:
    """The ids on CARDS, each with its count of messages."""
    subjects = topology.finished_subject(batch, "*")
    found = on_streams(url, lambda js: subjects_of(js, topology.CARDS.name, subjects))
    return {subject.rpartition(".")[2]: count for subject, count in found.items()}


def dead(url: str, batch: str) -> set[str]:
    subjects = topology.dead_subject("*", batch, "*")
    found = on_streams(url, lambda js: subjects_of(js, topology.DEAD_LETTERS.name, subjects))
    return {subject.rpartition(".")[2] for subject in found}


def is_listening(pipeline: Pipeline) -> bool:
    """A client can connect and ask."""
    try:
        on_streams(pipeline.nats_url, lambda js: js.account_info())
    except (PipelineError, *NATS_FAULTS):
        return False
    return True


def is_completed(url: str, batch: str) -> bool:
    subject = topology.batch_subject(batch, "completed")
    found = on_streams(url, lambda js: last_message(js, topology.BATCHES.name, subject))
    return found is not None


def wait_until_completed(pipeline: Pipeline, batch: str, *, within_s: float) -> None:
    url = pipeline.nats_url
    until(
        lambda: is_completed(url, batch),
        within_s=within_s,
        what=f"{batch} is complete",
        every_s=0.2,
    )


def attempts(url: str) -> dict[str, tuple[Attempt, ...]]:
    """Every record of the ledger, by its key."""
    histories = on_streams(url, read_attempts)
    return {str(key): history.attempts for key, history in histories.items()}


def open_calls(url: str) -> set[OpenCall]:
    return {
        OpenCall(key, index)
        for key, tried in attempts(url).items()
        for index, attempt in enumerate(tried)
        if attempt.outcome == "started" and attempt.fingerprint is not None
    }


def stored(pipeline: Pipeline, batch: str) -> Counter[str]:
    """The ids in the exporter's store, each with its count of rows."""
    return Counter(id_ for (id_,) in _store_rows(pipeline, "SELECT term_id FROM terms", batch))


def stored_cards(pipeline: Pipeline, batch: str) -> int:
    [(count,)] = _store_rows(pipeline, "SELECT COUNT(*) FROM cards", batch)
    return int(count)


def _store_rows(pipeline: Pipeline, query: str, batch: str) -> list[tuple[str]]:
    path: Path = pipeline.data / "store" / "cards.sqlite"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        return db.execute(f"{query} WHERE batch = ?", (batch,)).fetchall()


def calls_by_term(pipeline: Pipeline, words: Iterable[str]) -> dict[tuple[str, str], int]:
    """(stage, term) with how often the simulator answered it, to a living caller or a dead one."""
    terms = pipeline.simulator()["terms"]
    return {
        (stage, word): terms[stage].get(word, 0)
        for word in words
        for stage in ("analysis", "cards")
    }


class Answer(NamedTuple):
    """What a probe said. A status of None: nobody answered in time."""

    status: int | None
    body: str
    seconds: float


def probe(replica: Replica, path: str, *, within_s: float = 2.0) -> Answer:
    started = time.monotonic()
    status, body = None, ""
    try:
        with urllib.request.urlopen(f"{replica.http_url}{path}", timeout=within_s) as response:
            status, body = response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, error.read().decode()
    except OSError as error:
        body = repr(error)
    return Answer(status, body, time.monotonic() - started)


def is_ready(replica: Replica) -> bool:
    return probe(replica, "/readyz").status == 200


def reasons(replica: Replica) -> dict[str, str]:
    """What /readyz names as down; empty when it is ready or says nothing."""
    answer = probe(replica, "/readyz")
    if answer.status != 503:
        return {}
    named: dict[str, str] = json.loads(answer.body)["dependencies"]
    return {name: reason for name, reason in named.items() if reason != "ok"}


def in_hand(replica: Replica) -> int:
    """Messages that the replica works on at this moment; 0 when it can't be asked."""
    metrics = probe(replica, "/metrics").body
    return int(_sample(metrics, "cardflow_messages_in_progress") or 0)


def blocked(replica: Replica) -> int:
    """How often the replica's event loop woke up more than a second late."""
    metrics = probe(replica, "/metrics").body
    within = _sample(metrics, "cardflow_event_loop_lag_seconds_bucket", 'le="1.0"')
    ever = _sample(metrics, "cardflow_event_loop_lag_seconds_count")
    assert within is not None, f"{replica.label} does not measure its event loop"
    return int((ever or 0) - within)


def _sample(metrics: str, name: str, label: str = "") -> float | None:
    """The value of the first sample of that name with that label; None without one."""
    pattern = rf"^{name}\{{[^}}]*{re.escape(label)}[^}}]*\}} (\S+)$"
    found = re.search(pattern, metrics, re.MULTILINE)
    return float(found[1]) if found else None


def in_hand_of_stages(pipeline: Pipeline) -> int:
    return sum(in_hand(r) for r in pipeline.replicas() if r.name in STAGES)


def is_working(replica: Replica) -> bool:
    with suppress(OSError):
        return in_hand(replica) > 0
    return False
