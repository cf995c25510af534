"""What stage 2 believes of a reply: one row a reason to refuse, and the columns that are ours."""

from __future__ import annotations

from typing import Any

import pytest
from term_samples import accepted, analyzed, card_reply, cards_reply, provenance

from services.kernel.contracts.card import CARD_TYPES, Card
from services.kernel.contracts.provenance import CheckVerdict
from services.kernel.errors import ReplyRejected
from services.stage2.checks import CHECKS, checked_cards, passed
from services.stage2.primer import primer
from services.stage2.prompt import CardsReply

SCENE, COMPARISON, HANJA = (card_reply(t) for t in ("Scene", "Usage-Comparison", "Hanja"))
PLAIN = {"hanja": None, "comparison": None}
"""An analysis that needs a Scene card alone."""


def checked(*cards: dict[str, Any], **of_analysis: Any) -> tuple[Card, ...]:
    reply = CardsReply.model_validate(cards_reply(*cards))
    return checked_cards(reply, analyzed(**of_analysis))


def scene(**values: Any) -> Card:
    (only,) = checked(card_reply(**values), **PLAIN)
    return only


Refused = tuple[list[dict[str, Any]], dict[str, Any], str]

REFUSED: dict[str, Refused] = {
    "no Scene": ([COMPARISON, HANJA], {}, "missing_card"),
    "no comparison": ([SCENE, HANJA], {}, "missing_card"),
    "no Hanja": ([SCENE, COMPARISON], {}, "missing_card"),
    "a Hanja card without hanja": (
        [SCENE, COMPARISON, HANJA],
        {"hanja": None},
        "hanja_card",
    ),
    "a comparison with nothing": (
        [SCENE, COMPARISON, HANJA],
        {"comparison": None},
        "comparison_card",
    ),
    "two of a type": ([SCENE, card_reply(front="Another?")], PLAIN, "duplicate_card"),
    "two of a front": (
        [SCENE, card_reply("Example", front=SCENE["front"])],
        PLAIN,
        "duplicate_card",
    ),
    "two of a front but for blanks": (
        [SCENE, card_reply("Example", front=f"\n{SCENE['front']} ")],
        PLAIN,
        "duplicate_card",
    ),
    "another term": ([card_reply(back="물: water.")], PLAIN, "wrong_term"),
    "a link": ([card_reply(back="책: see https://example.org")], PLAIN, "markup"),
    "HTML in front": ([card_reply(front="What is <b>책</b>?")], PLAIN, "markup"),
    "markup as level": ([card_reply(honorific_level="{{c1::polite}}")], PLAIN, "markup"),
    "a broken character": ([card_reply(back="책: b\ufffdok")], PLAIN, "markup"),
    "an empty front": ([card_reply(front=" ")], PLAIN, "bounds"),
    "an empty back": ([card_reply(front="책?", back="\n")], PLAIN, "bounds"),
    "an endless front": ([card_reply(front="x" * 1_001)], PLAIN, "bounds"),
    "an endless back": ([card_reply(back=f"책{'x' * 4_000}")], PLAIN, "bounds"),
}


@pytest.mark.parametrize(("cards", "of_analysis", "reason"), REFUSED.values(), ids=REFUSED)
def test_an_unfit_reply_is_refused_for_its_reason(
    cards: list[dict[str, Any]], of_analysis: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ReplyRejected) as raised:
        checked(*cards, **of_analysis)
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    ("cards", "detail"),
    [
        ([SCENE], "no Usage-Comparison, Hanja card"),
        ([SCENE, COMPARISON, {**HANJA, "back": "<br>"}], "the Hanja card holds a link"),
        ([SCENE, COMPARISON, {**HANJA, "back": ""}], "Hanja card, back: String should have"),
    ],
)
def test_a_refusal_says_what_is_wrong(cards: list[dict[str, Any]], detail: str) -> None:
    with pytest.raises(ReplyRejected) as raised:
        checked(*cards)
    assert detail in raised.value.detail


def test_the_columns_that_are_ours_are_written_by_us() -> None:
    event = analyzed(accepted_as=accepted(position=42))
    card = checked_cards(CardsReply.model_validate(cards_reply()), event)[0]
    assert (card.position, card.term_number) == (1, 42)
    assert card.term == "책[tɕʰɛk̚]"
    assert card.primer == primer("책[tɕʰɛk̚]", 42, "noun")


