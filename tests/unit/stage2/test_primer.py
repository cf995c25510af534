"""The primer: the fixed walk, in the length that people were promised."""

from __future__ import annotations

from typing import get_args

import pytest

from services.kernel.contracts.base import PartOfSpeech
from services.stage2.primer import primer


@pytest.mark.parametrize("pos", get_args(PartOfSpeech))
def test_it_leads_from_the_room_to_the_tab_in_50_to_70_words(pos: PartOfSpeech) -> None:
    text = primer("책[tɕʰɛk̚]", 42, pos)
    assert 50 <= len(text.split()) <= 70
    landmarks = ("study", "KOREAN", "TERMS", f"{pos} binder", "tab 42", "책[tɕʰɛk̚]")
    places = [text.index(landmark) for landmark in landmarks]
    assert places == sorted(places)


def test_it_depends_on_term_number_and_part_of_speech_alone() -> None:
    one = primer("책", 1, "noun")
    assert one == primer("책", 1, "noun")
    assert (
        len({one, primer("물", 1, "noun"), primer("책", 2, "noun"), primer("책", 1, "verb")}) == 4
    )


def test_it_is_one_line() -> None:
    assert primer("책", 1, "noun") == " ".join(primer("책", 1, "noun").split())
