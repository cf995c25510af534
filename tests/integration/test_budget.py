"""Budgets of a running pipeline: never passed, and all goes on when they are raised."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from decimal import Decimal
from pathlib import Path
from typing import Any

from running_pipeline import (
    Pipeline,
    cardflow,
    environment,
    invented_words,
    running_pipeline,
    until,
)

BUDGET = "0.01"


def words(folder: Path, count: int) -> str:
    path = folder / "words.txt"
    path.write_text("\n".join(invented_words(count)))
    return str(path)


def charged(pipeline: Pipeline) -> Decimal:
    return Decimal(str(pipeline.simulator()["charged_usd"]))


def budget_trouble(pipeline: Pipeline, service: str) -> str:
    replica = next(r for r in pipeline.replicas() if r.name == service)
    try:
        with urllib.request.urlopen(f"{replica.http_url}/readyz", timeout=5) as answer:
            body = json.load(answer)
    except urllib.error.HTTPError as error:
        body = json.load(error)
    return str(body["dependencies"]["budget"])


def accounts(pipeline: Pipeline, *arguments: str) -> dict[tuple[str, str], dict[str, Any]]:
    found = pipeline.json("budget", *arguments)["accounts"]
    return {(account["account"], account["name"]): account for account in found}


def is_written_down(pipeline: Pipeline, kind: str) -> bool:
    found = [account for (k, _), account in accounts(pipeline).items() if k == kind]
    settled = sum(Decimal(str(account["settled_usd"])) for account in found)
    idle = all(a["reserved_usd"] == a["uncertain_usd"] == 0 for a in found)
    return idle and settled == charged(pipeline)


def test_a_day_over_its_budget_waits_and_goes_on_when_it_is_raised(tmp_path: Path) -> None:
    settings = {"CARDFLOW_BUDGET__PER_DAY_USD": BUDGET}
    with running_pipeline(tmp_path / "data", settings=settings) as pipeline:
        pipeline.run("submit", words(tmp_path, 30), "--batch", "b1")
        until(
            lambda: "is used up" in budget_trouble(pipeline, "stage1"),
            within_s=40,
            what="stage1 says that the budget is used up",
        )
        assert Decimal("0.006") < charged(pipeline) <= Decimal(BUDGET)
        assert "out of money: day" in pipeline.run("status")
        before = charged(pipeline)
        day = next(
            a for (kind, _), a in accounts(pipeline, "--day", "0.02").items() if kind == "day"
        )
        assert day["limit_usd"] == 0.02
        until(lambda: charged(pipeline) > before, within_s=5, what="calls go on")
        pipeline.run("budget", "--day", "5")
        pipeline.run("submit", words(tmp_path, 30), "--batch", "b1", "--wait", "--timeout-s", "60")
        for kind in ("day", "stage", "batch"):
            until(
                lambda kind=kind: is_written_down(pipeline, kind),  # type: ignore[misc]
                within_s=10,
                what=f"every cent is settled by {kind}",
            )
        assert pipeline.json("audit")["balanced"] is True


def test_max_cost_refuses_beforehand_and_bounds_the_batch(tmp_path: Path) -> None:
    with running_pipeline(tmp_path / "data") as pipeline:
        path = words(tmp_path, 20)
        pipeline.run("submit", path, "--batch", "b1", "--max-cost", "0.001", exit_code=1)
        assert pipeline.simulator()["calls"] == 0
        pipeline.run("budget", "--batch", "b2=0.004")
        pipeline.run("submit", path, "--batch", "b2")
        reached = ("batch", "b2")
        until(
            lambda: accounts(pipeline)[reached]["reached"] is True,
            within_s=30,
            what="b2 is over its budget",
        )
        said = pipeline.json("submit", path, "--batch", "b1", "--max-cost", "0.5", "--wait")
        assert said["status"]["finished"] == 20, "another batch goes on"
        assert said["budget"]["limit_usd"] == 0.5
        assert accounts(pipeline)[reached]["settled_usd"] <= 0.004
        estimate = pipeline.json("estimate", path)
        assert (estimate["cached"], estimate["cost_usd"]) == (40, 0.0)
        pipeline.run("budget", "--unset", "batch=b2")
        pipeline.run("submit", path, "--batch", "b2", "--wait", "--timeout-s", "90")


def test_a_budget_for_a_model_without_a_price_does_not_start(tmp_path: Path) -> None:
    settings = {"CARDFLOW_STAGE1__BUDGET_USD": "1"}
    done = subprocess.run(
        cardflow("up", "--data", str(tmp_path / "data"), "--model", "nobody/knows"),
        capture_output=True,
        text=True,
        env=environment() | settings,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "CARDFLOW_PRICES" in done.stderr
