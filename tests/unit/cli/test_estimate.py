"""What a list is said to cost: counted, looked up, multiplied."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from asking_fakes import MemoryCache
from term_samples import accepted, analysis_reply, as_text
from typer.testing import CliRunner

from services.cli.commands.estimate import cli
from services.cli.estimating.answers import Asking, Known, known_answers
from services.cli.estimating.estimate import Rows, Sources, estimate_of
from services.cli.estimating.figures import TYPICAL, Figures
from services.cli.estimating.showing import duration, summary_lines
from services.cli.estimating.sources import asking_of, terms_of
from services.cli.submitting.submission import read_submission_files
from services.kernel.llm.prompt import Inquiry
from services.kernel.llm.provider import Completion
from services.kernel.model_settings import ModelPrice, StageSettings
from services.kernel.provider_access import resolve_fallbacks, resolve_provider
from services.kernel.settings import load_settings
from services.stage1.prompt import analysis_prompt
from services.stage1.settings import Stage1Settings

PRICE = ModelPrice(
    prompt_usd=Decimal("0.15"), completion_usd=Decimal("0.6"), request_usd=Decimal("0.0001")
)
FIGURES = {name: Figures(400, 300, 2.0, 5_000) for name in ("stage1", "stage2")}


def asking(**settings: int) -> Asking:
    stage = StageSettings(concurrency=10, max_tokens=1_000, **settings)
    return Asking(asking_of(None).access, stage, stage)


def sources(known: Known | None, price: ModelPrice | None = PRICE, **settings: int) -> Sources:
    return Sources(asking(**settings), known, FIGURES, price, "CARDFLOW_PRICES", None)


ROWS = Rows(rows=120, terms=100, refused=15, duplicates=5)


def test_every_term_costs_two_calls() -> None:
    estimate = estimate_of(ROWS, sources(None))
    call = Decimal(400 * 15 + 300 * 60) / 100_000_000 + Decimal("0.0001")
    longest = Decimal(5_000 * 15 + 1_000 * 60) / 100_000_000 + Decimal("0.0001")
    assert (estimate.calls, estimate.cost_usd) == (200, 200 * call)
    assert estimate.worst_usd == 200 * longest
    assert estimate.time_s == 10 * 2.0


def test_what_is_in_the_cache_costs_nothing() -> None:
    estimate = estimate_of(ROWS, sources(Known(stage1=100, stage2=40)))
    assert {name: stage.calls for name, stage in estimate.stages.items()} == {
        "stage1": 0,
        "stage2": 60,
    }
    assert estimate_of(ROWS, sources(Known(100, 100))).cost_usd == 0


def test_a_limit_of_requests_makes_it_longer() -> None:
    assert estimate_of(ROWS, sources(None, requests_per_minute=60)).time_s == 100


def test_without_a_price_the_cost_is_unknown_and_it_is_said_what_to_do() -> None:
    estimate = estimate_of(ROWS, sources(None, None))
    assert (estimate.cost_usd, estimate.as_json()["worst_usd"]) == (None, None)
    assert "CARDFLOW_PRICES" in summary_lines(estimate)[0]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CARDFLOW_PROVIDER__FALLBACK_MODELS", '["other/model"]'),
        ("CARDFLOW_STAGE1__MODEL", "own/model"),
    ],
)
def test_answers_are_looked_up_under_the_question_that_the_stage_asks(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    settings = load_settings(Stage1Settings)
    first = resolve_provider(settings, settings.stage1)
    fallbacks = tuple(access for access, _limit in resolve_fallbacks(settings, first))
    prompt = analysis_prompt(accepted())
    asked = Inquiry.of(prompt, first, settings.stage1, fallbacks)
    estimated = asking_of(None)
    assert estimated.inquiry(prompt, estimated.stage1).fingerprint == asked.fingerprint


def test_rows_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("책\n물\n책\nbook\n")
    terms, rows = terms_of(read_submission_files([str(tmp_path / "words.txt")]))
    assert rows == Rows(rows=4, terms=2, refused=1, duplicates=1)
    assert [term.term for term in terms] == ["책", "물"]


async def test_answers_are_looked_up_by_the_real_prompts(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("책\n물\n불\n")
    terms, _ = terms_of(read_submission_files([str(tmp_path / "words.txt")]))
    cache, how = MemoryCache([]), asking()
    assert await known_answers(cache, how, terms) == Known()
    for term in terms[:2]:
        inquiry = how.inquiry(analysis_prompt(term), how.stage1)
        text = as_text(analysis_reply(term.term)) if term.term == "책" else "no JSON any more"
        await cache.put(inquiry.fingerprint, Completion(text=text, model="m", provider="p"))
    assert await known_answers(cache, how, terms) == Known(stage1=1, stage2=0)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (89, "89 s"), (600, "10 min"), (9_000, "2.5 h")]
)
def test_time_is_told_in_a_fitting_unit(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_the_command_works_without_a_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CARDFLOW_NATS__URL", raising=False)
    monkeypatch.setenv("CARDFLOW_PROVIDER__BASE_URL", "http://127.0.0.1:9/api/v1")
    (tmp_path / "words.txt").write_text("책\n물\n")
    result = CliRunner().invoke(cli, ["words.txt", "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["terms"], said["calls"], said["price_from"]) == (2, 4, "simulator")
    assert said["cache_from"] == "none"
    tokens = TYPICAL["stage1"].prompt_tokens + TYPICAL["stage2"].prompt_tokens
    assert said["prompt_tokens"] == 2 * tokens
    shown = CliRunner().invoke(cli, ["words.txt"])
    assert "No pipeline was asked" in shown.stdout


def test_a_pipeline_that_is_named_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("책\n")
    result = CliRunner().invoke(cli, [str(tmp_path / "words.txt"), "--data", str(tmp_path)])
    assert result.exit_code == 2
