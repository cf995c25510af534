"""The exporter's store locked by another program, or on a disk that turned read-only: it pauses,
says so, and goes on when it is over."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from running_pipeline import Pipeline, invented_words, running_pipeline, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

TERMS = 40
FLAGS = ("--latency-ms", "50")
SETTINGS = {"CARDFLOW_RETRY__CAP_S": "2"}


@pytest.fixture
def word_list(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("\n".join(invented_words(TERMS)) + "\n")
    return path


def test_a_store_that_is_locked_is_named_and_stored_to_once_it_is_free(
    tmp_path: Path, word_list: Path
) -> None:
    with running_pipeline(tmp_path / "data", *FLAGS, settings=SETTINGS) as pipeline:
        other = sqlite3.connect(tmp_path / "data" / "store" / "cards.sqlite", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        pipeline.run("submit", str(word_list), "--batch", "b1")
        until(
            lambda: "locked by another process" in store_trouble(pipeline),
            within_s=30,
            what="the exporter names the lock",
        )
        assert pipeline.json("status", "b1")["state"] == "running"
        other.execute("ROLLBACK")
        other.close()
        assert_completes(pipeline)
        assert store_trouble(pipeline) == ""


@pytest.fixture
def data_with_a_disk(tmp_path: Path) -> Iterator[Path]:
    """A data folder whose store is on a file system of its own."""
    store = tmp_path / "data" / "store"
    store.mkdir(parents=True)
    if not mounted("-t", "tmpfs", "-o", "size=64m", "cardflow-test", str(store)):
        pytest.skip("no disk can be mounted here")
    try:
        yield tmp_path / "data"
    finally:
        subprocess.run(["umount", str(store)], check=True)


def mounted(*arguments: str) -> bool:
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


@pytest.mark.long
def test_a_store_on_a_disk_that_turned_read_only_loses_nothing(
    data_with_a_disk: Path, word_list: Path
) -> None:
    store = data_with_a_disk / "store"
    with running_pipeline(data_with_a_disk, *FLAGS, settings=SETTINGS) as pipeline:

        def turned_read_only() -> bool:
            """The system allows it only while nobody has a file open for writing."""
            with suppress(ProcessLookupError):  # Between two lives.
                os.kill(pipeline.pid_of("exporter"), signal.SIGKILL)
            return mounted("-o", "remount,ro", str(store))

        until(turned_read_only, within_s=30, what="the disk is read-only")
        pipeline.run("submit", str(word_list), "--batch", "b1")
        log = data_with_a_disk / "logs" / "exporter-1.log"
        until(
            lambda: "make the file and its folder writable" in log.read_text(),
            within_s=30,
            what="the exporter names the fault",
        )
        until(lambda: finished(pipeline) == TERMS, within_s=30, what="the stages go on")
        assert pipeline.json("status", "b1")["state"] == "running"
        assert mounted("-o", "remount,rw", str(store))
        assert_completes(pipeline)


def assert_completes(pipeline: Pipeline) -> None:
    until(
        lambda: pipeline.json("status", "b1")["state"] == "completed",
        within_s=60,
        what="the batch ends",
    )
    status = pipeline.json("status", "b1")
    assert (status["finished"], status["dead"]) == (TERMS, 0)
    pipeline.run("audit")


def finished(pipeline: Pipeline) -> int:
    return int(pipeline.json("status", "b1")["finished"])


def store_trouble(pipeline: Pipeline) -> str:
    """What /readyz of the exporter says of its store; empty when it is well."""
    [url] = [s["http_url"] for s in pipeline.endpoints["services"] if s["name"] == "exporter"]
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=10):
            return ""
    except urllib.error.HTTPError as error:
        reason = str(json.load(error)["dependencies"]["store"])
        return "" if reason == "ok" else reason
