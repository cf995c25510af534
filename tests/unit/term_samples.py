"""Terms, analyses and what a model says of them; what a test does not name is fixed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from services.kernel.contracts.analysis import TermAnalyzed
from services.kernel.contracts.identity import term_id
from services.kernel.contracts.provenance import StageProvenance, Usage
from services.kernel.contracts.term import TermAccepted
from services.kernel.stream.incoming import Incoming

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def incoming(subject: str, data: bytes, *, sequence: int = 7) -> Incoming:
    return Incoming(
        subject=subject,
        data=data,
        headers={},
        sequence=sequence,
        deliveries=1,
        published_at=NOON,
    )


def accepted(term: str = "책", **values: Any) -> TermAccepted:
    defaults: dict[str, Any] = {
        "batch": "b1",
        "term_id": term_id(term, values.get("homonym")),
        "term": term,
        "position": 1,
        "deck": "Korean",
        "sequence": 7,
        "submitted_at": NOON,
    }
    return TermAccepted.model_validate({**defaults, **values})


def analysis_reply(term: str = "책", **values: Any) -> dict[str, Any]:
    """What a model answers in stage 1."""
    defaults: dict[str, Any] = {
        "term": term,
        "ipa": "[tɕʰɛk̚]",
        "pos": "noun",
        "hanja": "冊",
        "primary_meaning": "book",
        "other_meanings": None,
        "metaphor": "A book claps shut with a chack.",
        "metaphor_noun": "book",
        "metaphor_action": "claps",
        "suggested_location": "library",
        "anchor_object": "reading desk",
        "anchor_sensory": "the smell of old paper",
        "explanation": "The clap is the sound of the term.",
        "usage_context": None,
        "comparison": {"vs": "서적", "nuance": "서적 is formal."},
        "homonyms": [
            {"hanja": None, "reading": "책", "meaning": "blame", "differentiator": "rare"}
        ],
        "korean_keywords": [term, "읽다"],
    }
    return {**defaults, **values}


def provenance(**values: Any) -> StageProvenance:
    defaults: dict[str, Any] = {
        "model": "test/model",
        "provider": "Test",
        "fingerprint": "f" * 64,
        "prompt_version": "analysis-1",
        "cached": False,
        "attempts": 1,
        "calls": 1,
        "usage": Usage(),
        "cost_usd": Decimal("0.002"),
        "started_at": NOON,
        "finished_at": NOON,
    }
    return StageProvenance.model_validate({**defaults, **values})


def analyzed(
    term: str = "책", *, accepted_as: TermAccepted | None = None, **values: Any
) -> TermAnalyzed:
    """The event on ANALYSES; `values` are those of the analysis."""
    event = accepted_as or accepted(term)
    fields = analysis_reply(event.term, **values)
    return TermAnalyzed.model_validate(
        {
            "accepted": event,
            "analysis": {
                **fields,
                "term_number": event.position,
                "term": f"{event.term}{fields['ipa']}",
            },
            "stage1": provenance(),
        }
    )


def card_reply(tab_name: str = "Scene", **values: Any) -> dict[str, Any]:
    """One card as a model answers it in stage 2."""
    defaults: dict[str, Any] = {
        "tab_name": tab_name,
        "front": f"What does the {tab_name} side of this term tell you?",
        "back": f"책: the answer of the {tab_name} card.",
        "tags": ["concept:reading"],
        "honorific_level": "",
    }
    return {**defaults, **values}


def cards_reply(*cards: dict[str, Any]) -> dict[str, Any]:
    """What a model answers in stage 2: by default all that the sample analysis asks for."""
    return {"cards": list(cards) or [card_reply(t) for t in ("Scene", "Usage-Comparison", "Hanja")]}


def as_text(reply: dict[str, Any]) -> str:
    return json.dumps(reply, ensure_ascii=False)
