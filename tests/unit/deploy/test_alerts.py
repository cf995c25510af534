"""The alert rules that ship: they name metrics and labels that there are."""

from __future__ import annotations

import re
from pathlib import Path

from services.kernel.metrics import Metrics

RULES = (Path(__file__).parents[3] / "deploy" / "prometheus" / "alerts.yml").read_text()


def exposed() -> str:
    metrics = Metrics("stage1")
    for account in ("day", "stage", "batch"):
        metrics.budget_reached(account, 0)
        metrics.budget(account, 1.0, 1.0)
    return metrics.exposition().decode()


def test_every_metric_in_a_rule_is_exposed() -> None:
    named = set(re.findall(r"\bcardflow_\w+", RULES))
    assert {"cardflow_budget_reached", "cardflow_budget_left_usd"} <= named
    known = set(re.findall(r"^(cardflow_\w+)", exposed(), re.MULTILINE))
    assert named <= known


def test_every_account_in_a_rule_is_a_label_that_is_used() -> None:
    selected = re.findall(r'account=~?"([^"]+)"', RULES)
    accounts = {account for choice in selected for account in choice.split("|")}
    assert accounts == {"day", "stage", "batch"}
    assert all(f'account="{account}"' in exposed() for account in accounts)
