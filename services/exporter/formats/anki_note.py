"""A card as an Anki note: identity, fields and tags, the same in every format for Anki.

All of it is frozen as "cardflow v1". Anki knows a note again by its GUID, and a note type by its
id and its field list: with another list it stops updating notes without a word, with another id
it makes a second note type. What must change becomes "cardflow v2" with an id of its own.
The last four fields are spares, for what learners or later releases add to a note.
"""

from __future__ import annotations

import html
import re
from typing import Final

from services.exporter.formats.text import one_line
from services.exporter.stored import StoredCard
from services.kernel.contracts.identity import fingerprint, short_hash

NOTE_TYPE: Final = "cardflow v1"
NOTE_TYPE_ID: Final = 1_763_604_201
"""Drawn once in the range that genanki asks for, 2³⁰ to 2³¹."""

WRITTEN_FIELDS: Final = (
    "Key",
    "Term",
    "Primer",
    "Front",
    "Back",
    "CardType",
    "Position",
    "TermNumber",
    "HonorificLevel",
)
SPARE_FIELDS: Final = ("Audio", "Image", "Example", "Extra")
FIELDS: Final = WRITTEN_FIELDS + SPARE_FIELDS

_FIRST_DECK_ID: Final = 1 << 30
_DECK_IDS: Final = 1 << 30

# What Anki would act on inside a field: a template or cloze, media, speech, LaTeX; then MathJax.
_ACTIVE = re.compile(r"\{\{|\[(?=sound:|anki:|/?latex\]|/?\$)", re.IGNORECASE)
_MATHJAX = re.compile(r"\\(?=[()\[\]])")
_WORD_JOINER: Final = "&#8288;"


def guid(stored: StoredCard) -> str:
    """Who the note is: deck, normal form, homonym, card type; 16 characters of base32.

    Never position or text, so that another import updates the note in place and keeps its
    schedule. Only a term's second card of a type and the later ones count their ordinal too.
    """
    later = (str(stored.ordinal),) if stored.ordinal > 1 else ()
    homonym = str(stored.homonym or "")
    return short_hash("note", stored.deck, stored.term, homonym, stored.card.tab_name, *later)


def deck_id(deck_name: str) -> int:
    """The same for the same name on every machine, 2³⁰ to 2³¹."""
    return _FIRST_DECK_ID + int(fingerprint("deck", deck_name), 16) % _DECK_IDS


def written_fields(stored: StoredCard, position: int) -> tuple[str, ...]:
    """HTML for `WRITTEN_FIELDS`. `position` is the card's in the deck, from 1.

    `Key` repeats the GUID, to look a note up where the GUID can't be reached (AnkiConnect).
    """
    card = stored.card
    texts = (
        guid(stored),
        card.term,
        card.primer,
        card.front,
        card.back,
        card.tab_name,
        str(position),
        str(card.term_number),
        card.honorific_level,
    )
    return tuple(field_html(text) for text in texts)


def field_html(text: str) -> str:
    """Text that Anki shows as it is: no markup, no template, no media and no formula acts."""
    escaped = html.escape(one_line(text))
    # Entities are no help against MathJax, which reads the page that they were decoded into.
    unset = _MATHJAX.sub(lambda found: found[0] + _WORD_JOINER, escaped)
    return _ACTIVE.sub(lambda found: "".join(f"&#{ord(sign)};" for sign in found[0]), unset)


def anki_tags(stored: StoredCard) -> list[str]:
    """Tags in Anki's way: `pos:noun` is `pos::noun`, and a blank, which parts tags, is `_`."""
    tags = (_anki_tag(one_line(tag)) for tag in stored.card.tags)
    return list(dict.fromkeys(tag for tag in tags if tag))


def _anki_tag(tag: str) -> str:
    levels = (re.sub(r"\s+", "_", level.strip()) for level in tag.split(":"))
    return "::".join(level for level in levels if level)
