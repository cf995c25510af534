"""The base of every contract, and the types that several of them share."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, NewType, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from services.kernel.errors import PermanentError

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

ExactUsd = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
"""US dollars for sums: exact on the wire, too, where it is a string."""


class Contract(BaseModel):
    """Frozen; unknown fields are ignored, so that a newer writer does not break an older reader."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises PermanentError (`bad_event`): what is on the stream will not change."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise PermanentError(f"not a {cls.__name__}: {error}", reason="bad_event") from error

    def to_bytes(self) -> bytes:
        return self.model_dump_json().encode()
