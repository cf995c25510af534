"""What stage 1 finds out about a term; the event on ANALYSES."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from services.kernel.contracts.base import Contract, PartOfSpeech
from services.kernel.contracts.provenance import StageProvenance
from services.kernel.contracts.term import TermAccepted


def _text(longest: int) -> StringConstraints:
    return StringConstraints(strip_whitespace=True, min_length=1, max_length=longest)


class Comparison(Contract):
    """A word that learners take for this one, and what differs."""

    vs: Annotated[str, _text(100)]
    nuance: Annotated[str, _text(500)]


class Homonym(Contract):
    """Another word of the same spelling; `hanja` where it has one, read exactly `reading`."""

    hanja: Annotated[str, _text(20)] | None = None
    reading: Annotated[str, _text(50)]
    meaning: Annotated[str, _text(200)]
    differentiator: Annotated[str, _text(300)]


class Analysis(Contract):
    """All facts about a term that its cards are made from.

    `term` is the term with its pronunciation (`책[tɕʰɛk̚]`); `ipa` stands in brackets, syllables
    separated by dots. `hanja` is the term's own, `homonyms` are other words: null, never empty.
    """

    term_number: int = Field(ge=1)
    term: Annotated[str, _text(220)]
    ipa: Annotated[str, StringConstraints(pattern=r"^\[[^\[\]]+\]$", max_length=200)]
    pos: PartOfSpeech
    hanja: Annotated[str, _text(20)] | None = None
    primary_meaning: Annotated[str, _text(200)]
    other_meanings: Annotated[str, _text(500)] | None = None
    metaphor: Annotated[str, _text(300)]
    metaphor_noun: Annotated[str, _text(100)]
    metaphor_action: Annotated[str, _text(100)]
    suggested_location: Annotated[str, _text(200)]
    anchor_object: Annotated[str, _text(200)]
    anchor_sensory: Annotated[str, _text(200)]
    explanation: Annotated[str, _text(500)]
    usage_context: Annotated[str, _text(500)] | None = None
    comparison: Comparison | None = None
    homonyms: Annotated[list[Homonym], Field(min_length=1, max_length=5)] | None = None
    korean_keywords: Annotated[list[Annotated[str, _text(100)]], Field(min_length=1, max_length=10)]


class TermAnalyzed(Contract):
    """A term with its analysis, and how the analysis came about."""

    version: Literal[1] = 1
    accepted: TermAccepted
    analysis: Analysis
    stage1: StageProvenance
