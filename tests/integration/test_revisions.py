"""A batch and its revisions with every process real: calls, decks, and the account of it all."""

from __future__ import annotations

import json
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_pipeline import Pipeline, running_pipeline, shipped_terms, until

TERMS = 20


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    data = tmp_path / "data"
    with running_pipeline(data, "--latency-ms", "5", "--jitter-ms", "2") as running:
        words = tmp_path / "words.csv"
        rows = [f"{row['term']},{row['type']}" for row in shipped_terms()[:TERMS]]
        words.write_text("term,type\n" + "\n".join(rows) + "\n")
        running.run("submit", str(words), "--batch", "monday", "--deck", "Korean", "--wait")
        deck_of(running, "monday")
        yield running


def deck_of(pipeline: Pipeline, batch: str) -> Path:
    """The deck file of the batch, once it is complete."""
    until(
        lambda: pipeline.json("status", batch)["state"] == "completed",
        within_s=60,
        what=f"{batch} ends",
    )
    path = pipeline.data / "decks" / f"{batch}.apkg"
    until(path.is_file, within_s=20, what=f"the deck of {batch}")
    return path


def newest_note_s(package: Path, tmp_path: Path) -> tuple[int, int]:
    """How many notes a package has, and the time by which Anki decides whether they are newer."""
    with zipfile.ZipFile(package) as members:
        path = Path(members.extract("collection.anki2", tmp_path))
    with sqlite3.connect(path) as db:
        count, newest_s = db.execute("SELECT COUNT(*), MAX(mod) FROM notes").fetchone()
    db.close()
    return count, newest_s


def exported(pipeline: Pipeline, *which: str) -> list[dict[str, Any]]:
    text = pipeline.run("export", *which, "--format", "jsonl", "-o", "-")
    return [json.loads(line) for line in text.splitlines()]


def test_regenerating_stage_2_reads_the_analyses_again_and_makes_the_deck_new(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    deck = pipeline.data / "decks" / "monday.apkg"
    before_cards = exported(pipeline, "--batch", "monday")
    before_notes, before_s = newest_note_s(deck, tmp_path)
    assert pipeline.simulator()["by_stage"] == {"analysis": TERMS, "cards": TERMS}

    how = ("--model", "simulated/other", "--wait", "--yes")
    made = pipeline.json("regenerate", "--batch", "monday", *how)
    assert (made["batch"], made["published"], made["status"]["finished"]) == (
        "monday-r2",
        TERMS,
        TERMS,
    )
    stats = pipeline.simulator()
    assert stats["by_stage"] == {"analysis": TERMS, "cards": 2 * TERMS}
    status = pipeline.json("status", "monday-r2")
    assert (status["calls"], status["cached"]) == (TERMS, TERMS)

    until(
        lambda: newest_note_s(deck, tmp_path)[1] > before_s,
        within_s=20,
        what="the deck of the root is written anew",
    )
    assert newest_note_s(deck, tmp_path)[0] == before_notes
    assert not (pipeline.data / "decks" / "monday-r2.apkg").exists()
    for which in (("--batch", "monday"), ("--batch", "monday-r2"), ("--deck", "Korean")):
        cards = exported(pipeline, *which)
        order = [(card["position"], card["term_id"], card["card_type"]) for card in cards]
        assert order == [(c["position"], c["term_id"], c["card_type"]) for c in before_cards]
        assert {(card["batch"], card["model"]) for card in cards} == {
            ("monday-r2", "simulated/other")
        }
        assert {card["deck"] for card in cards} == {"Korean"}
    audit = pipeline.json("audit")
    assert audit["balanced"]
    assert audit["complete"]


def test_a_revision_asks_anew_in_its_own_stage_alone(pipeline: Pipeline) -> None:
    pipeline.json("regenerate", "--batch", "monday", "--stage", "1", "--wait", "--yes")
    # The same analyses come out: their cards are known.
    assert pipeline.simulator()["by_stage"] == {"analysis": 2 * TERMS, "cards": TERMS}
    made = pipeline.json("regenerate", "--batch", "monday-r2", "--wait", "--yes")
    assert made["batch"] == "monday-r3"
    assert pipeline.simulator()["by_stage"] == {"analysis": 2 * TERMS, "cards": 2 * TERMS}
    again = pipeline.json("regenerate", "--batch", "monday", "--revision", "3", "--wait", "--yes")
    assert (again["published"], again["status"]["state"]) == (0, "completed")
    assert pipeline.simulator()["by_stage"] == {"analysis": 2 * TERMS, "cards": 2 * TERMS}
    assert {status["batch"] for status in pipeline.json("status")} == {
        "monday",
        "monday-r2",
        "monday-r3",
    }
    pipeline.run("audit")
