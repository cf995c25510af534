"""Models that answer with rows of nine columns, and what is made of them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from term_samples import as_text, cards_reply

from services.kernel.contracts.card import CARD_TYPES, COLUMNS
from services.kernel.errors import ReplyRejected
from services.stage2.nine_columns import looks_like_columns, read_columns
from services.stage2.prompt import CardReply

HEADER = "\t".join(COLUMNS)


def row(**values: Any) -> str:
    defaults = {
        "position": "1",
        "term": "책[tɕʰɛk̚]",
        "term_number": "1",
        "tab_name": "Scene",
        "primer": "You enter the room.",
        "front": "What lies there?",
        "back": "책: a book.",
        "tags": "concept:reading, level:beginner",
        "honorific_level": "",
    }
    return "\t".join(str(value) for value in {**defaults, **values}.values())


CARD = CardReply(
    tab_name="Scene",
    front="What lies there?",
    back="책: a book.",
    tags=["concept:reading", "level:beginner"],
    honorific_level="",
)

READ = {
    "a row": row(),
    "a header": f"{HEADER}\n{row()}",
    "a header in capitals": f"{HEADER.upper()}\n{row()}",
    "fences and prose": f"Here you are:\n```tsv\n{HEADER}\n{row()}\n```\nDone.",
    "other line ends": f"{HEADER}\r\n{row()}\r\n",
    "blank lines": f"\n\n{row()}\n\n",
    "blanks around cells": row().replace("\t", " \t "),
    "the last tab lost": row().rstrip("\t"),
    "a type in small letters": row(tab_name="scene"),
    "empty tags between commas": row(tags="concept:reading,, level:beginner,"),
}


@pytest.mark.parametrize("text", READ.values(), ids=READ)
def test_a_row_is_read_whatever_stands_around_it(text: str) -> None:
    assert looks_like_columns(text)
    assert read_columns(text).cards == [CARD]


def test_each_row_is_a_card_in_its_order() -> None:
    text = "\n".join(row(position=n, tab_name=card_type) for n, card_type in enumerate(CARD_TYPES))
    assert [card.tab_name for card in read_columns(text).cards] == list(CARD_TYPES)


def test_no_tags_are_an_empty_list_and_a_level_is_kept() -> None:
    (card,) = read_columns(row(tags="", honorific_level="polite")).cards
    assert (card.tags, card.honorific_level) == ([], "polite")


REJECTED = {
    "nothing": ("", "found 0 rows"),
    "a header alone": (HEADER, "found 0 rows"),
    "too many rows": ("\n".join([row()] * 8), "found 8 rows"),
    "too few columns": ("책\tbook", "a row has 2 columns, expected 9"),
    "too many columns": (f"{row()}\tmore", "a row has 10 columns, expected 9"),
    "an unknown type": (row(tab_name="Song"), "'Song' is no card type"),
    "one bad row among good ones": (f"{row()}\n책\tbook", "a row has 2 columns"),
}


@pytest.mark.parametrize(("text", "detail"), REJECTED.values(), ids=REJECTED)
def test_other_rows_are_rejected_and_told_why(text: str, detail: str) -> None:
    with pytest.raises(ReplyRejected) as raised:
        read_columns(text)
    assert raised.value.reason == "columns"
    assert detail in raised.value.detail


NO_COLUMNS = {
    "JSON": as_text(cards_reply()),
    "JSON with tabs": '{\n\t"cards": []\n}',
    "JSON in a fence with tabs": '```json\n\t{"cards": []}\n```',
    "prose": "I can't help with that.",
    "nothing": "",
}


@pytest.mark.parametrize("text", NO_COLUMNS.values(), ids=NO_COLUMNS)
def test_json_and_prose_are_no_columns(text: str) -> None:
    assert not looks_like_columns(text)


@given(st.text(st.sampled_from("\t\n책 Scene,:1")) | st.text())
def test_any_text_is_read_or_rejected(text: str) -> None:
    with suppress(ReplyRejected):
        assert 1 <= len(read_columns(text).cards) <= len(CARD_TYPES)
