"""Cards: front, back and tags for one term; the public event on CARDS."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, get_args

from pydantic import Field, StringConstraints

from services.kernel.contracts.analysis import Analysis
from services.kernel.contracts.base import Batch, Contract, PartOfSpeech, TermId
from services.kernel.contracts.provenance import StageProvenance

CardType = Literal[
    "Scene", "Usage-Comparison", "Hanja", "Grammar", "Formal-Casual", "Example", "Cultural"
]
CARD_TYPES: tuple[CardType, ...] = get_args(CardType)

COLUMNS = (
    "position",
    "term",
    "term_number",
    "tab_name",
    "primer",
    "front",
    "back",
    "tags",
    "honorific_level",
)
"""The nine columns, in their order."""

_Line = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, pattern=r"^[^\t\r\n]*$")
]


class Card(Contract):
    """One card: the nine columns. Only `honorific_level` may be empty; no tabs, no line breaks.

    `position` counts the cards of the term from 1; a deck numbers its rows anew.
    """

    position: int = Field(ge=1)
    term: _Line
    term_number: int = Field(ge=1)
    tab_name: CardType
    primer: _Line
    front: Annotated[_Line, Field(max_length=1_000)]
    back: Annotated[_Line, Field(max_length=4_000)]
    tags: tuple[str, ...] = Field(min_length=1)
    honorific_level: Annotated[str, StringConstraints(pattern=r"^[^\t\r\n]*$")] = ""


class CardsFinished(Contract):
    """All cards of one term with everything that is known of how they came about.

    `revises` is the batch that these cards are a new revision of, None for a batch's own cards.
    `replays`: how often a person sent the term again on its way here.
    """

    version: Literal[1] = 1
    batch: Batch
    term_id: TermId
    term: str
    homonym: int | None = None
    position: int = Field(ge=1)
    deck: str
    pos: PartOfSpeech
    analysis: Analysis
    cards: tuple[Card, ...] = Field(min_length=1)
    stage1: StageProvenance
    stage2: StageProvenance
    submitted_at: datetime
    finished_at: datetime
    revises: Batch | None = None
    revision: int = Field(default=1, ge=1)
    replays: int = Field(default=0, ge=0)
