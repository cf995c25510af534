"""Our decks as Anki itself reads them: imported, imported again, and updated in place."""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from anki.collection import (
    Collection,
    ImportAnkiPackageOptions,
    ImportAnkiPackageRequest,
    ImportCsvRequest,
)
from anki.notes import Note

from services.exporter.formats import write_deck
from services.exporter.formats.anki_note import FIELDS, SPARE_FIELDS, guid
from services.exporter.store import Store
from services.exporter.stored import StoredCard
from services.kernel.contracts.base import Batch
from services.kernel.contracts.card import Card, CardsFinished
from services.kernel.contracts.identity import term_id

GOLDEN = Path(__file__).parent / "golden"
DECK = "Korean::TOPIK 1"
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
LATER = NOON + timedelta(seconds=1)
HOSTILE = (
    "<b>bold</b> <script>alert(1)</script> a & b \"quoted\" 'x' {{c1::x}} {{Back}} "
    r"[sound:a.mp3] [anki:tts lang=ko_KR]x[/anki:tts] [latex]y[/latex] [$]z[/$] #tag"
)


def stored(term: str, *, finished_at: datetime = NOON, **values: Any) -> StoredCard:
    defaults: dict[str, Any] = {
        "position": 1,
        "term": f"{term}[…]",
        "term_number": 1,
        "tab_name": "Scene",
        "primer": "You enter the room.",
        "front": f"What is {term}?",
        "back": f"This is {term}.",
        "tags": ("term:책", "pos:noun", "metaphor:a book that bites"),
    }
    card = Card.model_validate({**defaults, **values})
    return StoredCard(
        Batch("b1"), DECK, term_id(term, None), term, None, 1, "test/model", finished_at, 1, card
    )


CARDS = [stored("책"), stored("물"), stored("책", tab_name="Hanja", honorific_level="polite")]


def make(path: Path, *cards: StoredCard) -> Path:
    async def stream() -> AsyncIterator[StoredCard]:
        for card in cards:
            yield card

    asyncio.run(write_deck(path.suffix[1:], stream(), path))
    return path


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    opened = Collection(str(tmp_path / "collection.anki2"))
    yield opened
    opened.close()


def take_package(collection: Collection, package: Path) -> tuple[int, int]:
    """Import by Anki's defaults; gives the numbers of new and of updated notes."""
    log = collection.import_anki_package(
        ImportAnkiPackageRequest(package_path=str(package), options=ImportAnkiPackageOptions())
    ).log
    return len(log.new), len(log.updated)


def take_text(collection: Collection, text: Path) -> tuple[int, int]:
    """Import by the file's own headers; gives the numbers of new and of updated notes."""
    metadata = collection.get_csv_metadata(str(text), None)
    log = collection.import_csv(ImportCsvRequest(path=str(text), metadata=metadata)).log
    return len(log.new), len(log.updated)


def notes(collection: Collection) -> dict[str, Note]:
    found = [collection.get_note(note_id) for note_id in collection.find_notes("")]
    return {note.guid: note for note in found}


def test_a_package_becomes_one_note_and_one_card_each(
    collection: Collection, tmp_path: Path
) -> None:
    assert take_package(collection, make(tmp_path / "x.apkg", *CARDS)) == (3, 0)
    assert collection.card_count() == 3
    note = notes(collection)[guid(CARDS[2])]
    assert note.note_type()["name"] == "cardflow v1"
    assert dict(note.items()) == {
        **dict.fromkeys(FIELDS, ""),
        "Key": guid(CARDS[2]),
        "Term": "책[…]",
        "Primer": "You enter the room.",
        "Front": "What is 책?",
        "Back": "This is 책.",
        "CardType": "Hanja",
        "Position": "3",
        "TermNumber": "1",
        "HonorificLevel": "polite",
    }
    assert set(note.tags) == {"term::책", "pos::noun", "metaphor::a_book_that_bites"}


def test_two_colons_make_a_deck_in_a_deck(collection: Collection, tmp_path: Path) -> None:
    take_package(collection, make(tmp_path / "x.apkg", *CARDS))
    names = {deck.name for deck in collection.decks.all_names_and_ids()}
    assert {"Korean", "Korean::TOPIK 1"} <= names
    assert len(collection.find_notes('deck:"Korean::TOPIK 1"')) == 3


