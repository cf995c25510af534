"""From what the model said to cards that we promise. Unfit replies are refused."""

from __future__ import annotations

import re

from pydantic import ValidationError

from services.kernel.contracts.analysis import TermAnalyzed
from services.kernel.contracts.card import Card
from services.kernel.contracts.provenance import CheckVerdict
from services.kernel.errors import ReplyRejected
from services.kernel.llm.reply import has_foreign_matter, refuse_foreign_matter
from services.stage2.primer import primer
from services.stage2.prompt import CardReply, CardsReply, required_card_types

CHECKS = ("term", "card_types", "no_duplicates", "no_markup", "bounds")
_MODEL_TAGS = ("concept", "metaphor", "comparison_term", "character", "level", "formality")
_TAGS_MAX = 12


def checked_cards(reply: CardsReply, analyzed: TermAnalyzed) -> tuple[Card, ...]:
    """The nine columns, written by us. Raises ReplyRejected that says what is wrong."""
    required = required_card_types(analyzed)
    by_type = {card.tab_name: card for card in reply.cards}
    if len(by_type) != len(reply.cards):
        raise ReplyRejected("duplicate_card", "two cards have the same type")
    if missing := [wanted for wanted in required if wanted not in by_type]:
        raise ReplyRejected("missing_card", f"no {', '.join(missing)} card")
    if "Hanja" in by_type and analyzed.analysis.hanja is None:
        raise ReplyRejected("hanja_card", "a Hanja card for a term without hanja")
    if "Usage-Comparison" in by_type and analyzed.analysis.comparison is None:
        raise ReplyRejected("comparison_card", "a Usage-Comparison card with nothing to compare")
    term = analyzed.accepted.term
    if not any(term in card.front or term in card.back for card in reply.cards):
        raise ReplyRejected("wrong_term", f"no card so much as mentions {term}")
    if len({_line(card.front) for card in reply.cards}) != len(reply.cards):
        raise ReplyRejected("duplicate_card", "two cards have the same front")
    ordered = [by_type[wanted] for wanted in required]
    ordered += [card for card in reply.cards if card.tab_name not in required]
    return tuple(_card(card, place, analyzed) for place, card in enumerate(ordered, start=1))


def passed() -> tuple[CheckVerdict, ...]:
    """The verdicts of cards that came through."""
    return tuple(CheckVerdict(check=check, verdict="passed") for check in CHECKS)


def _card(reply: CardReply, place: int, analyzed: TermAnalyzed) -> Card:
    analysis = analyzed.analysis
    for text in (reply.front, reply.back, reply.honorific_level or ""):
        refuse_foreign_matter(text, f"the {reply.tab_name} card")
    try:
        return Card(
            position=place,
            term=analysis.term,
            term_number=analysis.term_number,
            tab_name=reply.tab_name,
            primer=primer(analysis.term, analysis.term_number, analysis.pos),
            front=_line(reply.front),
            back=_line(reply.back),
            tags=_tags(reply, analyzed),
            honorific_level=_line(reply.honorific_level or ""),
        )
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise ReplyRejected("bounds", f"{reply.tab_name} card, {where}: {fault['msg']}") from error


def _tags(reply: CardReply, analyzed: TermAnalyzed) -> tuple[str, ...]:
    """Ours first; of the model's only the kinds that we know."""
    analysis, term = analyzed.analysis, analyzed.accepted.term
    tags = [f"term:{term}", f"pos:{analysis.pos}", f"card:{reply.tab_name}"]
    flagged = (c.check for c in analyzed.stage1.checks if c.verdict == "flagged")
    tags += [f"check::{check.replace('_', '-')}" for check in flagged]
    match reply.tab_name:
        case "Scene":
            tags.append(f"metaphor:{analysis.metaphor_noun}")
        case "Usage-Comparison" if analysis.comparison:
            tags.append(f"comparison_term:{analysis.comparison.vs}")
        case "Hanja":
            tags += ["hanja", *(f"character:{c}" for c in analysis.hanja or "" if not c.isspace())]
    tags += [tag for tag in reply.tags if _is_known(tag)]
    clean = (re.sub(r"[\s,]+", "_", tag.strip()) for tag in tags)
    return tuple(dict.fromkeys(clean))[:_TAGS_MAX]


def _is_known(tag: str) -> bool:
    kind, colon, value = tag.strip().partition(":")
    return bool(colon and value) and kind in _MODEL_TAGS and not has_foreign_matter(tag)


def _line(text: str) -> str:
    """One line without tabs, so that no row of a TSV file breaks."""
    return " ".join(text.split())
