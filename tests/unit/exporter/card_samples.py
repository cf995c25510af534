"""Finished cards for tests, and decks made of them; what a test does not name is fixed."""

from __future__ import annotations

import sqlite3
import zipfile
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from services.exporter.formats import write_deck
from services.exporter.stored import StoredCard
from services.kernel.contracts.analysis import Analysis
from services.kernel.contracts.base import Batch
from services.kernel.contracts.card import Card, CardsFinished
from services.kernel.contracts.identity import term_id
from services.kernel.contracts.provenance import StageProvenance, Usage

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)

NASTY = "\x00tab\there\x1fline\x0bbreak\x85next\u2028line\u2029end"
"""Text with every sign that could end a line or a cell."""


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def card(position: int = 1, tab_name: str = "Scene", **values: Any) -> Card:
    defaults: dict[str, Any] = {
        "term": "책[tɕʰɛk̚]",
        "term_number": 1,
        "primer": "You enter the room and open the drawer TERMS.",
        "front": f"What lies on the desk, front {position}?",
        "back": f"A book, back {position}.",
        "tags": ("term:책", "pos:noun"),
        "honorific_level": "",
    }
    return Card.model_validate({**defaults, "position": position, "tab_name": tab_name, **values})


def stage(model: str = "test/model", *, cost_usd: str = "0", **values: Any) -> StageProvenance:
    defaults: dict[str, Any] = {"cached": False, "attempts": 1, "calls": 1}
    return StageProvenance.model_validate(
        {
            "model": model,
            "provider": "simulated",
            "fingerprint": "f" * 64,
            "prompt_version": "1",
            "usage": Usage(),
            "cost_usd": Decimal(cost_usd),
            "started_at": NOON,
            "finished_at": NOON,
            **defaults,
            **values,
        }
    )


def finished(
    term: str = "책",
    *,
    batch: str = "b1",
    deck: str = "Korean",
    homonym: int | None = None,
    cards: Iterable[Card] | None = None,
    **values: Any,
) -> CardsFinished:
    defaults: dict[str, Any] = {
        "position": 1,
        "stage1": stage("test/analyst"),
        "stage2": stage("test/writer"),
        "submitted_at": NOON,
        "finished_at": NOON,
    }
    return CardsFinished.model_validate(
        {
            "batch": Batch(batch),
            "term_id": term_id(term, homonym),
            "term": term,
            "homonym": homonym,
            "deck": deck,
            "pos": "noun",
            "analysis": _analysis(term),
            "cards": tuple(cards or (card(),)),
            **defaults,
            **values,
        }
    )


def stored(term: str = "책", *, homonym: int | None = None, **values: Any) -> StoredCard:
    """A card as the store gives it; `values` of StoredCard, of the others those of a Card."""
    own = {
        name: values.pop(name)
        for name in ("batch", "deck", "finished_at", "ordinal", "model")
        if name in values
    }
    defaults: dict[str, Any] = {
        "batch": "b1",
        "deck": "Korean",
        "position": 1,
        "model": "test/writer",
        "finished_at": NOON,
        "ordinal": 1,
    }
    return StoredCard(
        term_id=term_id(term, homonym),
        term=term,
        homonym=homonym,
        card=card(**values),
        **{**defaults, **own},
    )


async def stream(cards: Iterable[StoredCard]) -> AsyncIterator[StoredCard]:
    for each in cards:
        yield each


async def written(tmp_path: Path, format_name: str, *cards: StoredCard) -> Path:
    path = tmp_path / f"deck.{format_name}"
    assert await write_deck(format_name, stream(cards), path) == len(cards)
    return path


def query(package: Path, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a statement on the collection inside an .apkg."""
    with zipfile.ZipFile(package) as members:
        content = members.read("collection.anki2")
    db = sqlite3.connect(":memory:")
    db.deserialize(content)
    rows = db.execute(statement).fetchall()
    db.close()
    return rows


def _analysis(term: str) -> Analysis:
    return Analysis(
        term_number=1,
        term=f"{term}[…]",
        ipa="[tɕʰɛk̚]",
        pos="noun",
        primary_meaning="book",
        metaphor="a book that bites",
        metaphor_noun="book",
        metaphor_action="bites",
        suggested_location="library",
        anchor_object="desk",
        anchor_sensory="smell of paper",
        explanation="The book bites.",
        korean_keywords=[term],
    )
