"""Ids: the same on every machine, different for different input, safe wherever they stand."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.contracts.identity import fingerprint, refusal_id, short_hash, term_id

parts = st.lists(st.one_of(st.text(), st.binary()), max_size=4)


def as_bytes(values: list[str | bytes]) -> list[bytes]:
    return [value.encode() if isinstance(value, str) else value for value in values]


def test_ids_never_change_since_subjects_and_stores_hold_them() -> None:
    assert term_id("책", None) == "raigmve36f4r7m5a"
    assert term_id("배", 2) == "4fwzsnbihxlhsdsy"
    assert refusal_id(b"hello") == "v6kfg55z7baki7b7"
    assert fingerprint("a", "b").startswith("3c9d591045bc8876")


@given(st.text(), st.one_of(st.none(), st.integers(1, 99)))
def test_a_term_id_is_one_token_of_a_subject_a_key_and_a_file_name(
    text: str, homonym: int | None
) -> None:
    assert re.fullmatch("[a-z2-7]{16}", term_id(text, homonym))


@given(parts, parts)
def test_different_parts_have_different_hashes(
    left: list[str | bytes], right: list[str | bytes]
) -> None:
    same = as_bytes(left) == as_bytes(right)
    assert (short_hash(*left) == short_hash(*right)) == same
    assert (fingerprint(*left) == fingerprint(*right)) == same


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (("ab", "c"), ("a", "bc")),
        (("ab",), ("a", "b")),
        (("",), ()),
        (("a", ""), ("", "a")),
    ],
)
def test_where_one_part_ends_matters(left: tuple[str, ...], right: tuple[str, ...]) -> None:
    assert short_hash(*left) != short_hash(*right)


def test_homonyms_are_different_terms() -> None:
    ids = {term_id("배", None), term_id("배", 1), term_id("배", 2), term_id("배1", None)}
    assert len(ids) == 4


def test_a_refusal_is_no_term_of_the_same_text() -> None:
    assert refusal_id("책".encode()) != term_id("책", None)


def test_a_fingerprint_is_64_hexadecimal_characters() -> None:
    assert re.fullmatch("[0-9a-f]{64}", fingerprint("model", b"prompt"))
