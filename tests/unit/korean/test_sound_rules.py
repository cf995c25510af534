"""The articles of the standard, each by examples of its own kind."""

from __future__ import annotations

import re

import pytest

from services.kernel.korean.sound_rules import surface_of

SAID = """
5.1: 가져→가저 쪄→쩌 다쳐→다처 묻혀→무처 붙여→부처
5.3: 늴리리→닐리리 희어→히어 무늬→무니 띄어쓰기→띠어쓰기 희망→히망
9: 닦다→닥따 키읔→키윽 옷→옫 웃다→욷따 있다→읻따 젖→젇 빚다→빋따 꽃→꼳 쫓다→쫃따
   솥→솓 뱉다→밷따 앞→압 덮다→덥따
10: 넋→넉 앉다→안따 여덟→여덜 넓다→널따 외곬→외골 핥다→할따 값→갑 없다→업따 밟다→밥따
11: 닭→닥 흙과→흑꽈 맑다→막따 삶→삼 젊다→점따 읊고→읍꼬 읊다→읍따
12.1: 놓고→노코 좋던→조턴 쌓지→싸치 많고→만코 않던→안턴 닳지→달치 먹히다→머키다
   밝히다→발키다 맏형→마텽 좁히다→조피다 넓히다→널피다 꽂히다→꼬치다 앉히다→안치다
12.2: 닿소→다쏘 많소→만쏘 싫소→실쏘
12.3: 놓는→논는 쌓네→싼네 않는→안는 뚫네→뚤레
12.4: 낳은→나은 놓아→노아 쌓이다→싸이다 많아→마나 않은→아는 닳아→다라 싫어도→시러도
13: 깎아→까까 옷이→오시 있어→이써 낮이→나지 꽂아→꼬자 꽃을→꼬츨 쫓아→쪼차 밭에→바테
   앞으로→아프로 덮이다→더피다
14: 넋이→넉씨 앉아→안자 닭을→달글 젊어→절머 곬이→골씨 핥아→할타 읊어→을퍼 값을→갑쓸
   없어→업써
17: 미닫이→미다지 땀받이→땀바지 밭이→바치 벼훑이→벼훌치 굳히다→구치다 닫히다→다치다
18: 먹는→멍는 국물→궁물 깎는→깡는 키읔만→키응만 몫몫이→몽목씨 긁는→긍는 흙만→흥만
   닫는→단는 짓는→진는 있는→인는 맞는→만는 쫓는→쫀는 꽃망울→꼰망울 붙는→분는 잡는→잠는
   밥물→밤물 앞마당→암마당 밟는→밤는 읊는→음는 없는→엄는
19: 담력→담녁 침략→침냑 강릉→강능 항로→항노 대통령→대통녕 막론→망논 석류→성뉴 협력→혐녁
   법리→범니
20: 난로→날로 신라→실라 천리→철리 광한루→광할루 대관령→대괄령 칼날→칼랄 물난리→물랄리
   줄넘기장→줄럼기장 닳는→달른 뚫는→뚤른 핥네→할레
23: 국밥→국빱 깎다→깍따 넋받이→넉빠지 삯돈→삭똔 닭장→닥짱 칡범→칙뻠 뻗대다→뻗때다
   옷고름→옫꼬름 있던→읻떤 꽂고→꼳꼬 꽃다발→꼳따발 낯설다→낟썰다 밭갈이→받까리 솥전→솓쩐
   곱돌→곱똘 덮개→덥깨 옆집→엽찝 읊조리다→읍쪼리다 값지다→갑찌다
24: 신다→신따 껴안다→껴안따 앉다→안따 삼다→삼따 닮다→담따
25: 넓다→널따 떫다→떨따 핥다→할따 훑다→훌따
"""

EXAMPLES = [
    pytest.param(article, *example.split("→"), id=f"{article} {example}")
    for article, examples in re.findall(r"^([\d.]+):((?:.|\n  )*)", SAID, re.MULTILINE)
    for example in examples.split()
]


@pytest.mark.parametrize(("article", "written", "said"), EXAMPLES)
def test_a_word_is_said_as_the_article_has_it(article: str, written: str, said: str) -> None:
    surface = surface_of(written)
    assert surface.text == said
    assert article in {rule.article for rule in surface.applied}


@pytest.mark.parametrize("word", ["나무", "사람", "가다", "오이", "강아지", "아이"])
def test_where_no_sound_changes_no_rule_is_named(word: str) -> None:
    surface = surface_of(word)
    assert surface.text == word
    assert surface.applied == ()


def test_a_rule_tells_what_it_made_of_what() -> None:
    (rule,) = surface_of("국물").applied
    assert (rule.rule, rule.article) == ("nasalisation", "18")
    assert (rule.before, rule.after) == ("국물", "궁물")


@pytest.mark.parametrize(
    ("written", "switches", "said"),
    [
        ("물속", {1: "tense"}, "물쏙"),
        ("꽃잎", {1: "insert"}, "꼰닙"),
        ("맛없다", {1: "block"}, "마덥따"),
        ("생산량", {2: "nasal"}, "생산냥"),
        ("버스", {0: "tense"}, "뻐스"),
    ],
)
def test_a_switch_changes_what_spelling_does_not_show(
    written: str, switches: dict[int, str], said: str
) -> None:
    assert surface_of(written, switches).text == said  # type: ignore[arg-type]
