"""The Standard Pronunciation of Korean (표준 발음법, 2017), as far as spelling alone decides it.

From the spelling of a word to its surface form, the Hangul that is spoken: 국물 → 궁물. The rules
work on the seam between two syllables, from left to right; each notes the article that it follows.
What spelling does not show (tensing in compounds, an inserted ㄴ) is said by `lexicon`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from services.kernel.korean.lexicon import ARTICLES, Switch
from services.kernel.korean.syllables import SILENT, Syllable, spelled, syllables_of

CLUSTERS: Final = {
    "ㄳ": "ㄱㅅ",
    "ㄵ": "ㄴㅈ",
    "ㄶ": "ㄴㅎ",
    "ㄺ": "ㄹㄱ",
    "ㄻ": "ㄹㅁ",
    "ㄼ": "ㄹㅂ",
    "ㄽ": "ㄹㅅ",
    "ㄾ": "ㄹㅌ",
    "ㄿ": "ㄹㅍ",
    "ㅀ": "ㄹㅎ",
    "ㅄ": "ㅂㅅ",
}
REPRESENTATIVE: Final = {
    **dict.fromkeys("ㄱㄲㅋㄳㄺ", "ㄱ"),
    **dict.fromkeys("ㄷㅅㅆㅈㅊㅌㅎ", "ㄷ"),
    **dict.fromkeys("ㅂㅍㅄㄿ", "ㅂ"),
    **dict.fromkeys("ㄴㄵㄶ", "ㄴ"),
    **dict.fromkeys("ㄹㄼㄽㄾㅀ", "ㄹ"),
    **dict.fromkeys("ㅁㄻ", "ㅁ"),
    "ㅇ": "ㅇ",
    "": "",
}
"""What is spoken of a coda at the end of a word or before a consonant (articles 8–11)."""

TENSE: Final = dict(zip("ㄱㄷㅂㅅㅈ", "ㄲㄸㅃㅆㅉ", strict=True))
ASPIRATED: Final = dict(zip("ㄱㄷㅂㅈ", "ㅋㅌㅍㅊ", strict=True))
_NASAL: Final = {"ㄱ": "ㅇ", "ㄷ": "ㄴ", "ㅂ": "ㅁ"}
_TENSING_CODAS: Final = frozenset("ㄱㄲㅋㄳㄺㄷㅅㅆㅈㅊㅌㅂㅍㅄㄿㄵ")
"""ㄵ holds an obstruent, too; it has an article of its own."""
_H_CODAS: Final = {"ㅎ": "", "ㄶ": "ㄴ", "ㅀ": "ㄹ"}
"""What is left of a coda whose ㅎ has gone."""


@dataclass(frozen=True)
class Applied:
    """A rule at work: `before` and `after` are the syllables about the seam, in Hangul."""

    rule: str
    article: str
    before: str
    after: str


@dataclass(frozen=True)
class Surface:
    """What is spoken, in Hangul, and the rules that led there, in their order."""

    text: str
    applied: tuple[Applied, ...]


Seam = tuple[Syllable, Syllable]
Rule = Callable[[Syllable, Syllable], tuple[str, str, Seam] | None]


def surface_of(word: str, switches: Mapping[int, Switch] | None = None) -> Surface:
    """The surface form of one word of composed syllables.

    `switches`: what happens at the seams before some syllables though spelling does not show it.
    """
    syllables = syllables_of(word)
    is_base_form = len(word) > 1 and word.endswith("다")
    applied: list[Applied] = []
    for index, switch in (switches or {}).items():
        _switch(syllables, index, switch, applied)
    for index in range(len(syllables) - 1):
        is_last = index == len(syllables) - 2
        left, right = syllables[index], syllables[index + 1]
        for rule in _rules(is_stem_end=is_base_form and is_last):
            found = rule(left, right)
            if found is None:
                continue
            name, article, (new_left, new_right) = found
            applied.append(
                Applied(name, article, spelled((left, right)), spelled((new_left, new_right)))
            )
            left, right = new_left, new_right
        syllables[index], syllables[index + 1] = left, right
    _end(syllables, applied)
    _vowels(syllables, applied)
    return Surface(spelled(syllables), tuple(applied))


def _switch(syllables: list[Syllable], index: int, switch: Switch, applied: list[Applied]) -> None:
    if index == 0:
        _tense_first(syllables, applied)
        return
    left, right = syllables[index - 1], syllables[index]
    match switch:
        case "tense":
            seam = left, right._replace(onset=TENSE.get(right.onset, right.onset))
            name = "tensing in a compound"
        case "insert":
            seam = left, right._replace(onset="ㄴ")
            name = "ㄴ inserted"
        case "block":
            neutral = REPRESENTATIVE[left.coda]
            seam = left._replace(coda=""), right._replace(onset=neutral)
            name = "the coda is neutral before it is linked"
        case "nasal":
            seam = left, right._replace(onset="ㄴ")
            name = "ㄹ said as ㄴ"
    applied.append(Applied(name, ARTICLES[switch], spelled((left, right)), spelled(seam)))
    syllables[index - 1], syllables[index] = seam


def _tense_first(syllables: list[Syllable], applied: list[Applied]) -> None:
    """Of a loanword: 버스 → 뻐스."""
    first = syllables[0]
    tensed = first._replace(onset=TENSE.get(first.onset, first.onset))
    applied.append(Applied("tensing in a loanword", "", spelled((first,)), spelled((tensed,))))
    syllables[0] = tensed


def _rules(*, is_stem_end: bool) -> tuple[Rule, ...]:
    stem = (_tense_after_stem,) if is_stem_end else ()
    cluster = (_cluster_of_a_stem, _tense, _simplify)
    return (_palatalise, _drop_or_join_h, *stem, _link, *cluster, _nasalise, _lateralise)


def _palatalise(left: Syllable, right: Syllable) -> tuple[str, str, Seam] | None:
    """같이 → 가치, 굳이 → 구지, 닫히다 → 다치다."""
    if right.vowel != "ㅣ" and not (right.vowel == "ㅕ" and right.coda in ("", "ㅆ")):
        return None
    if right.onset == SILENT and left.coda in ("ㄷ", "ㅌ", "ㄾ"):
        onset, rest = {"ㄷ": ("ㅈ", ""), "ㅌ": ("ㅊ", ""), "ㄾ": ("ㅊ", "ㄹ")}[left.coda]
    elif right.onset == "ㅎ" and left.coda == "ㄷ":
        onset, rest = "ㅊ", ""
    else:
        return None
    return "palatalisation", "17", (left._replace(coda=rest), right._replace(onset=onset))


def _drop_or_join_h(left: Syllable, right: Syllable) -> tuple[str, str, Seam] | None:
    """놓다 → 노타, 먹히다 → 머키다, 좋소 → 조쏘, 놓는 → 논는, 좋아 → 조아."""
    if left.coda in _H_CODAS:
        rest = _H_CODAS[left.coda]
        match right.onset:
            case "ㄱ" | "ㄷ" | "ㅈ":
                onset = ASPIRATED[right.onset]
                name, article = "aspiration", "12.1"
            case "ㅅ":
                onset, name, article = "ㅆ", "tensing after ㅎ", "12.2"
            case "ㄴ":
                onset, name, article = "ㄴ", "ㅎ before ㄴ", "12.3"
                rest = rest or "ㄴ"
            case "ㅇ":
                onset, name, article = SILENT, "ㅎ falls silent", "12.4"
            case _:
                return None
        return name, article, (left._replace(coda=rest), right._replace(onset=onset))
    if right.onset != "ㅎ" or not left.coda:
        return None
    rest, last = _split(left.coda)
    base = last if last == "ㅈ" else REPRESENTATIVE.get(last, "")
    if base not in ASPIRATED:
        return None
    joined = right._replace(onset=ASPIRATED[base])
    return "aspiration", "12.1", (left._replace(coda=rest), joined)


def _tense_after_stem(left: Syllable, right: Syllable) -> tuple[str, str, Seam] | None:
    """신다 → 신따, 젊다 → 점따, 넓다 → 널따, 핥다 → 할따."""
    if right.onset != "ㄷ" or left.coda not in ("ㄴ", "ㅁ", "ㄻ", "ㄼ", "ㄾ"):
        return None
    article = "25" if left.coda in ("ㄼ", "ㄾ") else "24"
    return "tensing after a verb stem", article, (left, right._replace(onset="ㄸ"))


def _cluster_of_a_stem(left: Syllable, right: Syllable) -> tuple[str, str, Seam] | None:
    """밟다 → 밥따, 밟는 → 밤는, unlike 넓다 → 널따."""
    if left != Syllable("ㅂ", "ㅏ", "ㄼ") or right.onset == SILENT:
        return None
    return "밟- before a consonant", "10", (left._replace(coda="ㅂ"), right)


def _link(left: Syllable, right: Syllable) -> tuple[str, str, Seam] | None:
    """옷이 → 오시, 앉아 → 안자, 값이 → 갑씨."""
    if right.onset != SILENT or left.coda in ("", "ㅇ"):
        return None
    rest, last = _split(left.coda)
    if rest and last == "ㅅ":
        last = "ㅆ"
    article = "14" if rest else "13"
    return "liaison", article, (left._replace(coda=rest), right._replace(onset=last))


def _tense(left: Syllable, right: Syllable) -> tuple[str, str, Seam] | None:
    """국밥 → 국빱."""
    if left.coda not in _TENSING_CODAS or right.onset not in TENSE:
        return None
    article = "24" if left.coda == "ㄵ" else "23"
    return "tensing", article, (left, right._replace(onset=TENSE[right.onset]))


def _simplify(left: Syllable, right: Syllable) -> tuple[str, str, Seam] | None:
    """닭장 → 닥짱, 꽃밭 → 꼳빧."""
    coda = REPRESENTATIVE[left.coda]
    if coda == left.coda or right.onset == SILENT:
        return None
    name, article, simplified = _simplified(left, coda)
    return name, article, (simplified, right)


def _simplified(left: Syllable, coda: str) -> tuple[str, str, Syllable]:
    article = "10" if left.coda in CLUSTERS else "9"
    if left.coda in ("ㄺ", "ㄻ", "ㄿ"):
        article = "11"
    name = "cluster simplified" if left.coda in CLUSTERS else "coda neutralised"
    return name, article, left._replace(coda=coda)


def _nasalise(left: Syllable, right: Syllable) -> tuple[str, str, Seam] | None:
    """국물 → 궁물, 담력 → 담녁, 독립 → 동닙."""
    if left.coda in _NASAL and right.onset in ("ㄴ", "ㅁ"):
        return "nasalisation", "18", (left._replace(coda=_NASAL[left.coda]), right)
    if left.coda in ("ㅁ", "ㅇ") and right.onset == "ㄹ":
        return "nasalisation of ㄹ", "19", (left, right._replace(onset="ㄴ"))
    if left.coda in _NASAL and right.onset == "ㄹ":
        nasal = left._replace(coda=_NASAL[left.coda])
        return "nasalisation of ㄹ", "19", (nasal, right._replace(onset="ㄴ"))
    return None


def _lateralise(left: Syllable, right: Syllable) -> tuple[str, str, Seam] | None:
    """신라 → 실라, 칼날 → 칼랄."""
    if {left.coda, right.onset} == {"ㄴ", "ㄹ"}:
        return "lateralisation", "20", (left._replace(coda="ㄹ"), right._replace(onset="ㄹ"))
    return None


def _split(coda: str) -> tuple[str, str]:
    """What stays of a coda, and its last letter."""
    cluster = CLUSTERS.get(coda)
    return (cluster[0], cluster[1]) if cluster else ("", coda)


def _end(syllables: list[Syllable], applied: list[Applied]) -> None:
    last = syllables[-1]
    coda = REPRESENTATIVE[last.coda]
    if coda != last.coda:
        name, article, ended = _simplified(last, coda)
        applied.append(Applied(name, article, spelled((last,)), spelled((ended,))))
        syllables[-1] = ended


def _vowels(syllables: list[Syllable], applied: list[Applied]) -> None:
    """져 → 저, 희 → 히. What is merely permitted is no matter of the surface form."""
    for index, syllable in enumerate(syllables):
        if syllable.onset in "ㅈㅉㅊ" and syllable.vowel == "ㅕ":
            new, article = syllable._replace(vowel="ㅓ"), "5.1"
        elif syllable.vowel == "ㅢ" and syllable.onset != SILENT:
            new, article = syllable._replace(vowel="ㅣ"), "5.3"
        else:
            continue
        applied.append(Applied("vowel", article, spelled((syllable,)), spelled((new,))))
        syllables[index] = new