def test_new_cards_come_in_the_order_of_the_deck(collection: Collection, tmp_path: Path) -> None:
    take_package(collection, make(tmp_path / "x.apkg", *CARDS))
    order = [collection.get_card(c).note().guid for c in collection.find_cards("", order="c.due")]
    assert order == [guid(card) for card in CARDS]


def test_the_same_package_again_changes_nothing(collection: Collection, tmp_path: Path) -> None:
    package = make(tmp_path / "x.apkg", *CARDS)
    take_package(collection, package)
    assert take_package(collection, package) == (0, 0)
    assert take_package(collection, make(tmp_path / "y.apkg", *CARDS)) == (0, 0)
    assert collection.note_count() == 3


def test_a_newer_text_updates_the_note_and_keeps_its_schedule(
    collection: Collection, tmp_path: Path
) -> None:
    take_package(collection, make(tmp_path / "x.apkg", *CARDS))
    learned = notes(collection)[guid(CARDS[0])].cards()[0]
    learned.ivl, learned.type, learned.queue, learned.due, learned.reps = 33, 2, 2, 50, 4
    collection.update_card(learned)

    newer = stored("책", front="Asked anew?", position=9, finished_at=LATER)
    assert take_package(collection, make(tmp_path / "y.apkg", CARDS[1], newer)) == (0, 2)

    note = notes(collection)[guid(CARDS[0])]
    assert (note["Front"], note["Position"]) == ("Asked anew?", "2")
    assert [(card.id, card.ivl, card.due, card.reps) for card in note.cards()] == [
        (learned.id, 33, 50, 4)
    ]
    assert collection.note_count() == 3


def finished(term: str, **values: Any) -> CardsFinished:
    """The event of the golden file for another term."""
    event = CardsFinished.model_validate_json((GOLDEN / "cards_finished.json").read_bytes())
    own = {"term": term, "term_id": term_id(term, None), "batch": "monday", "deck": DECK}
    first = {"revises": None, "revision": 1, "finished_at": NOON}
    return event.model_copy(update={**own, **first, **values})


def anew(event: CardsFinished) -> CardsFinished:
    """The same term as the second revision of its batch has it, all its texts written anew."""
    cards = tuple(
        card.model_copy(update={"front": f"{card.front} Anew?", "back": f"{card.back} Anew."})
        for card in event.cards
    )
    revision = {"batch": "monday-r2", "revises": "monday", "revision": 2}
    return event.model_copy(update={**revision, "cards": cards, "finished_at": LATER})


async def monday(tmp_path: Path, *events: CardsFinished) -> Path:
    """The deck file of the batch, as the exporter writes it when these have come."""
    package = tmp_path / "monday.apkg"
    async with Store.open(tmp_path / "cards.sqlite") as store:
        await store.put(events)
        await write_deck("apkg", store.cards_of_batch("monday"), package)
    return package


def test_a_revision_updates_the_notes_in_place_and_keeps_their_schedule(
    collection: Collection, tmp_path: Path
) -> None:
    first = [finished("책", position=1), finished("물", position=2), finished("눈", position=3)]
    take_package(collection, asyncio.run(monday(tmp_path, *first)))
    before = notes(collection)
    fronts = {key: note["Front"] for key, note in before.items()}
    for note in before.values():
        for card in note.cards():
            card.ivl, card.type, card.queue, card.due, card.reps = 33, 2, 2, 50, 4
            collection.update_card(card)

    remade = [anew(event) for event in first[:2]]
    package = asyncio.run(monday(tmp_path, *remade))
    new, _updated = take_package(collection, package)

    after = notes(collection)
    assert (new, after.keys()) == (0, before.keys())
    remade_terms = {"책", "물"}
    assert {key for key in after if after[key]["Front"] == f"{fronts[key]} Anew?"} == {
        guid(card) for card in _cards_of(tmp_path) if card.term in remade_terms
    }
    assert {key for key in after if after[key]["Front"] == fronts[key]} == {
        guid(card) for card in _cards_of(tmp_path) if card.term == "눈"
    }
    schedules = {
        (card.ivl, card.type, card.queue, card.due, card.reps)
        for note in after.values()
        for card in note.cards()
    }
    assert schedules == {(33, 2, 2, 50, 4)}
    assert take_package(collection, package) == (0, 0)


