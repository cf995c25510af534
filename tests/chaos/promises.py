"""The promises as one check, the words to make them with, and the figures to quote."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from looking import attempts, calls_by_term, dead, finished, stored
from running_pipeline import Pipeline
from typer.testing import CliRunner

from services.cli.main import cli
from services.kernel.contracts.identity import term_id

_FIRST, _LAST = 0xAC00, 0xD7A3
FIGURES_FILE = "CHAOS_FIGURES"
"""Names a file that figures are appended to, a JSON object a line."""


def words(seed: int, count: int) -> list[str]:
    """Invented words of three syllables, each once, the same for the same seed."""
    dice = random.Random(seed)
    made: dict[str, None] = {}
    while len(made) < count:
        made["".join(chr(dice.randint(_FIRST, _LAST)) for _ in range(3))] = None
    return list(made)


@dataclass(frozen=True)
class Evidence:
    """What was found out while the promises were checked."""

    terms: int
    calls: int
    resent: int
    uncertain: int
    dead: int


def assert_promises(
    pipeline: Pipeline,
    batch: str,
    terms: Sequence[str],
    *,
    in_flight_at_kills: int = 0,
    may_die: int = 0,
) -> Evidence:
    """Nothing lost (P1), nothing twice (P2), nothing paid twice knowingly (P3).

    The simulator must have lived through it all, and the batch be complete. `in_flight_at_kills`:
    calls that were begun and not ended when something was killed; so many may be made again, and
    each of those must stand in the books as uncertain. `may_die`: the most dead letters.
    """
    audit = answer_of(pipeline, "audit", batch)
    assert (audit["balanced"], audit["complete"]) == (True, True), audit
    url = pipeline.nats_url
    buried = dead(url, batch)
    found = _assert_each_term_ended_once(pipeline, batch, terms, buried)
    assert len(buried) <= may_die, f"{len(buried)} dead letters, at most {may_die} expected"
    calls = calls_by_term(pipeline, terms)
    unasked = [key for key, count in calls.items() if not count and term_id(key[1], None) in found]
    assert not unasked, f"finished, yet the provider was never asked: {unasked}"
    again = {key: count - 1 for key, count in calls.items() if count > 1}
    resent = sum(again.values())
    assert resent <= audit["uncertain"], f"paid twice without a word: {_story(url, batch, again)}"
    assert resent <= in_flight_at_kills, (
        f"{resent} calls made again, {in_flight_at_kills} were in flight: "
        f"{_story(url, batch, again)}"
    )
    return Evidence(len(terms), sum(calls.values()), resent, audit["uncertain"], len(buried))


def answer_of(pipeline: Pipeline, *arguments: str) -> Any:
    """What a command says with --json and exit 0. In this process: a new one takes a second."""
    done = CliRunner().invoke(cli, [*arguments, "--json", "--data", str(pipeline.data)])
    assert done.exit_code == 0, f"{arguments}: exit {done.exit_code}\n{done.output}"
    return json.loads(done.stdout)


def _assert_each_term_ended_once(
    pipeline: Pipeline, batch: str, terms: Sequence[str], buried: set[str]
) -> set[str]:
    status = answer_of(pipeline, "status", batch)
    ended = status["finished"] + status["dead"] + status.get("cancelled", 0)
    assert ended == len(terms), status
    expected = {term_id(term, None) for term in terms}
    assert len(expected) == len(terms), "two of the words are one term"
    cards = finished(pipeline.nats_url, batch)
    assert cards.keys() == expected - buried
    assert set(cards.values()) <= {1}, "a term stands on CARDS twice"
    rows = stored(pipeline, batch)
    assert rows.keys() == cards.keys(), "the store and CARDS differ"
    assert set(rows.values()) <= {1}, "a term stands in the store twice"
    return set(cards)


def _story(url: str, batch: str, again: dict[tuple[str, str], int]) -> str:
    """What the ledger has about the terms that were asked for more than once."""
    service = {"analysis": "stage1", "cards": "stage2"}
    ids = {f"{service[stage]}.{batch}.{term_id(term, None)}" for stage, term in again}
    told = {
        key: [(a.outcome, a.error, str(a.started_at), str(a.finished_at)) for a in tried]
        for key, tried in attempts(url).items()
        if key in ids
    }
    return json.dumps({"again": {f"{s} {t}": n for (s, t), n in again.items()}, "ledger": told})


def record_figures(test: str, evidence: Evidence | None = None, **figures: Any) -> None:
    """One JSON line: printed, and appended to the file that CHAOS_FIGURES names."""
    line = json.dumps({"test": test, **(asdict(evidence) if evidence else {}), **figures})
    print(line)  # noqa: T201
    if path := os.environ.get(FIGURES_FILE):
        with Path(path).open("a") as file:
            file.write(line + "\n")
