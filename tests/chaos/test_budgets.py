"""A budget of a dollar, 64 calls in flight, four replicas: not a cent over it, and none lost."""

from __future__ import annotations

import json
import os
import random
import signal
import time
import urllib.error
import urllib.request
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from promises import record_figures
from running_pipeline import Pipeline, Replica, invented_words, running_pipeline, until

pytestmark = [pytest.mark.chaos, pytest.mark.long, pytest.mark.timeout(900)]

BUDGET = Decimal("1.00")
TERMS = 3_000
"""Worth some $1.45."""
FLAGS = ("--replicas", "stage1=2,stage2=2", "--latency-ms", "300")
SETTINGS = {"CARDFLOW_BUDGET__PER_DAY_USD": str(BUDGET)}
KILLS = 8


def seen(pipeline: Pipeline) -> dict[str, Any]:
    """The simulator's books."""
    stats = pipeline.simulator()
    return {
        name: Decimal(str(stats[name])) if name.endswith("_usd") else stats[name]
        for name in ("charged_usd", "lost_usd", "calls", "in_flight", "highest_concurrency")
    }


def stages_of(pipeline: Pipeline) -> list[Replica]:
    return [r for r in pipeline.replicas() if r.name in ("stage1", "stage2")]


def is_paused_for_money(replica: Replica) -> bool:
    try:
        urllib.request.urlopen(f"{replica.http_url}/readyz", timeout=5)
    except urllib.error.HTTPError as error:
        return "is used up" in json.load(error)["dependencies"].get("budget", "")
    except OSError:
        return False
    return False


def alerts(replica: Replica) -> bool:
    with urllib.request.urlopen(f"{replica.http_url}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return f'cardflow_budget_reached{{account="day",service="{replica.name}"}} 1.0' in text


def day_account(pipeline: Pipeline) -> dict[str, Any]:
    return next(a for a in pipeline.json("budget")["accounts"] if a["account"] == "day")


def submit(pipeline: Pipeline, folder: Path) -> None:
    path = folder / "words.txt"
    path.write_text("\n".join(invented_words(TERMS)))
    pipeline.run("submit", str(path), "--batch", "b1")


def wait_until_paused(pipeline: Pipeline) -> None:
    until(
        lambda: (
            all(map(is_paused_for_money, stages_of(pipeline))) and not seen(pipeline)["in_flight"]
        ),
        within_s=400,
        what="all replicas wait for money",
        every_s=0.5,
    )


def wait_until_finished(pipeline: Pipeline) -> None:
    until(
        lambda: pipeline.json("status", "b1")["state"] == "completed",
        within_s=400,
        what="every term has ended",
        every_s=2,
    )
    until(lambda: day_account(pipeline)["reserved_usd"] == 0, within_s=30, what="nothing is held")


def test_a_dollar_is_spent_to_the_last_call_and_no_further(data: Path, tmp_path: Path) -> None:
    with running_pipeline(data, *FLAGS, settings=SETTINGS) as pipeline:
        began = time.monotonic()
        submit(pipeline, tmp_path)
        wait_until_paused(pipeline)
        paused_after_s = time.monotonic() - began
        time.sleep(5)
        paused, account = seen(pipeline), day_account(pipeline)
        alerting = sum(map(alerts, stages_of(pipeline)))
        assert Decimal("0.99") < paused["charged_usd"] <= BUDGET
        assert account["settled_usd"] == float(paused["charged_usd"])
        assert account["uncertain_usd"] == 0
        pipeline.run("budget", "--day", "5")
        raised_at = time.monotonic()
        until(lambda: seen(pipeline)["calls"] > paused["calls"], within_s=5, what="it goes on")
        goes_on_after_s = time.monotonic() - raised_at
        wait_until_finished(pipeline)
        ended, account = seen(pipeline), day_account(pipeline)
        status = pipeline.json("status", "b1")
        assert account["settled_usd"] == float(ended["charged_usd"])
        assert (status["finished"], status["dead"]) == (TERMS, 0)
        assert pipeline.json("audit")["balanced"] is True
    record_figures(
        test="budget",
        budget_usd=float(BUDGET),
        terms=TERMS,
        replicas=4,
        highest_in_flight=ended["highest_concurrency"],
        charged_when_paused_usd=float(paused["charged_usd"]),
        paused_after_s=round(paused_after_s, 1),
        replicas_alerting=alerting,
        goes_on_after_s=round(goes_on_after_s, 2),
        charged_at_the_end_usd=float(ended["charged_usd"]),
        settled_at_the_end_usd=account["settled_usd"],
        uncertain_at_the_end_usd=account["uncertain_usd"],
        dead=status["dead"],
    )


def test_replicas_that_are_killed_spend_no_cent_over_the_budget(
    data: Path, tmp_path: Path, dice: random.Random
) -> None:
    with running_pipeline(data, *FLAGS, settings=SETTINGS) as pipeline:
        submit(pipeline, tmp_path)
        for _ in range(KILLS):
            time.sleep(dice.uniform(0.5, 2))
            with suppress(ProcessLookupError):  # It is dead already, and not yet started again.
                os.kill(dice.choice(stages_of(pipeline)).pid, signal.SIGKILL)
        wait_until_paused(pipeline)
        paused, account = seen(pipeline), day_account(pipeline)
        assert paused["charged_usd"] <= BUDGET
        covered = account["settled_usd"] + account["uncertain_usd"] + account["reserved_usd"]
        assert float(paused["charged_usd"]) <= covered + 1e-9
        pipeline.run("budget", "--day", "5")
        wait_until_finished(pipeline)
        time.sleep(16)
        before = day_account(pipeline)
        pipeline.run("budget", "--recount")
        ended, after = seen(pipeline), day_account(pipeline)
        covered = after["settled_usd"] + after["uncertain_usd"]
        assert after["settled_usd"] <= float(ended["charged_usd"]) + 1e-9 <= covered + 2e-9
        assert pipeline.json("audit")["balanced"] is True
    record_figures(
        test="budget_with_kills",
        budget_usd=float(BUDGET),
        kills=KILLS,
        charged_when_paused_usd=float(paused["charged_usd"]),
        uncertain_when_paused_usd=account["uncertain_usd"],
        charged_at_the_end_usd=float(ended["charged_usd"]),
        settled_at_the_end_usd=before["settled_usd"],
        uncertain_at_the_end_usd=before["uncertain_usd"],
        settled_recounted_usd=after["settled_usd"],
        uncertain_recounted_usd=after["uncertain_usd"],
    )
