"""Deck files: whole or not at all, the same bytes for the same data, cells that stay cells."""

from __future__ import annotations

import asyncio
import csv
import errno
import io
import json
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from card_samples import NASTY, after, card, finished, query, stored, stream, written

from services.exporter.formats import FORMATS, format_of, write_deck
from services.exporter.formats.streaming import CARDS_A_CHUNK, in_thread
from services.exporter.store import Store
from services.exporter.stored import StoredCard
from services.kernel.contracts.card import COLUMNS
from services.kernel.errors import PipelineError, SettingsError, TransientError


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("format_name", FORMATS)
async def test_the_same_data_gives_the_same_bytes(tmp_path: Path, format_name: str) -> None:
    cards = [stored("책"), stored("물", finished_at=after(3)), stored("새", tab_name="Hanja")]
    one = await written(tmp_path, format_name, *cards)
    two = tmp_path / "a" / "longer" / "path" / one.name
    await write_deck(format_name, stream(cards), two)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("count", [1, CARDS_A_CHUNK, 2 * CARDS_A_CHUNK + 1])
async def test_a_deck_of_any_length_is_whole_and_numbered_through(
    tmp_path: Path, format_name: str, count: int
) -> None:
    cards = [stored(f"책{n}", front=f"front {n}?") for n in range(1, count + 1)]
    path = await written(tmp_path, format_name, *cards)
    assert positions_and_fronts(path, format_name) == [
        (n, f"front {n}?") for n in range(1, count + 1)
    ]


def positions_and_fronts(path: Path, format_name: str) -> list[tuple[int, str]]:
    if format_name == "apkg":
        return [(int(fields[6]), fields[3]) for fields in fields_in(path)]
    lines = path.read_text(encoding="utf-8").splitlines()
    if format_name == "jsonl":
        return [(row["position"], row["front"]) for row in map(json.loads, lines)]
    if format_name == "tsv":
        rows = [line.split("\t") for line in lines if not line.startswith("#")]
        return [(int(row[8]), row[5]) for row in rows]
    return [(int(row["position"]), row["front"]) for row in nine_columns(path)]


def fields_in(package: Path) -> list[list[str]]:
    return [row[0].split("\x1f") for row in query(package, "SELECT flds FROM notes ORDER BY id")]


def nine_columns(path: Path) -> list[dict[str, str]]:
    text = path.read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"))


@pytest.mark.parametrize("format_name", FORMATS)
async def test_no_cards_are_an_error_that_touches_nothing(tmp_path: Path, format_name: str) -> None:
    path = tmp_path / "new" / "deck"
    with pytest.raises(SettingsError, match="no cards yet for deck"):
        await write_deck(format_name, stream([]), path)
    assert not path.parent.exists()


async def test_an_unknown_format_is_named_with_those_known(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="unknown format 'docx': expected one of apkg, tsv"):
        await write_deck("docx", stream([stored()]), tmp_path / "x")


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        ("Korean.apkg", "apkg"),
        ("Korean.APKG", "apkg"),
        ("a.b.tsv", "tsv"),
        ("a.nine.tsv", "nine-tsv"),
        ("한국어.jsonl", "jsonl"),
    ],
)
def test_the_format_follows_from_the_name(name: str, format_name: str) -> None:
    assert format_of(Path("decks") / name) == format_name


@pytest.mark.parametrize("name", ["deck", "deck.docx", "deck.colpkg", "apkg"])
def test_a_name_of_no_format_is_refused_with_the_endings_known(name: str) -> None:
    with pytest.raises(SettingsError, match=r"\.apkg, \.nine\.tsv, \.tsv, \.jsonl"):
        format_of(Path(name))


