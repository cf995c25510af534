"""From what the model said to an analysis that we promise. Unfit replies are refused."""

from __future__ import annotations

import re
import unicodedata

from pydantic import ValidationError

from services.kernel.contracts.analysis import Analysis
from services.kernel.contracts.provenance import CheckVerdict
from services.kernel.contracts.term import TermAccepted
from services.kernel.errors import ReplyRejected, TermRefused
from services.kernel.korean.hangul import contains_hangul
from services.kernel.korean.normal_form import normal_form
from services.kernel.llm.reply import refuse_foreign_matter
from services.stage1.prompt import AnalysisReply

_IPA = re.compile(r"\[[^\[\]\s][^\[\]]*\]")
CHECKS = ("term", "pronunciation_form", "keywords", "comparison", "homonyms", "no_markup", "bounds")


def checked_analysis(reply: AnalysisReply, accepted: TermAccepted) -> Analysis:
    """Raises ReplyRejected (`wrong_term`, `markup`, `bounds`, …) that says what is wrong."""
    _check_term(reply, accepted)
    _check_texts(reply)
    keywords = _keywords(reply, accepted.term)
    if reply.comparison and _same(reply.comparison.vs, accepted.term):
        raise ReplyRejected("comparison", f"{accepted.term} is compared with itself")
    ipa = _ipa(reply.ipa)
    fields = reply.model_dump(exclude={"term", "ipa", "korean_keywords", "homonyms"})
    homonyms = [homonym.model_dump() for homonym in reply.homonyms or []] or None
    try:
        return Analysis.model_validate(
            {
                **fields,
                "term_number": accepted.position,
                "term": f"{accepted.term}{ipa}",
                "ipa": ipa,
                "homonyms": homonyms,
                "korean_keywords": keywords,
            }
        )
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise ReplyRejected("bounds", f"{where}: {fault['msg']}") from error


def passed() -> tuple[CheckVerdict, ...]:
    """The verdicts of an analysis that came through."""
    return tuple(CheckVerdict(check=check, verdict="passed") for check in CHECKS)


def _check_term(reply: AnalysisReply, accepted: TermAccepted) -> None:
    if not _same(reply.term, accepted.term):
        raise ReplyRejected("wrong_term", f"asked for {accepted.term}, answered {reply.term!r}")


def _same(answered: str, asked: str) -> bool:
    try:
        return normal_form(answered).text == asked
    except TermRefused:
        return False


def _ipa(answered: str) -> str:
    """One line: it becomes part of the term on every card."""
    ipa = " ".join(unicodedata.normalize("NFC", answered).split())
    if not _IPA.fullmatch(ipa) or contains_hangul(ipa) or not ipa.isprintable():
        raise ReplyRejected("ipa", f"{ipa!r} is no IPA in square brackets")
    return ipa


def _check_texts(reply: AnalysisReply) -> None:
    for name, value in _texts(reply.model_dump()):
        refuse_foreign_matter(value, name.removeprefix("."))


def _texts(value: object, name: str = "") -> list[tuple[str, str]]:
    match value:
        case str():
            return [(name, value)]
        case dict():
            return [pair for key, item in value.items() for pair in _texts(item, f"{name}.{key}")]
        case list():
            return [pair for item in value for pair in _texts(item, name)]
        case _:
            return []


def _keywords(reply: AnalysisReply, term: str) -> list[str]:
    """All Korean, the term first, none twice, at most ten: what is foreign falls out."""
    korean = [word.strip() for word in reply.korean_keywords if contains_hangul(word)]
    return list(dict.fromkeys([term, *korean]))[:10]