def _cards_of(tmp_path: Path) -> list[StoredCard]:
    async def read() -> list[StoredCard]:
        async with Store.open(tmp_path / "cards.sqlite", read_only=True) as store:
            return [card async for card in store.cards_of_batch("monday")]

    return asyncio.run(read())


def test_a_deck_that_grows_brings_only_what_is_new(collection: Collection, tmp_path: Path) -> None:
    take_package(collection, make(tmp_path / "x.apkg", *CARDS))
    grown = make(tmp_path / "y.apkg", *CARDS, stored("새", finished_at=LATER))
    assert take_package(collection, grown)[0] == 1
    assert collection.note_count() == 4


def test_two_decks_of_one_moment_live_side_by_side(collection: Collection, tmp_path: Path) -> None:
    take_package(collection, make(tmp_path / "x.apkg", *CARDS))
    others = [replace(card, deck="Other") for card in CARDS]
    package = make(tmp_path / "y.apkg", *others)
    assert take_package(collection, package) == (3, 0)
    assert (collection.note_count(), collection.card_count()) == (6, 6)
    assert len(collection.find_notes("deck:Other")) == 3


@pytest.mark.parametrize("suffix", ["apkg", "tsv"])
def test_nothing_in_a_text_acts_and_nothing_of_it_vanishes(
    collection: Collection, tmp_path: Path, suffix: str
) -> None:
    take_package(collection, make(tmp_path / "type.apkg", stored("물")))
    hostile = stored("책", front=HOSTILE, back=HOSTILE, primer=HOSTILE)
    file = make(tmp_path / f"x.{suffix}", hostile)
    assert (take_package if suffix == "apkg" else take_text)(collection, file) == (1, 0)

    [card] = notes(collection)[guid(hostile)].cards()
    assert card.question_av_tags() == card.answer_av_tags() == []
    for shown in (card.question(), card.answer()):
        assert "&lt;b&gt;bold&lt;/b&gt; &lt;script&gt;alert(1)&lt;/script&gt; a &amp; b" in shown
        assert not any(active in shown for active in ("<b>", "<script", "{{", "[sound", "[latex"))
        assert "<img" not in shown
        assert HOSTILE in html.unescape(shown)


def test_the_back_shows_the_term_and_folds_the_primer(
    collection: Collection, tmp_path: Path
) -> None:
    take_package(collection, make(tmp_path / "x.apkg", CARDS[0]))
    [card] = notes(collection)[guid(CARDS[0])].cards()
    assert "What is 책?" in card.question()
    assert "책[…]" not in card.question()
    answer = card.answer()
    assert "책[…]" in answer
    assert "This is 책." in answer
    assert "You enter the room." in answer[answer.index("<details>") : answer.index("</details>")]


def test_the_text_import_makes_the_notes_of_the_package(
    collection: Collection, tmp_path: Path
) -> None:
    take_package(collection, make(tmp_path / "x.apkg", *CARDS))
    expected = {key: (note.fields, note.tags) for key, note in notes(collection).items()}
    collection.remove_notes(list(collection.find_notes("")))

    assert take_text(collection, make(tmp_path / "x.tsv", *CARDS)) == (3, 0)
    made = notes(collection)
    assert {key: (note.fields, note.tags) for key, note in made.items()} == expected
    assert {note.note_type()["name"] for note in made.values()} == {"cardflow v1"}
    assert len(collection.find_notes(f'deck:"{DECK}"')) == 3


def test_the_text_import_updates_the_package_and_leaves_the_spares(
    collection: Collection, tmp_path: Path
) -> None:
    take_package(collection, make(tmp_path / "x.apkg", *CARDS))
    note = notes(collection)[guid(CARDS[0])]
    for name in SPARE_FIELDS:
        note[name] = "the learner's own"
    collection.update_note(note)

    newer = stored("책", front="Asked anew?")
    assert take_text(collection, make(tmp_path / "x.tsv", newer, *CARDS[1:])) == (0, 1)
    note.load()
    assert note["Front"] == "Asked anew?"
    assert {note[name] for name in SPARE_FIELDS} == {"the learner's own"}
    assert take_text(collection, tmp_path / "x.tsv") == (0, 0)
    assert collection.note_count() == 3
