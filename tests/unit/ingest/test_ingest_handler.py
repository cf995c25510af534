"""Ingest from a submission to the accepted term that it publishes."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from term_samples import NOON, incoming

from services.ingest.handler import (
    AcceptTerms,
    accepted_term,
    batch_of,
    identify_submission,
    read_submission,
)
from services.kernel import topology
from services.kernel.contracts.identity import refusal_id, term_id
from services.kernel.contracts.term import POSITION_MAX, Revision, TermAccepted
from services.kernel.errors import TermRefused


class Sequences:
    """The first message of each subject, and who asked for it."""

    def __init__(self, first: int = 5) -> None:
        self.first = first
        self.asked: list[str] = []

    async def __call__(self, subject: str) -> int:
        self.asked.append(subject)
        return self.first


async def accepted(
    payload: bytes | dict[str, Any],
    *,
    subject: str = "terms.submit.b1",
    sequence: int = 7,
    sequences: Sequences | None = None,
) -> TermAccepted:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    handler = AcceptTerms(sequences or Sequences())
    outgoing = await handler(incoming(subject, data, sequence=sequence), None)
    event = TermAccepted.model_validate_json(outgoing.body)
    assert outgoing.subject == f"terms.accepted.{event.batch}.{event.term_id}"
    return event


async def test_a_bare_term_is_accepted_into_its_batch() -> None:
    assert await accepted("책".encode()) == TermAccepted(
        batch="b1",
        term_id=term_id("책", None),
        term="책",
        position=3,
        deck="b1",
        sequence=7,
        submitted_at=NOON,
    )


async def test_all_that_was_said_is_kept() -> None:
    said = {
        "term": "배1 (pear)",
        "position": 12,
        "type": "Noun",
        "deck": " Fruit ",
        "priority": "bulk",
        "hint": "sweet",
        "level": 1,
    }
    event = await accepted(said)
    assert (event.term, event.homonym) == ("배", 1)
    assert (event.position, event.type, event.deck) == (12, "noun", "Fruit")
    assert (event.priority, event.hint) == ("bulk", "sweet; pear")
    assert event.term_id == term_id("배", 1)


async def test_a_type_that_is_no_part_of_speech_is_kept_as_a_hint() -> None:
    event = await accepted({"term": "책", "type": "TOPIK 1"})
    assert (event.type, event.hint) == (None, "TOPIK 1")


@pytest.mark.parametrize("deck", [None, "  "])
async def test_the_deck_is_the_batchs_without_a_name_of_its_own(deck: str | None) -> None:
    assert (await accepted({"term": "책", "deck": deck}, subject="terms.submit.b2")).deck == "b2"


async def test_spellings_of_one_term_are_one_term() -> None:
    ids = {
        (await accepted(spelling.encode())).term_id for spelling in ("책", " 책 ", "1. 책", "책")
    }
    assert len(ids) == 1


# Positions


async def test_a_position_that_was_sent_is_taken_without_asking_for_the_order() -> None:
    sequences = Sequences()
    assert (await accepted({"term": "책", "position": 9}, sequences=sequences)).position == 9
    assert sequences.asked == []


@pytest.mark.parametrize(
    ("sequence", "first", "position"), [(5, 5, 1), (7, 5, 3), (1_000_004, 5, 1_000_000), (3, 5, 1)]
)
async def test_without_a_position_the_order_of_arrival_in_the_batch_counts(
    sequence: int, first: int, position: int
) -> None:
    sequences = Sequences(first)
    event = await accepted("책".encode(), sequence=sequence, sequences=sequences)
    assert (event.position, event.sequence) == (position, sequence)
    assert sequences.asked == ["terms.submit.b1"]


async def test_a_redelivery_gives_the_same_event() -> None:
    one = await accepted({"term": "책"}, sequence=9)
    assert await accepted({"term": "책"}, sequence=9) == one


# Batches

BATCHES = {
    "terms.submit": "default",
    "terms.submit.b1": "b1",
    "terms.submit.TOPIK_1-2026": "TOPIK_1-2026",
    f"terms.submit.{'x' * 64}": "x" * 64,
}


@pytest.mark.parametrize(("subject", "batch"), BATCHES.items(), ids=BATCHES)
async def test_the_subject_names_the_batch(subject: str, batch: str) -> None:
    assert batch_of(subject) == batch
    assert (await accepted("책".encode(), subject=subject)).batch == batch


BAD_BATCHES = ["a.b", "책", "-a", "_a", "a b", "a*", "a>", "x" * 65, ""]


@pytest.mark.parametrize("name", BAD_BATCHES)
async def test_a_subject_with_no_batch_name_is_refused(name: str) -> None:
    with pytest.raises(TermRefused) as raised:
        await accepted("책".encode(), subject=f"terms.submit.{name}")
    assert (raised.value.field, raised.value.reason) == ("batch", "bad_batch_name")
    assert repr(name) in str(raised.value)


def test_a_submission_is_known_by_its_batch_and_its_bytes() -> None:
    one = identify_submission(incoming("terms.submit.b1", b"\xff"))
    assert (one.batch, one.id) == ("b1", refusal_id(b"\xff"))
    assert identify_submission(incoming("terms.submit.b1", b"\xfe")).id != one.id
    assert identify_submission(incoming("terms.submit", b"\xff")).batch == "default"
    unreadable = identify_submission(incoming("terms.submit.a.b", b"\xff"))
    assert unreadable.batch == topology.UNREADABLE_BATCH


# Refusals

REFUSED: dict[str, tuple[bytes, str, str]] = {
    "nothing": (b"", "term", "empty"),
    "blanks": (b" \n ", "term", "empty"),
    "an empty term": (b'{"term": ""}', "term", "empty"),
    "an array of terms": ('["책", "물"]'.encode(), "term", "empty"),
    "no Hangul": (b"book", "term", "not_korean"),
    "a number": (b"42", "term", "not_korean"),
    "NUL": ("책\x00".encode(), "term", "control_character"),
    "NUL in JSON": (b'{"term": "\\ucc45\\u0000"}', "term", "control_character"),
    "half a surrogate pair": (b'"\\ud800"', "term", "control_character"),
    "half a surrogate pair in a field": (b'{"term": "\\ud800"}', "term", "broken_text"),
    "half a pair as type": (b'{"term": "\\ucc45", "type": "\\ud800"}', "type", "broken_text"),
    "half a pair as deck": (b'{"term": "\\ucc45", "deck": "\\ud800"}', "deck", "broken_text"),
    "half a pair as hint": (b'{"term": "\\ucc45", "hint": "\\ud800"}', "hint", "broken_text"),
    "a list in one message": ("책\n물\n불".encode(), "term", "control_character"),
    "markup": ("<b>책</b>".encode(), "term", "markup"),
    "a long term": ("책".encode() * 101, "term", "too_long"),
    "no UTF-8": (b"\xff\xfe", "payload", "not_utf8"),
    "no JSON": (b"{", "payload", "not_json"),
}


@pytest.mark.parametrize(("payload", "named", "reason"), REFUSED.values(), ids=REFUSED)
async def test_a_refusal_names_the_field_and_the_reason(
    payload: bytes, named: str, reason: str
) -> None:
    with pytest.raises(TermRefused) as raised:
        await accepted(payload)
    assert (raised.value.field, raised.value.reason) == (named, reason)
    assert str(raised.value).encode()


async def test_fields_that_are_left_out_are_logged_by_name_and_without_values() -> None:
    with capture_logs() as logs:
        await accepted({"term": "책", "tags": "secret", "level": 1})
    assert [(log["event"], log["fields"]) for log in logs] == [
        ("fields.ignored", ["level", "tags"])
    ]
    assert "secret" not in repr(logs)


async def test_no_more_than_twenty_such_names_are_logged() -> None:
    with capture_logs() as logs:
        await accepted({"term": "책", **{f"field{n}": n for n in range(100)}})
    (log,) = logs
    assert len(log["fields"]) == 20


# Revisions

REVISION: dict[str, Any] = {"revises": "b1", "number": 2, "source": "b1", "stage": 2}


async def test_a_term_of_a_revision_keeps_what_it_revises() -> None:
    said = {"term": "책", "position": 4, "revision": {**REVISION, "model": "vendor/m"}}
    event = await accepted(said, subject="terms.submit.b1-r2")
    assert event.batch == "b1-r2"
    assert event.revision == Revision.model_validate({**REVISION, "model": "vendor/m"})


BAD_REVISIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no batch is revised": ({"revises": "b 1"}, "revision.revises", "bad_batch_name"),
    "the source is no batch": ({"source": "a.b.*"}, "revision.source", "bad_batch_name"),
    "the source is half a pair": ({"source": "\ud800"}, "revision.source", "broken_text"),
    "the model is half a pair": ({"model": "\ud800"}, "revision.model", "broken_text"),
    "another batch is revised": ({"revises": "b2"}, "revision", "wrong_batch"),
    "another number": ({"number": 3}, "revision", "wrong_batch"),
    "the number of the batch itself": ({"number": 1}, "revision.number", "invalid_field"),
    "a number that no store holds": ({"number": 2**31}, "revision.number", "invalid_field"),
    "no such stage": ({"stage": 3}, "revision.stage", "invalid_field"),
    "a model without a name": ({"model": ""}, "revision.model", "invalid_field"),
}


@pytest.mark.parametrize(
    ("values", "named", "reason"), BAD_REVISIONS.values(), ids=BAD_REVISIONS.keys()
)
async def test_a_revision_that_cannot_be_is_refused_by_its_field(
    values: dict[str, Any], named: str, reason: str
) -> None:
    said = {"term": "책", "revision": {**REVISION, **values}}
    with pytest.raises(TermRefused) as raised:
        await accepted(said, subject="terms.submit.b1-r2")
    assert (raised.value.field, raised.value.reason) == (named, reason)
    assert str(raised.value).encode()


@pytest.mark.parametrize("subject", ["terms.submit", "terms.submit.b1", "terms.submit.b1-r3"])
async def test_a_revision_stands_in_a_batch_of_its_own(subject: str) -> None:
    with pytest.raises(TermRefused, match=r"publish it to terms\.submit\.b1-r2"):
        await accepted({"term": "책", "revision": REVISION}, subject=subject)


# Any bytes at all

texts = st.text() | st.text("책물(){}[]\"'\\ 1.\n\ud800", max_size=20) | st.just("책")
fields = st.fixed_dictionaries(
    {"term": texts},
    optional={
        "position": st.integers(-1, POSITION_MAX + 1) | st.integers() | st.booleans() | texts,
        "type": texts,
        "deck": texts,
        "hint": texts,
        "priority": st.sampled_from(["urgent", "normal", "bulk", "now"]),
        "revision": st.fixed_dictionaries(
            {"stage": st.integers(0, 3), "number": st.integers(1, 3)},
            optional={
                "revises": st.just("b1") | texts,
                "source": st.just("b1") | texts,
                "model": texts | st.none(),
            },
        )
        | texts,
        "more": texts,
    },
)
payloads = st.one_of(
    st.binary(),
    st.text().map(str.encode),
    fields.map(lambda value: json.dumps(value).encode()),
)


@given(payload=payloads, batch=st.sampled_from([".b1", ".b1-r2", "", ".a.b"]))
@example(payload=b'{"term": "\\ucc45", "type": "\\ud800"}', batch=".b1")
@example(payload=b'{"term": "\\ucc45", "hint": "\\u0000"}', batch=".b1")
def test_any_bytes_become_an_event_that_can_be_read_again_or_a_refusal(
    payload: bytes, batch: str
) -> None:
    delivery = incoming(f"terms.submit{batch}", payload)
    with suppress(TermRefused):
        submission = read_submission(delivery.subject, delivery.data)
        position = submission.submitted.position or 1
        event = accepted_term(submission, delivery, position=position)
        assert TermAccepted.model_validate_json(event.to_bytes()) == event
        assert event.term_id == submission.term_id
        assert topology.is_batch_name(event.batch)
