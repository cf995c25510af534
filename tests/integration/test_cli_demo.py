"""`cardflow demo` as a newcomer runs it, twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from pathlib import Path

import psutil
import pytest
from running_pipeline import cardflow, environment, shipped_terms, until

from services.cli.machine.nats_server import free_port, is_free

DECKS = ("deck.apkg", "deck.tsv", "deck.jsonl")


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        cardflow("demo", *arguments),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=110,
        check=False,
    )


def children_in(folder: Path) -> list[int]:
    """Processes that work in the folder: their command line or their settings name it."""
    return [
        process.info["pid"]
        for process in psutil.process_iter(["cmdline", "environ", "pid"])
        if any(
            str(folder) in part
            for part in (
                *(process.info["cmdline"] or []),
                *(process.info["environ"] or {}).values(),
            )
        )
    ]


def test_it_works_twice_and_leaves_no_process_behind(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    first = demo("--out", str(out), "--json")
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    terms = len(shipped_terms())
    assert (result["status"]["finished"], result["dead_letters"]) == (terms, [])
    assert (result["status"]["calls"], result["status"]["cached"]) == (2 * terms, 0)
    assert result["provider"].startswith("simulated")
    assert all((out / name).stat().st_size > 10_000 for name in DECKS)
    assert children_in(out) == []

    again = demo("--out", str(out))
    assert again.returncode == 0, again.stderr
    for words in (f"{terms} terms", "dead letters  none", "nothing was spent", "File → Import"):
        assert words in again.stdout


def test_an_interrupted_demo_stops_what_it_started(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    process = subprocess.Popen(
        cardflow("demo", "--out", str(out)), stderr=subprocess.PIPE, env=environment()
    )
    endpoints = out / "pipeline" / "endpoints.json"
    until(endpoints.exists, within_s=30, what="it has begun")
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"everything that was started is stopped" in error
    until(lambda: children_in(out) == [], within_s=10, what="nobody is left")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--provider", "openrouter"), "OPENROUTER_API_KEY"),
        (("--provider", "guess"), "there is no provider"),
        (("--base-url", "http://127.0.0.1:1/v1"), "--model NAME"),
    ],
)
def test_half_a_choice_of_provider_starts_nothing(
    tmp_path: Path, flags: tuple[str, ...], says: str
) -> None:
    done = demo("--out", str(tmp_path / "demo"), *flags)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (tmp_path / "demo").exists()


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "pipeline" / "precious.txt"
    precious.parent.mkdir()
    precious.write_text("mine")
    done = demo("--out", str(tmp_path))
    assert done.returncode == 2
    assert "not ours" in done.stderr
    assert precious.read_text() == "mine"


def test_a_simulator_that_runs_already_is_used(tmp_path: Path) -> None:
    port = free_port()
    simulator = subprocess.Popen(
        cardflow("simulate", "--port", str(port), "--latency-ms", "1"), stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: not is_free(port), within_s=20, what="the simulator listens")
        base_url = f"http://127.0.0.1:{port}/api/v1"
        named = ("--provider", "simulated", "--base-url", base_url)
        done = demo("--out", str(tmp_path / "demo"), "--json", *named)
        assert done.returncode == 0, done.stderr
        with urllib.request.urlopen(f"{base_url}/stats?terms=0", timeout=5) as answer:
            assert json.load(answer)["calls"] == 2 * len(shipped_terms())
        assert not (tmp_path / "demo" / "pipeline" / "logs" / "simulator-1.log").exists()
    finally:
        simulator.terminate()
        simulator.wait(20)
