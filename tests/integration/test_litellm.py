"""A batch through a server of the protocol that is not ours: LiteLLM's proxy, before the simulator.

It is asked only when CARDFLOW_LITELLM names its command:

    python -m venv /tmp/litellm && /tmp/litellm/bin/pip install 'litellm[proxy]'
    CARDFLOW_LITELLM=/tmp/litellm/bin/litellm pytest -m long tests/integration/test_litellm.py
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from running_pipeline import cardflow, environment, invented_words, running_pipeline, until

from services.cli.machine.nats_server import free_port

LITELLM = os.environ.get("CARDFLOW_LITELLM", "")
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not LITELLM, reason="CARDFLOW_LITELLM names no command"),
]

KEY = "sk-a-key-of-the-proxy-0123456789"
TERMS = 20
REQUESTS_PER_MINUTE = 30
"""Fewer than the calls that the batch needs, so that the proxy turns some away."""


def config(simulator: str, requests_per_minute: int) -> dict[str, Any]:
    """YAML reads JSON. `openai/` is the proxy's word for the protocol."""
    params = {"model": "openai/simulated/teacher-1", "api_base": simulator, "api_key": "none"}
    return {
        "model_list": [
            {"model_name": "teacher", "litellm_params": {**params, "rpm": requests_per_minute}}
        ],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"num_retries": 0, "telemetry": False},
        "router_settings": {
            "num_retries": 0,
            "routing_strategy": "usage-based-routing-v2",
            "enable_pre_call_checks": True,
        },
    }


@contextmanager
def running(*command: str, url: str, log: Path) -> Iterator[None]:
    """The command, from when it answers at the URL."""

    def answers() -> bool:
        assert process.poll() is None, log.read_text(errors="replace")[-3_000:]
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment()
        )
        try:
            until(answers, within_s=180, what=f"{command[0]} answers", every_s=0.5)
            yield
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def proxied(folder: Path, requests_per_minute: int) -> Iterator[tuple[str, str]]:
    """The simulator and the proxy before it; the roots of both APIs."""
    simulator_port, port = free_port(), free_port()
    simulator = f"http://127.0.0.1:{simulator_port}"
    chosen = folder / "litellm.json"
    chosen.write_text(json.dumps(config(f"{simulator}/api/v1", requests_per_minute)))
    simulate = cardflow("simulate", "--port", str(simulator_port))
    proxy = (LITELLM, "--config", str(chosen), "--host", "127.0.0.1", "--port", str(port))
    url = f"http://127.0.0.1:{port}"
    with (
        running(*simulate, url=f"{simulator}/livez", log=folder / "simulator.log"),
        running(*proxy, url=f"{url}/health/liveliness", log=folder / "litellm.log"),
    ):
        yield simulator, f"{url}/v1"


@pytest.mark.parametrize("requests_per_minute", [10_000, REQUESTS_PER_MINUTE])
def test_a_batch_completes_through_litellm(tmp_path: Path, requests_per_minute: int) -> None:
    words = tmp_path / "words.txt"
    words.write_text("\n".join(invented_words(TERMS)) + "\n")
    with proxied(tmp_path, requests_per_minute) as (simulator, url):
        flags = ("--base-url", url, "--model", "teacher")
        settings = {"CARDFLOW_PROVIDER__API_KEY": KEY}
        with running_pipeline(tmp_path / "data", *flags, settings=settings) as pipeline:
            started = time.monotonic()
            pipeline.run("submit", str(words), "--batch", "proxied")
            until(
                lambda: pipeline.json("status", "proxied", exit_code=None)["state"] == "completed",
                within_s=400,
                what="the batch ends",
                every_s=1,
            )
            elapsed_s = time.monotonic() - started
            audit = pipeline.json("audit", "proxied")
        with urllib.request.urlopen(f"{simulator}/stats", timeout=5) as answer:
            stats = json.load(answer)
    [batch] = audit["batches"]
    figures = {name: audit[name] for name in ("calls", "throttled", "uncertain", "repairs")}
    print(json.dumps({"rpm": requests_per_minute, "seconds": round(elapsed_s, 1), **figures}))  # noqa: T201
    assert (audit["balanced"], audit["complete"], batch["finished"]) == (True, True, TERMS)
    assert (audit["calls"], stats["answered"]) == (2 * TERMS, 2 * TERMS)
    assert (audit["throttled"] > 0) == (requests_per_minute == REQUESTS_PER_MINUTE)
