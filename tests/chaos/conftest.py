"""What chaos tests share: a seed, a folder, and both shown when a test fails."""

from __future__ import annotations

import os
import random
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from running_pipeline import Pipeline

_TAIL_LINES = 60


@pytest.fixture
def seed() -> int:
    """The same in every run, unless CHAOS_SEED names another."""
    return int(os.environ.get("CHAOS_SEED", "20260504"))


@pytest.fixture
def dice(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder of the test's pipeline; its logs are shown when the test fails."""
    return tmp_path / "data"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, Any, None]:
    outcome = yield
    report = outcome.get_result()
    if not report.failed:
        return
    known = item.funcargs
    if "seed" in known:
        report.sections.append(("seed", f"CHAOS_SEED={known['seed']}"))
    folders = {value.data for value in known.values() if isinstance(value, Pipeline)}
    if isinstance(known.get("data"), Path):
        folders.add(known["data"])
    for folder in sorted(folders):
        for log in sorted([*folder.glob("logs/*.log"), *folder.glob("**/nats.log")]):
            report.sections.append((str(log), _tail(log)))


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    kept = lines[-_TAIL_LINES:]
    left_out = [f"... {len(lines) - len(kept)} lines before"] if len(lines) > len(kept) else []
    return "\n".join([*left_out, *kept])
