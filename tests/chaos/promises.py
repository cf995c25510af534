"""The promises as one check, the words to make them with, and the figures to quote."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Collection, Sequence
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
    url = pipeline.nats_url
    audit = answer_of(pipeline, "audit", batch, exit_codes=(0, 1))
    assert audit["balanced"], f"{_problems(audit)}\n{_ledger_of(url, _ids_at_fault(audit))}"
    assert audit["complete"], audit
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


def answer_of(pipeline: Pipeline, *arguments: str, exit_codes: Sequence[int] = (0,)) -> Any:
    """What a command says with --json. In this process: a new one takes a second."""
    done = CliRunner().invoke(cli, [*arguments, "--json", "--data", str(pipeline.data)])
    assert done.exit_code in exit_codes, f"{arguments}: exit {done.exit_code}\n{done.output}"
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
    counts = {f"{stage} {term}": count for (stage, term), count in again.items()}
    return f"{counts}\n{_ledger_of(url, {term_id(term, None) for _, term in again})}"


def _problems(audit: Any) -> list[Any]:
    return [*audit["problems"], *(p for b in audit["batches"] for p in b["problems"])]


def _ids_at_fault(audit: Any) -> set[str]:
    """The last part of what a problem names: an id, or a place in the ledger."""
    return {str(i).rpartition("/")[2] for problem in _problems(audit) for i in problem["ids"]}


def _ledger_of(url: str, ids: Collection[str]) -> str:
    """The records of these terms, one a line."""
    told = [
        f"{key}: " + ", ".join(a.model_dump_json(exclude_defaults=True) for a in tried)
        for key, tried in attempts(url).items()
        if key.rpartition("/")[2] in ids
    ]
    return "\n".join(told)


def record_figures(test: str, evidence: Evidence | None = None, **figures: Any) -> None:
    """One JSON line: printed, and appended to the file that CHAOS_FIGURES names."""
    line = json.dumps({"test": test, **(asdict(evidence) if evidence else {}), **figures})
    print(line)  # noqa: T201
    if path := os.environ.get(FIGURES_FILE):
        with Path(path).open("a") as file:
            file.write(line + "\n")
