"""A dead letter tells all that is known of a message at its end."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from services.kernel import topology
from services.kernel.contracts.attempt import Attempt, AttemptHistory
from services.kernel.contracts.dead_letter import DeadLetter
from services.kernel.errors import PermanentError, TermRefused
from services.kernel.stream.dead_letters import dead_letter, subject_of
from services.kernel.stream.incoming import Identity, Incoming

PUBLISHED_AT = datetime(2026, 10, 1, tzinfo=UTC)
IDENTITY = Identity("b1", "abcdefgh22222222")


def incoming(data: bytes, headers: dict[str, str] | None = None) -> Incoming:
    return Incoming("terms.submit.b1", data, headers or {}, 7, 2, PUBLISHED_AT)


def letter_for(
    data: bytes,
    error: Exception | None = None,
    *,
    history: AttemptHistory | None = None,
    headers: dict[str, str] | None = None,
) -> DeadLetter:
    return dead_letter(
        "ingest",
        incoming(data, headers),
        IDENTITY,
        reason="bad_event",
        error=error or PermanentError("no"),
        history=history or AttemptHistory(),
    )


def test_it_carries_the_message_as_it_came_and_what_was_tried() -> None:
    history = AttemptHistory(attempts=(Attempt(outcome="failed", started_at=PUBLISHED_AT),))
    payload = b"\xff\x00 not utf-8"
    letter = letter_for(payload, history=history, headers={"traceparent": "00-x"})
    again = DeadLetter.model_validate_json(letter.to_bytes())
    assert again == letter
    assert again.original_payload == payload
    assert again.original_subject == "terms.submit.b1"
    assert again.original_headers == {"traceparent": "00-x"}
    assert (again.history, again.reason, again.first_at) == (history, "bad_event", PUBLISHED_AT)
    assert again.last_at > again.first_at


def test_its_subject_names_service_batch_and_id() -> None:
    assert subject_of(letter_for(b"x")) == "dead.ingest.b1.abcdefgh22222222"


def test_a_refused_term_names_its_field() -> None:
    letter = letter_for(b"hello", TermRefused("term", "not_korean", "'hello' has no Hangul"))
    assert (letter.field, letter.error) == ("term", "TermRefused")
    assert letter.message == "term: 'hello' has no Hangul"
    assert letter_for(b"hello").field is None


@pytest.mark.parametrize(
    ("payload", "term"),
    [
        ("책".encode(), "책"),
        ('"책"'.encode(), "책"),
        ('{"term": "책", "position": 1}'.encode(), "책"),
        ('{"accepted": {"term": "책"}, "analysis": {}}'.encode(), "책"),
        (b'{"accepted": ["no object"]}', None),
        (b'{"term": 5}', None),
        (b"[1, 2]", None),
        (b"", None),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"[" * 100_000, "[" * 200),
        (json.dumps({"term": "\ud800책"}).encode(), "?책"),
        (json.dumps({"term": "a" * 500}).encode(), "a" * 200),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_the_term_is_shown_as_far_as_the_payload_has_one(payload: bytes, term: str | None) -> None:
    letter = letter_for(payload)
    assert letter.term == term
    assert DeadLetter.model_validate_json(letter.to_bytes()).original_payload == payload


def test_its_causes_are_the_chain_nearest_first() -> None:
    root, middle = KeyError("card"), ValueError("no card")
    middle.__cause__ = root
    error = PermanentError("unfit")
    error.__context__ = middle
    assert letter_for(b"x", error).causes == ("ValueError: no card", "KeyError: 'card'")


def test_a_long_chain_and_a_long_story_are_cut() -> None:
    error = last = PermanentError("long " * 1000)
    for depth in range(20):
        last.__cause__ = last = ValueError(str(depth))  # type: ignore[assignment]
    letter = letter_for(b"x", error)
    assert len(letter.causes) == 5
    assert len(letter.message) == 2000
    assert letter.message.endswith("…")


def test_a_message_that_no_json_can_carry_is_made_fit() -> None:
    letter = letter_for(b"x", PermanentError("lone \ud800 surrogate"))
    assert letter.message == "lone ? surrogate"
    assert DeadLetter.model_validate_json(letter.to_bytes()).message == letter.message


@pytest.mark.parametrize(
    ("header", "first_at"),
    [
        ("2026-09-01T10:00:00+09:00", datetime(2026, 9, 1, 1, tzinfo=UTC)),
        ("2026-09-01T10:00:00", PUBLISHED_AT),  # in nobody's time zone
        ("yesterday", PUBLISHED_AT),
        ("", PUBLISHED_AT),
        ("2027-01-01T00:00:00+00:00", PUBLISHED_AT),  # after it was sent again
    ],
)
def test_a_message_that_was_sent_again_keeps_its_first_moment(
    header: str, first_at: datetime
) -> None:
    letter = letter_for(b"{}", headers={topology.FIRST_AT: header})
    assert letter.first_at == first_at
