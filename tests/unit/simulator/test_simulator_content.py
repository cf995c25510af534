"""What the simulated model knows, invents and writes."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from services.kernel.contracts.analysis import Analysis
from services.kernel.contracts.card import Card
from services.simulator.cards import BACK_WORDS, FRONT_WORDS, compose_cards
from services.simulator.invented import invent_analysis
from services.simulator.knowledge import Knowledge
from services.simulator.spelling import LONGEST, spell_ipa
from services.simulator.wording import clip, content_words, count_words, gives_away, with_article

SHIPPED = [entries[0] for entries in Knowledge.shipped()._by_term.values()]
ALL_SHIPPED = [entry for entries in Knowledge.shipped()._by_term.values() for entry in entries]

PEAR = {"term": "배", "homonym": 3, "hint": "pear", "primary_meaning": "pear"}
BELLY = {"term": "배", "homonym": 1, "hint": "belly", "primary_meaning": "belly"}
BOOK = {"term": "책", "homonym": None, "hint": None, "primary_meaning": "book"}
WRITE = {"term": "쓰다", "homonym": 1, "hint": "to write", "primary_meaning": "to write"}
SOME = Knowledge([BELLY, PEAR, BOOK, WRITE])


def generated_terms(how_many: int) -> list[str]:
    """Made-up terms: short and long, of several words, with letters and digits."""
    dice = random.Random(20)
    alphabet = [chr(code) for code in range(ord("가"), ord("힣"), 7)]
    terms = []
    for _ in range(how_many):
        words = [
            "".join(dice.choices(alphabet, k=dice.randint(1, 5)))
            for _ in range(dice.choice([1, 1, 1, 2, 4, 16]))
        ]
        prefix = dice.choice(["", "", "", "PC", "1"])
        ending = dice.choice(["", "다"])
        terms.append((prefix + " ".join(words) + ending)[:100])
    return terms


GENERATED = generated_terms(300)


def card_types_of(analysis: dict[str, Any]) -> list[str]:
    wanted = ["Scene"]
    wanted += ["Usage-Comparison"] if analysis["comparison"] else []
    wanted += ["Hanja"] if analysis["hanja"] else []
    return wanted


@pytest.mark.parametrize(
    ("homonym", "hint", "meaning"),
    [
        (3, None, "pear"),
        (1, "anything", "belly"),
        (None, "pear", "pear"),
        (None, "A PEAR, the fruit", "pear"),
        (None, "no such thing", "belly"),
        (None, None, "belly"),
    ],
)
def test_homographs_are_told_apart_by_number_then_hint(
    homonym: int | None, hint: str | None, meaning: str
) -> None:
    found = SOME.find("배", homonym, hint)

    assert found is not None
    assert found["primary_meaning"] == meaning


def test_a_homonym_of_another_number_is_not_taken_for_a_known_one() -> None:
    assert SOME.find("배", 2) is None
    assert SOME.find("쓰다", 6, "to be bitter") is None


def test_an_entry_without_a_number_answers_for_any_number() -> None:
    found = SOME.find("책", 1)

    assert found == {"term": "책", "primary_meaning": "book"}


def test_an_unknown_term_is_not_known() -> None:
    assert SOME.find("없는말") is None


def test_every_shipped_analysis_is_found_and_keeps_the_contract() -> None:
    knowledge = Knowledge.shipped()

    for entry in ALL_SHIPPED:
        found = knowledge.find(entry["term"], entry["homonym"], entry["hint"])
        assert found is not None
        analysis = Analysis.model_validate({**found, "term_number": 1})
        assert analysis.primary_meaning == entry["primary_meaning"]
        assert analysis.korean_keywords[0] == entry["term"]


def test_an_invented_analysis_keeps_the_contract_and_says_that_it_is_simulated() -> None:
    for term in GENERATED:
        answer = invent_analysis(term)

        analysis = Analysis.model_validate({**answer, "term_number": 1})
        assert analysis.primary_meaning.startswith("simulated meaning of")
        assert analysis.metaphor.startswith("Simulated")
        assert analysis.explanation.startswith("Simulated")
        assert analysis.korean_keywords[0] == term
        assert answer == invent_analysis(term)


@pytest.mark.parametrize(
    ("term", "type_", "pos"),
    [
        ("가즈다", None, "verb"),
        ("가즈", None, "noun"),
        ("가즈다", "adjective", "adjective"),
        ("가즈", "free text", "noun"),
    ],
)
def test_the_part_of_speech_is_as_asked_or_by_the_ending(
    term: str, type_: str | None, pos: str
) -> None:
    assert invent_analysis(term, type_=type_)["pos"] == pos


def test_a_share_of_the_invented_analyses_has_a_comparison() -> None:
    compared = sum(invent_analysis(term)["comparison"] is not None for term in GENERATED)

    assert 60 < compared < 140


@pytest.mark.parametrize(
    ("term", "ipa"),
    [
        ("책", "[tɕʰɛk̚]"),
        ("바다", "[pa.ta]"),
        ("시계", "[ɕi.kje]"),
        ("쉬다", "[ɕwi.ta]"),
        ("가져", "[ka.tɕʌ]"),
        ("씨", "[ɕ͈i]"),
        ("의사", "[ɰi.sa]"),
        ("희망", "[hi.maŋ]"),
        ("책이", "[tɕʰɛk̚.i]"),
        ("한국 사람", "[han.kuk̚ sa.ɾam]"),
        ("PC방", "[pʰi.ɕi.paŋ]"),
        ("1년", "[il.njʌn]"),
        ("6·25 전쟁", "[juk̚.i.o tɕʌn.tɕɛŋ]"),
        ("!?", "[ɯm]"),
        ("", "[ɯm]"),
    ],
)
def test_ipa_by_spelling(term: str, ipa: str) -> None:
    assert spell_ipa(term) == ipa


def test_ipa_by_spelling_stays_within_its_bound() -> None:
    ipa = spell_ipa("쨌" * 100)

    assert len(ipa) <= LONGEST
    assert re.fullmatch(r"\[(t͈ɕɛt̚\.)+t͈ɕɛt̚\]", ipa)


@pytest.mark.parametrize("seed", [0, 7])
def test_every_card_keeps_its_lengths_and_holds_the_facts(seed: int) -> None:
    for analysis in [*ALL_SHIPPED, *map(invent_analysis, GENERATED)]:
        wanted = [*card_types_of(analysis), "Example"]
        cards = compose_cards(analysis, wanted, seed)

        assert [card["tab_name"] for card in cards] == wanted
        assert len({card["front"] for card in cards}) == len(cards)
        for card in cards:
            assert_good_card(card, analysis)


def assert_good_card(card: dict[str, Any], analysis: dict[str, Any]) -> None:
    front, back = card["front"], card["back"]
    assert FRONT_WORDS[0] <= count_words(front) <= FRONT_WORDS[1], front
    assert BACK_WORDS[0] <= count_words(back) <= BACK_WORDS[1], back
    assert "?" in front
    assert clip(analysis["term"], 6) in front
    assert f" {analysis['primary_meaning']} " not in front
    assert analysis["primary_meaning"][:40] in back
    assert "you see" in back.lower()
    assert "hear" in back
    Card.model_validate({**card, "position": 1, "term": "x", "term_number": 1, "primer": "x"})


def test_no_front_of_a_shipped_term_gives_its_meaning_away() -> None:
    for entry in ALL_SHIPPED:
        told = content_words(entry["primary_meaning"])
        for card in compose_cards(entry, card_types_of(entry), 0):
            assert gives_away(card["front"], told) == 0, card["front"]


def test_terms_get_different_cards() -> None:
    cards = [compose_cards(entry, ["Scene"], 0)[0] for entry in SHIPPED]
    openings = {" ".join(card["front"].split()[:2]) for card in cards}

    assert len({card["front"] for card in cards}) == len(cards)
    assert len(openings) >= 5


@pytest.mark.parametrize("card_type", ["Scene", "Usage-Comparison", "Hanja", "Cultural"])
@pytest.mark.parametrize(
    "fields",
    [
        {"term": "책"},
        {"term": "책[tɕʰɛk̚]", "comparison": "none"},
        {
            "term": "가 " * 50,
            "ipa": "ka " * 50,
            "hanja": "家 " * 20,
            "comparison": {"vs": "가 " * 50},
        },
        {
            "term": "책",
            "primary_meaning": "word " * 60,
            "metaphor": "word " * 80,
            "explanation": "word " * 120,
            "usage_context": "word " * 120,
            "suggested_location": "word " * 40,
            "anchor_object": "word " * 40,
            "comparison": {"vs": "말", "nuance": "word " * 120},
            "hanja": "冊",
        },
    ],
)
def test_cards_keep_their_lengths_with_hardly_anything_and_with_too_much(
    card_type: str, fields: dict[str, Any]
) -> None:
    (card,) = compose_cards(fields, [card_type], 3)

    assert FRONT_WORDS[0] <= count_words(card["front"]) <= FRONT_WORDS[1], card["front"]
    assert BACK_WORDS[0] <= count_words(card["back"]) <= BACK_WORDS[1], card["back"]


@pytest.mark.parametrize(
    ("term", "hanja", "said"),
    [
        ("책", "冊", "The character 冊 is read 책."),
        ("학교", "學校", "學 is read 학, 校 is read 교."),
        ("공부하다", "工夫", "The characters 工夫 write only a part of 공부하다"),
        ("책", None, "No Chinese characters are on record for 책"),
    ],
)
def test_a_hanja_card_reads_the_characters_only_where_that_is_certain(
    term: str, hanja: str | None, said: str
) -> None:
    (card,) = compose_cards({"term": term, "hanja": hanja}, ["Hanja"], 0)

    assert said in card["back"]


def test_tags_fit_their_card_and_hold_no_blank_or_comma() -> None:
    entry = next(entry for entry in ALL_SHIPPED if entry["hanja"] and entry["comparison"])
    cards = compose_cards(entry, ["Scene", "Usage-Comparison", "Hanja"], 0)
    scene, comparison, hanja = (card["tags"] for card in cards)

    assert [tag.partition(":")[0] for tag in scene] == ["metaphor", "concept"]
    assert comparison == [f"comparison_term:{entry['comparison']['vs']}"]
    assert hanja == ["hanja", *(f"character:{one}" for one in entry["hanja"])]
    assert not any(re.search(r"[\s,]", tag) for card in cards for tag in card["tags"])


@pytest.mark.parametrize(
    ("text", "longest", "clipped"),
    [
        ("one two", 2, "one two"),
        ("One two. Three four", 3, "One two."),
        ("One. Two three four five six", 5, "One. Two three four five…"),
        ("one, two, three", 2, "one, two…"),
        (" a\tb\nc ", 5, "a b c"),
        (None, 5, ""),
    ],
)
def test_texts_are_cut_after_a_sentence_where_one_ends(
    text: str | None, longest: int, clipped: str
) -> None:
    assert clip(text, longest) == clipped


@pytest.mark.parametrize(
    ("phrase", "with_it"),
    [
        ("a red lamp", "the red lamp"),
        ("old attic", "the old attic"),
        ("Seoul Station", "Seoul Station"),
        ("TV stage", "the TV stage"),
    ],
)
def test_phrases_get_one_article(phrase: str, with_it: str) -> None:
    assert with_article(phrase) == with_it


@pytest.mark.parametrize(
    ("front", "meaning", "words"),
    [
        ("Who eats here?", "to eat", 1),
        ("Who walked here?", "to walk", 1),
        ("Who is at the station?", "train station", 1),
        ("Who is here?", "to be", 0),
        ("What do you see?", "I, me", 0),
        ("What is in the bookcase?", "cook", 0),
        ("What is in the bookcase?", "book", 1),
        ("How is the weather?", "to eat", 0),
    ],
)
def test_forms_of_a_word_give_the_word_away(front: str, meaning: str, words: int) -> None:
    assert gives_away(front, content_words(meaning)) == words
