"""Reading one submission: JSON or bare text, from anybody. Pure; every refusal is a TermRefused."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, get_args

from pydantic import ValidationError

from services.kernel.contracts.base import PartOfSpeech
from services.kernel.contracts.term import HINT_MAX_CHARACTERS, Revision, TermSubmitted
from services.kernel.errors import TermRefused
from services.kernel.korean.normal_form import NormalForm

JSON_MAX_DEPTH = 8
_STRING = re.compile(r'"(?:[^"\\]|\\.?)*+"?', re.DOTALL)
"""A string of JSON, or one that is never closed. Possessive: takes linear time on any input."""
_PARTS_OF_SPEECH: dict[str, PartOfSpeech] = {
    **{name: name for name in get_args(PartOfSpeech)},
    "명사": "noun",
    "동사": "verb",
    "형용사": "adjective",
    "부사": "adverb",
    "조사": "particle",
    "관형사": "determiner",
    "수사": "numeral",
    "대명사": "pronoun",
    "감탄사": "interjection",
}


def decode_submission(payload: bytes) -> TermSubmitted:
    """What the publisher said. Raises TermRefused with the field at fault."""
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TermRefused(
            "payload", "not_utf8", f"byte {error.start} is not UTF-8; publish UTF-8 text or JSON"
        ) from error
    if text.lstrip()[:1] not in ("{", '"'):
        return TermSubmitted(term=text)  # `[명사] 책` is a term with a gloss, no JSON.
    return _from_json(text)


def _from_json(text: str) -> TermSubmitted:
    if _depth(text) > JSON_MAX_DEPTH:
        raise TermRefused("payload", "too_deep", f"JSON is nested over {JSON_MAX_DEPTH} levels")
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constants)
    except ValueError as error:
        raise TermRefused(
            "payload", "not_json", f"JSON was begun but not valid: {error}"
        ) from error
    if isinstance(value, str):
        return TermSubmitted(term=value)
    _refuse_broken_text(value)
    try:
        return TermSubmitted.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"])
        raise TermRefused(field, "invalid_field", fault["msg"]) from error


def _refuse_broken_text(value: dict[str, Any]) -> None:
    """JSON can spell half a surrogate pair (`\\ud800`), which no event of ours can carry."""
    fields = {name: value.get(name) for name in TermSubmitted.model_fields}
    if isinstance(revision := fields["revision"], dict):
        fields |= {f"revision.{name}": revision.get(name) for name in Revision.model_fields}
    for name, text in fields.items():
        if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text):
            raise TermRefused(
                name, "broken_text", f"{text[:40]!r} holds half a surrogate pair; send UTF-8 text"
            )


def _depth(text: str) -> int:
    """The nesting of JSON; of invalid JSON at least that of the part which is read."""
    depth = deepest = 0
    for character in _STRING.sub("", text):
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        (twice, _count), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice[:40]!r} stands twice")
    return fields


def _no_constants(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def unknown_fields(payload: bytes) -> list[str]:
    """Names of fields that we leave out; for the log, never an error."""
    text = payload.decode("utf-8-sig").lstrip()
    if not text.startswith("{"):
        return []
    names = json.loads(text).keys() - TermSubmitted.model_fields.keys()
    return sorted(name.encode("utf-8", "backslashreplace").decode() for name in names)


def part_of_speech(submitted: TermSubmitted) -> PartOfSpeech | None:
    return _PARTS_OF_SPEECH.get((submitted.type or "").strip().lower())


def combined_hint(submitted: TermSubmitted, form: NormalForm) -> str | None:
    """The publisher's hint, what stood beside the term, and a `type` that is no part of speech."""
    free_type = submitted.type if submitted.type and not part_of_speech(submitted) else None
    parts = [part.strip() for part in (submitted.hint, form.hint, free_type) if part]
    unique = list(dict.fromkeys(part for part in parts if part))
    return "; ".join(unique)[:HINT_MAX_CHARACTERS] or None
