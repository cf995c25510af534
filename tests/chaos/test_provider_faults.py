"""A provider that fails and lies: every term ends, and every call is on the books."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from looking import on_streams, submit, wait_until_completed
from nats.js import JetStreamContext
from promises import record_figures
from running_pipeline import Pipeline, invented_words, running_pipeline, shipped_terms, until
from truth import Truth

from services.kernel import topology
from services.kernel.contracts.analysis import TermAnalyzed
from services.kernel.contracts.base import Contract
from services.kernel.contracts.card import CardsFinished
from services.kernel.contracts.term import TermAccepted
from services.kernel.stream.reading import messages_of
from services.simulator.settings import MALFORMED_KINDS

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

ContractT = TypeVar("ContractT", bound=Contract)

TERMS = 80
UNFIT_REASONS = {
    *("not_json", "schema", "wrong_term", "columns", "missing_card", "no_choices", "empty"),
    *("refused", "finish_length", "finish_content_filter"),
}
FLAGS = ("--latency-ms", "5", "--error-rate", "0.15", "--malformed-rate", "0.15", "--seed", "7")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    data = tmp_path_factory.mktemp("faults") / "data"
    with running_pipeline(data, *FLAGS, settings={"CARDFLOW_RETRY__BASE_S": "0.1"}) as running:
        yield running


def test_every_term_ends_and_the_books_agree_with_the_providers(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("\n".join(invented_words(TERMS)) + "\n")
    pipeline.run("submit", str(words), "--batch", "faults")
    until(lambda: _completed(pipeline), within_s=120, what="the batch ends")
    status = pipeline.json("status", "faults")
    assert status["finished"] + status["dead"] == TERMS
    assert status["finished"] >= 0.9 * TERMS
    for letter in pipeline.json("dead-letters", "list", "--batch", "faults"):
        assert letter["reason"]
    stats = pipeline.simulator()
    assert stats["errors"]
    assert stats["malformed"]
    audit = pipeline.json("audit", "faults")
    assert audit["balanced"]
    assert audit["complete"]


def test_with_three_malformed_replies_in_ten_every_card_is_right_or_its_term_is_dead(
    tmp_path: Path,
) -> None:
    seed = 11
    shipped = [row["term"] for row in shipped_terms()[: TERMS // 2]]
    words = list(dict.fromkeys([*shipped, *invented_words(TERMS // 2)]))
    flags = ("--latency-ms", "5", "--malformed-rate", "0.3", "--seed", str(seed))
    with running_pipeline(tmp_path / "data", *flags) as pipeline:
        submit(pipeline.nats_url, "odd", words)
        wait_until_completed(pipeline, "odd", within_s=120)
        assert _wrong_cards(pipeline.nats_url, "odd", Truth(seed)) == []
        letters = pipeline.json("dead-letters", "list", "--batch", "odd")
        audit = pipeline.json("audit", "odd")
        stats = pipeline.simulator()
    assert (audit["balanced"], audit["complete"], audit["uncertain"]) == (True, True, 0)
    [batch] = audit["batches"]
    assert batch["finished"] + batch["dead"] == len(words)
    assert len(letters) == batch["dead"] < 0.2 * len(words)
    for letter in letters:
        assert letter["reason"] in UNFIT_REASONS
    assert set(stats["malformed"]) == {*MALFORMED_KINDS}
    assert audit["repairs"] > 0
    assert 0 < audit["repair_cost_usd"] < audit["cost_usd"]
    figures = ("calls", "repairs", "cost_usd", "repair_cost_usd")
    record_figures(
        "three_malformed_in_ten",
        terms=len(words),
        dead=len(letters),
        malformed=sum(stats["malformed"].values()),
        **{name: audit[name] for name in figures},
    )


def _wrong_cards(url: str, batch: str, truth: Truth) -> list[str]:
    """The terms with a card, or an analysis below it, that differs from the truth."""
    accepted = _events(url, topology.TERMS, topology.accepted_subject(batch, "*"), TermAccepted)
    analyzed = _events(url, topology.ANALYSES, topology.analyzed_subject(batch, "*"), TermAnalyzed)
    finished = _events(url, topology.CARDS, topology.finished_subject(batch, "*"), CardsFinished)
    assert finished
    wrong = [i for i, event in analyzed.items() if event.analysis != truth.analysis(accepted[i])]
    wrong += [i for i, event in finished.items() if event.cards != truth.cards(analyzed[i])]
    wrong += [i for i, event in finished.items() if event.analysis != analyzed[i].analysis]
    return [accepted[id_].term for id_ in wrong]


def _events(
    url: str, stream: topology.Stream, subjects: str, kind: type[ContractT]
) -> dict[str, ContractT]:
    """Every event on these subjects by its term's id."""

    async def read(js: JetStreamContext) -> dict[str, ContractT]:
        return {
            message.subject.rpartition(".")[2]: kind.from_bytes(message.data)
            async for message in messages_of(js, stream.name, subjects)
        }

    return on_streams(url, read)


def _completed(pipeline: Pipeline) -> bool:
    return pipeline.json("status", "faults", exit_code=None)["state"] == "completed"
