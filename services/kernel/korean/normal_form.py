"""The normal form of a term: one spelling for all the ways in which people write it down.

The same normal form and homonym number are the same term, so every rule here is part of a term's
identity: changing one gives terms new ids.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from services.kernel.errors import TermRefused
from services.kernel.korean.hangul import (
    compose_jamo,
    contains_hangul,
    contains_loose_jamo,
    is_hangul_syllable,
)

RefusalReason = Literal[
    "empty",  # nothing is left once numbering, punctuation and brackets are off
    "control_character",  # NUL, line breaks, bidi controls, lone surrogates, U+FFFD
    "markup",  # HTML, Anki's [sound:…] and {{…}}, LaTeX
    "formula",  # what a spreadsheet would evaluate
    "url",
    "mail_address",
    "loose_jamo",  # letters that spell no syllable: ㅋㅋ, ㅏ
    "not_korean",  # no Hangul syllable
    "too_long",
]

MAX_CHARACTERS: Final = 100
"""Of the normal form, in code points."""

_HEAD_MAX_CHARACTERS = 1_000
"""Of the term with its glosses in brackets: room for both, and a bound on our work."""

_SHOWN_CHARACTERS = 40
"""How much of a refused text a message repeats."""


@dataclass(frozen=True)
class NormalForm:
    """A term's `text`, its dictionary's `homonym` number, and the glosses that came with it."""

    text: str
    homonym: int | None
    hint: str | None


def normal_form(raw: str) -> NormalForm:
    """The normal form of what somebody wrote; unchanged when given its own `text` again.

    Raises `TermRefused` for the field `term`, with a `RefusalReason`, for whatever is no term.
    The hint keeps every gloss whole, joined by "; ", and has no bound of length.
    """
    if len(raw) <= MAX_CHARACTERS and _PLAIN_HANGUL.fullmatch(raw):
        return NormalForm(raw, None, None)
    head, _, tail = _TAB_NUMBERING.sub("", _readable(raw)).partition("\t")
    _refuse(head, _REFUSALS_BEFORE)
    text, homonym, glosses = _take_apart(head)
    if not text:
        raise _refusal("empty", raw, "leaves nothing but signs and glosses; send a term")
    _refuse(text, _REFUSALS_AFTER)
    hints = [shown for gloss in (*glosses, tail) if (shown := _collapse(gloss))]
    return NormalForm(text, homonym, "; ".join(hints) or None)


_PLAIN_HANGUL = re.compile(r"[가-힣]+(?: [가-힣]+)*")

_INVISIBLE = (
    "\u00ad\u034f\u180e\u200b-\u200d\u2060-\u2064\ufe00-\ufe0f\ufeff"  # soft hyphen … BOM
    "\u115f\u1160\u3164\uffa0"  # the Hangul fillers
)
_INVISIBLES = re.compile(f"[{_INVISIBLE}]")

# Full-width forms but ＜＞, which Korean uses as quotation marks, and the characters that people
# type for the middle dot of 6·25 전쟁 (U+318D is a letter, but nobody means it).
_FOLDED = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F) if chr(wide) not in "＜＞"} | (
    dict.fromkeys(map(ord, "ㆍ・･‧⋅"), "·")
)

_BROKEN = "\ufffd"
"""What a decoder leaves where it could not read: the term is not what was written."""

_CONTROL_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
_LINE_BREAKS = "\r\n\u2028\u2029"
# What may stand around a term. str.strip() would take off control characters too.
_EN_QUAD_TO_HAIR_SPACE = "".join(map(chr, range(0x2000, 0x200B)))
_BLANKS = f" \t\u00a0\u1680{_EN_QUAD_TO_HAIR_SPACE}\u202f\u205f\u3000{_LINE_BREAKS}"

_TAB_NUMBERING = re.compile(r"^[0-9]{1,6}\t+(?=.)")
# A dot before a digit is a decimal or a date (3.1 운동); ①, ⑴, ⒈, ⓫, ❶ and ㉑ need no sign after.
_NUMBERING = re.compile(r"^(?:[0-9]{1,6}(?:[)、]|\.(?![0-9]))\s*|[①-⒛⓪-⓾❶-➓㉑-㉟㊱-㊿]\s*)+")
_DANGLING_DASHES = re.compile(r"^[-–—~]+\s+|\s+[-–—~]+$")
_EDGES = " .,;:!?…。、·•▪■●○◦*|\"'`“”‘’「」『』〈〉《》＜＞"

_OPENING = frozenset("([{【〔〖")
_CLOSING = frozenset(")]}】〕〗")

_BRACKETED_HOMONYM = re.compile(r"0{0,2}[0-9]{1,2}")
# Two digits without a zero count only after a short word: the Standard Dictionary has 의사12, but
# no word of three syllables with ten homonyms, and 코로나19 is a term.
_HOMONYM = re.compile(
    r"(?<=[가-힣])(?:0[0-9]{1,2}|[1-9]|(?<![가-힣]{3})[1-9][0-9]|[⁰¹²³⁴-⁹₀-₉]{1,2})\Z"
)

_MARKUP = re.compile(
    r"[<>\\]|&#?\w+;|\{\{|\}\}|\$[^$]+\$|\[/?(?:sound:|latex|\$)", re.IGNORECASE | re.ASCII
)
# -는데 is an ending as dictionaries write it, -1 is not.
_FORMULA = re.compile(r"[=+@]|-(?![가-힣ㄱ-ㅣ])")
_URL = re.compile(
    r"[a-z][a-z0-9+.-]{0,20}://|\bwww\.|\bmailto:|[a-z0-9-]\.[a-z]{2,10}/", re.IGNORECASE
)
_MAIL_ADDRESS = re.compile(r"[^\s@]@[^\s@]+\.[^\s@]")

_Refusal = tuple[RefusalReason, Callable[[str], object], str]

_REFUSALS_BEFORE: tuple[_Refusal, ...] = (
    ("markup", _MARKUP.search, "holds HTML, Anki or LaTeX markup; send the bare term"),
    (
        "too_long",
        lambda head: len(head) > _HEAD_MAX_CHARACTERS,
        f"has more than {_HEAD_MAX_CHARACTERS} characters; send the term, its gloss as hint",
    ),
)
_REFUSALS_AFTER: tuple[_Refusal, ...] = (
    _REFUSALS_BEFORE[0],
    ("formula", _FORMULA.match, "begins like a spreadsheet formula; send the bare term"),
    ("url", _URL.search, "holds a web address; send the term alone"),
    ("mail_address", _MAIL_ADDRESS.search, "holds a mail address; send the term alone"),
    ("loose_jamo", contains_loose_jamo, "has letters outside of syllables; spell whole syllables"),
    ("not_korean", lambda text: not contains_hangul(text), "has no Hangul; send a Korean term"),
    (
        "too_long",
        lambda text: len(text) > MAX_CHARACTERS,
        f"has more than {MAX_CHARACTERS} characters after normalising; send one term",
    ),
)


def _refuse(text: str, refusals: tuple[_Refusal, ...]) -> None:
    for reason, applies, detail in refusals:
        if applies(text):
            raise _refusal(reason, text, detail)


def _refusal(reason: RefusalReason, seen: str, detail: str) -> TermRefused:
    shown = seen if len(seen) <= _SHOWN_CHARACTERS else f"{seen[:_SHOWN_CHARACTERS]}…"
    return TermRefused(field="term", reason=reason, detail=f"{shown!r} {detail}")


def _readable(raw: str) -> str:
    """The text folded, composed and trimmed; of all control characters only tabs are left."""
    text = _compose(_INVISIBLES.sub("", raw).translate(_FOLDED)).strip(_BLANKS)
    if not text.isprintable() or _BROKEN in text:
        _refuse_controls(text)
    return text


def _refuse_controls(text: str) -> None:
    """Line breaks inside are refused too: the message may be a whole list, sent as one term."""
    for character in text:
        is_control = unicodedata.category(character) in _CONTROL_CATEGORIES
        if character == _BROKEN or (is_control and character != "\t"):
            code = f"U+{ord(character):04X}"
            what = "a line break" if character in _LINE_BREAKS else "a control character"
            raise _refusal("control_character", text, f"holds {what} ({code}); send one clean line")


def _compose(text: str) -> str:
    return unicodedata.normalize("NFC", compose_jamo(text))


def _collapse(text: str) -> str:
    return " ".join(text.split())


def _take_apart(head: str) -> tuple[str, int | None, list[str]]:
    """Text, homonym and glosses of a term.

    Repeats until nothing changes, since what is taken off can uncover more: `"1. 책"`. Each
    round but the last shortens the text or composes it.
    """
    text, before = head, ""
    homonym: int | None = None
    glosses: list[str] = []
    while text != before:
        before = text
        text, bracketed, more = _without_brackets(_NUMBERING.sub("", text))
        glosses += more
        text = _DANGLING_DASHES.sub("", _collapse(_compose(text)).strip(_EDGES))
        text, attached = _without_homonym(text)
        homonym = homonym or bracketed or attached
    return text, homonym, glosses


def _without_homonym(text: str) -> tuple[str, int | None]:
    """`배01` → 배, 1. The number 00 is how word lists mark a term without homonyms."""
    found = _HOMONYM.search(text)
    if found is None:
        return text, None
    number = int("".join(str(unicodedata.digit(digit)) for digit in found[0]))
    return text[: found.start()], number or None


def _without_brackets(text: str) -> tuple[str, int | None, list[str]]:
    """The text outside of brackets, the number in them that is a homonym's, and the glosses."""
    homonym: int | None = None
    glosses: list[str] = []
    outside, bracketed = _split_brackets(text)
    for position, content in bracketed:
        before = outside[:position].rstrip()
        if not _BRACKETED_HOMONYM.fullmatch(content) or (before and homonym is not None):
            glosses.append(content)
        elif before and is_hangul_syllable(before[-1]):
            homonym = int(content)
        elif before:
            glosses.append(content)
    return outside, homonym or None, glosses


def _split_brackets(text: str) -> tuple[str, list[tuple[int, str]]]:
    """The text outside of the outermost brackets, and what they hold with its place outside.

    Any closing bracket ends any opening one; one never closed reaches to the end.
    """
    outside: list[str] = []
    inside: list[str] = []
    bracketed: list[tuple[int, str]] = []
    depth = 0
    for character in text:
        closes = character in _CLOSING
        if closes and depth == 1:
            bracketed.append((len(outside), "".join(inside)))
            inside = []
        elif depth:
            inside.append(character)
        elif not closes and character not in _OPENING:
            outside.append(character)
        depth = max(0, depth + (character in _OPENING) - closes)
    if inside:
        bracketed.append((len(outside), "".join(inside)))
    return "".join(outside), bracketed