async def breaking(error: BaseException, cards: int) -> AsyncIterator[StoredCard]:
    for n in range(cards):
        yield stored(str(n))
    raise error


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("cards", [0, 1, CARDS_A_CHUNK + 1])
async def test_after_an_error_the_old_file_stands_and_nothing_else(
    tmp_path: Path, format_name: str, cards: int
) -> None:
    path = tmp_path / "deck"
    path.write_text("old")
    broken = breaking(TransientError("the store is locked"), cards)
    with pytest.raises(TransientError, match="the store is locked"):
        await write_deck(format_name, broken, path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["deck"]


@pytest.mark.parametrize("format_name", FORMATS)
async def test_a_cancelled_writer_leaves_nothing(tmp_path: Path, format_name: str) -> None:
    waiting = asyncio.Event()

    async def endless() -> AsyncIterator[StoredCard]:
        for n in range(CARDS_A_CHUNK + 1):
            yield stored(str(n))
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(write_deck(format_name, endless(), tmp_path / "deck"))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(tmp_path) == []


async def test_a_cancelled_caller_waits_for_its_thread() -> None:
    begun, release, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait(10)
        done.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    asyncio.get_running_loop().call_soon(release.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()


async def test_the_cards_are_closed_when_their_writer_fails(tmp_path: Path) -> None:
    closed = []

    async def cards() -> AsyncIterator[StoredCard]:
        try:
            yield stored()
        finally:
            closed.append(True)

    with pytest.raises(SettingsError):
        await write_deck("docx", cards(), tmp_path / "deck")
    unstarted = cards()
    await anext(unstarted)
    (tmp_path / "deck").mkdir()
    with pytest.raises(PipelineError):
        await write_deck("jsonl", unstarted, tmp_path / "deck")
    assert closed == [True]


async def test_cards_need_not_be_a_generator(tmp_path: Path) -> None:
    class Once:
        def __init__(self) -> None:
            self.cards = [stored()]

        def __aiter__(self) -> Once:
            return self

        async def __anext__(self) -> StoredCard:
            if not self.cards:
                raise StopAsyncIteration
            return self.cards.pop()

    assert await write_deck("jsonl", Once(), tmp_path / "deck") == 1


async def test_a_place_that_is_a_folder_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "deck").mkdir()
    with pytest.raises(SettingsError, match="name a file in a folder"):
        await write_deck("jsonl", stream([stored()]), tmp_path / "deck")
    assert names(tmp_path) == ["deck"]


async def test_a_folder_that_is_a_file_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="name a file in a folder"):
        await write_deck("jsonl", stream([stored()]), tmp_path / "file" / "deck")


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left"), sqlite3.OperationalError("database or disk is full")],
)
async def test_a_failing_disk_is_a_transient_error(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(TransientError, match="check the disk and its free space"):
        await write_deck("apkg", breaking(error, 1), tmp_path / "deck")


async def test_a_file_has_the_rights_that_the_operator_set(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    for name in FORMATS:
        path = await written(tmp_path, name, stored())
        assert stat.filemode(path.stat().st_mode) == stat.filemode(
            (tmp_path / "plain").stat().st_mode
        )


async def test_a_deck_goes_from_the_store_to_its_file(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "store.sqlite") as store:
        await store.put([finished("물", position=2), finished("책", position=1)])
        cards = store.cards_of_deck("Korean")
        assert await write_deck("jsonl", cards, tmp_path / "deck.jsonl") == 2
    lines = (tmp_path / "deck.jsonl").read_text().splitlines()
    assert [json.loads(line)["tags"] for line in lines] == [["term:책", "pos:noun"]] * 2


async def test_nine_columns_with_a_header(tmp_path: Path) -> None:
    path = await written(
        tmp_path, "nine-tsv", stored(term_number=7, position=3, honorific_level="polite")
    )
    assert path.read_bytes().decode() == (
        "position\tterm\tterm_number\ttab_name\tprimer\tfront\tback\ttags\thonorific_level\n"
        "1\t책[tɕʰɛk̚]\t7\tScene\tYou enter the room and open the drawer TERMS.\t"
        "What lies on the desk, front 3?\tA book, back 3.\tterm:책,pos:noun\tpolite\n"
    )


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-고 싶다", "'-고 싶다"),
        ("@x", "'@x"),
        ("1-2 = @", "1-2 = @"),
        ('"quoted" at the start', '"quoted" at the start'),
        ('in "the" middle', 'in "the" middle'),
        ("<b> & {{x}}", "<b> & {{x}}"),
        (f"a{NASTY}", "a tab here line break next line end"),
    ],
)
async def test_a_cell_of_the_nine_columns_stays_a_cell(
    tmp_path: Path, text: str, cell: str
) -> None:
    # Not validated, like a card from the store: the contract keeps tabs out, the file must too.
    nasty = replace(stored(), card=card().model_copy(update={"front": text}))
    [row] = nine_columns(await written(tmp_path, "nine-tsv", nasty))
    assert row["front"] == cell
    assert None not in row
    assert tuple(row) == COLUMNS


async def test_a_comma_in_a_tag_does_not_part_it(tmp_path: Path) -> None:
    path = await written(tmp_path, "nine-tsv", stored(tags=("character:男,女", "hanja")))
    assert nine_columns(path)[0]["tags"] == "character:男_女,hanja"


async def test_json_lines_hold_the_columns_and_where_the_card_is_from(tmp_path: Path) -> None:
    made = stored("배", homonym=2, front="물\u2028\x85?", finished_at=after(0.5))
    path = await written(tmp_path, "jsonl", made)
    [line] = path.read_text(encoding="utf-8").splitlines()
    assert "책" in line
    assert json.loads(line) == {
        "position": 1,
        "term": "책[tɕʰɛk̚]",
        "term_number": 1,
        "tab_name": "Scene",
        "primer": "You enter the room and open the drawer TERMS.",
        "front": "물\u2028\x85?",
        "back": "A book, back 1.",
        "tags": ["term:책", "pos:noun"],
        "honorific_level": "",
        "batch": "b1",
        "deck": "Korean",
        "term_id": made.term_id,
        "card_type": "Scene",
        "model": "test/writer",
        "finished_at": "2026-05-04T12:00:00.500000+00:00",
    }
