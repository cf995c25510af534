"""The base of every contract, and the types that several of them share."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, NewType

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

Batch = NewType("Batch", str)
TermId = NewType("TermId", str)

PartOfSpeech = Literal[
    "noun",
    "verb",
    "adjective",
    "adverb",
    "particle",
    "determiner",
    "numeral",
    "pronoun",
    "interjection",
    "phrase",
]

Usd = Annotated[Decimal, Field(ge=0), PlainSerializer(float, return_type=float, when_used="json")]
"""US dollars: exact in Python, on the wire a JSON number whose shortest form round-trips."""


class Contract(BaseModel):
    """Frozen; unknown fields are ignored, so that a newer writer does not break an older reader."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_bytes(self) -> bytes:
        return self.model_dump_json().encode()
