"""What Anki knows our notes by, and what it is given: frozen ids, inert text, tags, times."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from card_samples import NASTY, NOON, after, query, stored, written

from services.exporter.formats.anki_note import (
    FIELDS,
    NOTE_TYPE,
    NOTE_TYPE_ID,
    anki_tags,
    deck_id,
    field_html,
    guid,
)
from services.exporter.stored import StoredCard


def test_the_note_type_is_frozen() -> None:
    # Another list or id stops updates in every collection that has the deck already.
    assert (NOTE_TYPE, NOTE_TYPE_ID) == ("cardflow v1", 1763604201)
    assert " ".join(FIELDS) == (
        "Key Term Primer Front Back CardType Position TermNumber HonorificLevel "
        "Audio Image Example Extra"
    )


def test_a_guid_is_the_same_in_every_release() -> None:
    assert guid(stored("책")) == "jancwglxw54ufjmx"
    assert guid(stored("책", ordinal=2)) == "gc7uu4h2ngakwpfp"


SAME = [
    stored(position=9),
    stored(front="another text?", back="Another.", term="책", tags=("x:y",)),
    stored(batch="b2", finished_at=after(9), model="another/model"),
]
OTHER = [
    stored("물"),
    stored(homonym=1),
    stored(homonym=2),
    stored(deck="Other"),
    stored(tab_name="Hanja"),
    stored(ordinal=2),
    stored(ordinal=3),
]


@pytest.mark.parametrize("same", SAME)
def test_a_guid_is_kept_whatever_else_changes(same: StoredCard) -> None:
    assert guid(same) == guid(stored())


def test_a_guid_tells_deck_term_homonym_type_and_ordinal_apart() -> None:
    assert len({guid(other) for other in [stored(), *OTHER]}) == len(OTHER) + 1


@pytest.mark.parametrize("name", ["Korean", "Korean::TOPIK", "한국어", ""])
def test_a_deck_id_is_in_the_range_of_genanki(name: str) -> None:
    assert 1 << 30 <= deck_id(name) < 1 << 31
    assert deck_id(name) == deck_id(name)
    assert deck_id(name) != deck_id(name + "x")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (("pos:noun",), ["pos::noun"]),
        (("pos::noun",), ["pos::noun"]),
        (("metaphor:a book that bites",), ["metaphor::a_book_that_bites"]),
        (("full\u3000width", "tab\tted"), ["full_width", "tab_ted"]),
        (("hanja", "hanja", "hanja:"), ["hanja"]),
        ((":", "", " "), []),
        (("concept : deep: er",), ["concept::deep::er"]),
    ],
)
def test_tags_become_ankis(tags: tuple[str, ...], expected: list[str]) -> None:
    assert anki_tags(stored(tags=tags)) == expected


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("<b>", "&lt;b&gt;"),
        ("a & b", "a &amp; b"),
        ("\"x\" 'y'", "&quot;x&quot; &#x27;y&#x27;"),
        ("{{c1::x}}", "&#123;&#123;c1::x}}"),
        ("{{{x", "&#123;&#123;{x"),
        ("{x}", "{x}"),
        ("[sound:a.mp3]", "&#91;sound:a.mp3]"),
        ("[SOUND:a.mp3]", "&#91;SOUND:a.mp3]"),
        ("[anki:tts lang=ko]x[/anki:tts]", "&#91;anki:tts lang=ko]x[/anki:tts]"),
        ("[latex]x[/latex]", "&#91;latex]x&#91;/latex]"),
        ("[$]x[/$] [$$]y", "&#91;$]x&#91;/$] &#91;$$]y"),
        (r"\(x\) \[y\]", r"\&#8288;(x\&#8288;) \&#8288;[y\&#8288;]"),
        (r"\[sound:a]", r"\&#8288;&#91;sound:a]"),
        ("책[tɕʰɛk̚]", "책[tɕʰɛk̚]"),
        (f"a{NASTY}", "a tab here line break next line end"),
    ],
)
def test_model_text_is_inert_in_anki(text: str, html: str) -> None:
    assert field_html(text) == html


async def test_a_package_takes_its_time_from_the_newest_card(tmp_path: Path) -> None:
    cards = [stored("책", finished_at=after(60.9)), stored("물", finished_at=NOON)]
    path = await written(tmp_path, "apkg", *cards)
    newest = int(NOON.timestamp()) + 60
    assert set(query(path, "SELECT mod FROM notes UNION SELECT mod FROM cards")) == {(newest,)}
    [(models,)] = query(path, "SELECT models FROM col")
    assert json.loads(models)[str(NOTE_TYPE_ID)]["mod"] == newest


async def test_a_package_bears_no_date_of_its_writing(tmp_path: Path) -> None:
    path = await written(tmp_path, "apkg", stored())
    with zipfile.ZipFile(path) as members:
        found = [(member.filename, member.date_time) for member in members.infolist()]
    first_day = (1980, 1, 1, 0, 0, 0)
    assert found == [("collection.anki2", first_day), ("media", first_day)]


async def test_new_cards_are_due_in_their_order(tmp_path: Path) -> None:
    path = await written(tmp_path, "apkg", stored("하"), stored("가"), stored("나"))
    rows = query(path, "SELECT due, guid FROM cards JOIN notes ON nid = notes.id ORDER BY due")
    assert rows == [(n, guid(stored(term))) for n, term in enumerate("하가나", start=1)]


async def test_the_text_for_anki_has_its_headers_and_the_guids_of_the_package(
    tmp_path: Path,
) -> None:
    made = stored(front="<b>?", tags=("pos:noun", "a b"), deck="Korean::TOPIK")
    path = await written(tmp_path, "tsv", made)
    key = guid(made)
    assert path.read_bytes().decode() == (
        "#separator:tab\n#html:true\n#notetype:cardflow v1\n"
        "#columns:GUID\tDeck\tKey\tTerm\tPrimer\tFront\tBack\tCardType\tPosition\tTermNumber\t"
        "HonorificLevel\tTags\n"
        "#guid column:1\n#deck column:2\n#tags column:12\n"
        f"{key}\tKorean::TOPIK\t{key}\t책[tɕʰɛk̚]\tYou enter the room and open the drawer TERMS.\t"
        "&lt;b&gt;?\tA book, back 1.\tScene\t1\t1\t\tpos::noun a_b\n"
    )
