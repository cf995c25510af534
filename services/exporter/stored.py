"""A card as the store gives it back, and the way from an event to its rows and back."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from services.kernel.contracts.base import Batch, TermId
from services.kernel.contracts.card import Card, CardsFinished


@dataclass(frozen=True, slots=True)
class StoredCard:
    """A card with what its deck needs to know of its term.

    `term` is the normal form, `card.term` the spelling with the pronunciation. `position` is the
    term's in the deck, `card.position` the card's within the term. `ordinal` counts the term's
    cards of one type from 1. `model` wrote the card.
    """

    batch: Batch
    deck: str
    term_id: TermId
    term: str
    homonym: int | None
    position: int
    model: str
    finished_at: datetime
    ordinal: int
    card: Card


def utc_text(at: datetime) -> str:
    """ISO 8601 in UTC, always with six digits of a second; a time without a zone is UTC."""
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="microseconds")


def term_row(event: CardsFinished) -> dict[str, Any]:
    """What `schema.UPSERT_TERM` takes."""
    stages = (event.stage1, event.stage2)
    return {
        "batch": event.batch,
        "term_id": event.term_id,
        "deck": event.deck,
        "term": event.term,
        "homonym": event.homonym,
        "position": event.position,
        "pos": event.pos,
        "stage1_model": event.stage1.model,
        "stage2_model": event.stage2.model,
        "cost_usd": f"{event.stage1.cost_usd + event.stage2.cost_usd:f}",
        "calls": sum(stage.calls for stage in stages),
        "cached": sum(stage.cached for stage in stages),
        "submitted_at": utc_text(event.submitted_at),
        "finished_at": utc_text(event.finished_at),
        "event": event.model_dump_json(),
        "revises": event.revises,
        "revision": event.revision,
    }


def card_rows(event: CardsFinished) -> list[dict[str, Any]]:
    """What `schema.INSERT_CARD` takes, in the order of the cards, numbered from 1."""
    seen: Counter[str] = Counter()
    rows = []
    for position, card in enumerate(sorted(event.cards, key=lambda card: card.position), start=1):
        seen[card.tab_name] += 1
        rows.append(
            {
                "batch": event.batch,
                "term_id": event.term_id,
                "card_type": card.tab_name,
                "card_position": position,
                "ordinal": seen[card.tab_name],
                "term": card.term,
                "term_number": card.term_number,
                "primer": card.primer,
                "front": card.front,
                "back": card.back,
                "tags": json.dumps(card.tags, ensure_ascii=False),
                "honorific_level": card.honorific_level,
            }
        )
    return rows


def stored_card(row: tuple[Any, ...]) -> StoredCard:
    """A row of `schema.CARDS_OF_BATCH`, `CARDS_OF_REVISION` or `CARDS_OF_DECK`.

    The card is not validated again: it was on arrival, and a stricter contract must not make
    an old deck unreadable.
    """
    (batch, deck, term_id, term, homonym, position, model, finished_at, ordinal) = row[:9]
    names = ("position", "term", "term_number", "tab_name", "primer", "front", "back")
    values = dict(zip(names, row[9:16], strict=True))
    tags, honorific_level = row[16:]
    card = Card.model_construct(
        **values, tags=tuple(json.loads(tags)), honorific_level=honorific_level
    )
    at = datetime.fromisoformat(finished_at)
    return StoredCard(batch, deck, term_id, term, homonym, position, model, at, ordinal, card)