def test_cards_come_in_our_order_and_are_numbered_from_one() -> None:
    grammar = card_reply("Grammar")
    cards = checked(grammar, HANJA, COMPARISON, SCENE)
    assert [card.tab_name for card in cards] == ["Scene", "Usage-Comparison", "Hanja", "Grammar"]
    assert [card.position for card in cards] == [1, 2, 3, 4]


def test_a_card_of_each_type_is_taken() -> None:
    assert len(checked(*(card_reply(card_type) for card_type in CARD_TYPES))) == len(CARD_TYPES)


def test_tabs_and_line_breaks_never_reach_a_column() -> None:
    card = scene(front="What\tis\r\nit?", back="책:\n\na  book\u2028.", honorific_level="po\tlite")
    assert card.front == "What is it?"
    assert card.back == "책: a book ."
    assert card.honorific_level == "po lite"


def test_a_missing_level_is_empty() -> None:
    assert scene(honorific_level=None).honorific_level == ""


TAGS = {
    "Scene": ("term:책", "pos:noun", "card:Scene", "metaphor:book"),
    "Usage-Comparison": ("term:책", "pos:noun", "card:Usage-Comparison", "comparison_term:서적"),
    "Hanja": ("term:책", "pos:noun", "card:Hanja", "hanja", "character:冊"),
    "Grammar": ("term:책", "pos:noun", "card:Grammar"),
}


@pytest.mark.parametrize(("card_type", "tags"), TAGS.items(), ids=TAGS)
def test_tags_say_what_the_card_is(card_type: str, tags: tuple[str, ...]) -> None:
    cards = checked(*(card_reply(each, tags=[]) for each in TAGS))
    assert {card.tab_name: card.tags for card in cards}[card_type] == tags


def test_every_character_of_the_hanja_has_its_tag() -> None:
    (_, hanja) = checked(SCENE, HANJA, comparison=None, hanja="冊 子")
    assert hanja.tags[3:6] == ("hanja", "character:冊", "character:子")


def test_a_type_without_anything_to_compare_has_no_comparison_tag() -> None:
    assert not [tag for tag in scene().tags if tag.startswith("comparison_term")]


MODEL_TAGS = {
    "of a known kind": (
        ["concept:reading", "level:beginner"],
        ["concept:reading", "level:beginner"],
    ),
    "of an unknown kind": (["topik:1", "reading", "deck::sub"], []),
    "ours may not be claimed": (["term:물", "pos:verb", "card:Hanja"], []),
    "without a value": (["concept:", ":reading", "concept"], []),
    "with blanks and commas": ([" concept:to read, aloud "], ["concept:to_read_aloud"]),
    "twice": (["level:a", "level:a"], ["level:a"]),
    "with markup": (["concept:<b>", "concept:https://x.org", "level:\ufffd"], []),
}


@pytest.mark.parametrize(("said", "kept"), MODEL_TAGS.values(), ids=MODEL_TAGS)
def test_of_the_models_tags_only_the_kinds_that_we_know_are_kept(
    said: list[str], kept: list[str]
) -> None:
    assert list(scene(tags=said).tags[4:]) == kept


def test_a_card_has_twelve_tags_at_most_and_ours_are_among_them() -> None:
    tags = scene(tags=[f"concept:{n}" for n in range(100)]).tags
    assert len(tags) == 12
    assert tags[:4] == TAGS["Scene"]


def test_no_tag_holds_a_blank() -> None:
    (only,) = checked(card_reply(back="눈이 높다"), term="눈이 높다", **PLAIN)
    assert only.tags[0] == "term:눈이_높다"
    assert not [tag for tag in only.tags if any(sign.isspace() or sign == "," for sign in tag)]


def test_what_came_through_passed_every_check() -> None:
    assert [verdict.check for verdict in passed()] == list(CHECKS)
    assert {verdict.verdict for verdict in passed()} == {"passed"}


def test_a_term_that_a_check_of_stage_1_flagged_has_it_on_every_card() -> None:
    said = (
        CheckVerdict(check="term", verdict="passed"),
        CheckVerdict(check="second_opinion", verdict="flagged", detail="a: noun; b: verb"),
    )
    event = analyzed().model_copy(update={"stage1": provenance(checks=said)})
    reply = CardsReply.model_validate(cards_reply(SCENE, COMPARISON, HANJA))
    for card in checked_cards(reply, event):
        assert "check::second-opinion" in card.tags
        assert "check::term" not in card.tags


def test_a_term_without_a_flag_has_no_such_tag() -> None:
    assert not [tag for tag in scene().tags if tag.startswith("check")]
