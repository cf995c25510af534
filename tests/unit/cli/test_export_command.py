"""`cardflow export`: deck files from the exporter's store."""

from __future__ import annotations

import asyncio
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from term_samples import NOON, accepted, analyzed, card_reply, provenance
from typer.testing import CliRunner

from services.cli.main import cli
from services.exporter.store import Store
from services.kernel.contracts.card import CardsFinished


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


def finished(term: str, **values: Any) -> CardsFinished:
    """A finished term with two cards; `values` of its acceptance."""
    event = analyzed(accepted_as=accepted(term, **values))
    own = {"term": event.analysis.term, "term_number": 1, "primer": "You enter the room."}
    cards = [
        {**card_reply(tab_name), **own, "position": position, "tags": ["pos:noun"]}
        for position, tab_name in enumerate(("Scene", "Hanja"), start=1)
    ]
    known = event.accepted.model_dump(include={"batch", "term_id", "term", "position", "deck"})
    rest = {"pos": "noun", "analysis": event.analysis, "cards": cards, "finished_at": NOON}
    stages = {"stage1": provenance(), "stage2": provenance(), "submitted_at": NOON}
    return CardsFinished.model_validate({**known, **rest, **stages})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three terms in two batches: 책 and 물 of b1, 책 and 불 of b2; all in the deck Korean."""
    path = tmp_path / "data" / "store" / "cards.sqlite"
    events = [
        finished("책", batch="b1"),
        finished("물", batch="b1", position=2),
        finished("책", batch="b2"),
        finished("불", batch="b2", position=3),
    ]

    async def fill() -> None:
        async with Store.open(path) as store:
            await store.put(events)

    asyncio.run(fill())
    return path


def test_a_batch_becomes_a_deck_file_by_its_ending(store: Path, tmp_path: Path) -> None:
    deck = tmp_path / "out" / "deck.apkg"
    result = export("--batch", "b1", "-o", deck, "--store", store)
    assert result.exit_code == 0, result.output
    assert f"wrote 4 cards of 2 terms to {deck}\n" in result.stdout
    assert "In Anki: File > Import" in result.stdout
    assert "collection.anki2" in zipfile.ZipFile(deck).namelist()


def test_a_deck_has_each_term_of_all_its_batches_once(store: Path, tmp_path: Path) -> None:
    deck = tmp_path / "deck.jsonl"
    result = export("--deck", "Korean", "-o", deck, "--store", store)
    assert f"wrote 6 cards of 3 terms to {deck}\n" == result.stdout
    lines = [json.loads(line) for line in deck.read_text().splitlines()]
    assert [line["term"][0] for line in lines] == list("책책물물불불")


def test_the_format_named_counts_more_than_the_ending(store: Path, tmp_path: Path) -> None:
    deck = tmp_path / "deck.txt"
    result = export("--batch", "b1", "--format", "tsv", "-o", deck, "--store", store)
    assert result.exit_code == 0
    assert "import one of those first" in result.stdout
    assert deck.read_text().startswith("#separator:tab\n")


def test_a_data_folder_holds_the_store(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = export("--batch", "b1", "-o", tmp_path / "d.tsv", "--data", tmp_path / "data")
    assert result.exit_code == 0
    monkeypatch.setenv("CARDFLOW_EXPORTER__STORE_PATH", str(store))
    assert export("--batch", "b1", "-o", tmp_path / "e.tsv").exit_code == 0


@pytest.mark.parametrize("format_name", ["tsv", "nine-tsv", "jsonl"])
def test_text_goes_to_standard_output_and_all_else_beside_it(
    store: Path, tmp_path: Path, format_name: str
) -> None:
    file = tmp_path / "deck"
    chosen = ("--batch", "b1", "--format", format_name, "--store", store)
    assert export(*chosen, "-o", file).exit_code == 0
    result = export(*chosen, "-o", "-")
    assert result.exit_code == 0
    assert result.stdout_bytes == file.read_bytes()
    assert result.stderr == "wrote 4 cards of 2 terms to standard output\n"


@pytest.mark.parametrize("flags", [(), ("--format", "apkg")])
def test_standard_output_takes_text_only(store: Path, flags: tuple[str, ...]) -> None:
    result = export("--batch", "b1", *flags, "-o", "-", "--store", store)
    assert result.exit_code == 2
    assert "one of jsonl, nine-tsv, tsv" in result.stderr


@pytest.mark.parametrize(
    ("what", "known"), [("--batch", "batch 'x'; it has: b1, b2"), ("--deck", "it has: Korean")]
)
def test_what_the_store_does_not_have_exits_1_and_names_what_it_has(
    store: Path, tmp_path: Path, what: str, known: str
) -> None:
    result = export(what, "x", "-o", tmp_path / "d.apkg", "--store", store)
    assert result.exit_code == 1
    assert known in result.stderr
    assert not (tmp_path / "d.apkg").exists()


def test_an_empty_store_and_a_full_one_are_told_briefly(tmp_path: Path) -> None:
    path = tmp_path / "cards.sqlite"

    async def put(events: list[CardsFinished]) -> None:
        async with Store.open(path) as store:
            await store.put(events)

    asyncio.run(put([]))
    arguments = ("--batch", "x", "-o", tmp_path / "d.apkg", "--store", path)
    assert "none: no term has finished yet" in export(*arguments).stderr
    asyncio.run(put([finished("책", batch=f"b{i:02}") for i in range(23)]))
    assert "b22 (and 3 others)" in export(*arguments).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "either --batch B or --deck D"),
        (("--batch", "b1", "--deck", "Korean"), "either --batch B or --deck D"),
        (("--batch", "b1", "--data", "x", "--store", "y"), "either --data or --store"),
        (("--batch", "b1", "--format", "pdf"), "unknown format 'pdf'"),
        (("--batch", "b1", "--store", "nowhere.sqlite"), "there is no store at nowhere.sqlite"),
    ],
)
def test_what_cannot_be_done_exits_2(arguments: tuple[str, ...], message: str) -> None:
    result = export(*arguments, "-o", "deck.apkg")
    assert result.exit_code == 2
    assert message in result.stderr


def test_an_ending_of_no_format_exits_2(store: Path) -> None:
    result = export("--batch", "b1", "-o", "deck.pdf", "--store", store)
    assert result.exit_code == 2
    assert ".apkg" in result.stderr
