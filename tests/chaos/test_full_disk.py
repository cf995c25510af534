"""A disk that fills up under a running pipeline: it pauses, says so, and goes on by itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_pipeline import Pipeline, invented_words, running_pipeline, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

TERMS = 120
DISK_MIB = 64
FLAGS = ("--latency-ms", "400", "--jitter-ms", "20")
SETTINGS = {
    "CARDFLOW_NATS__WATCH_INTERVAL_S": "1",
    "CARDFLOW_NATS__PUBLISH_TIMEOUT_S": "2",
    "CARDFLOW_RETRY__CAP_S": "2",
    "CARDFLOW_LOG__FORMAT": "json",
}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; skipped where we may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "cardflow-test", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"no small disk can be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Takes what is left of the disk."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        size = 1024 * 1024
        while size >= 1:
            try:
                # A short write is the disk's end, too.
                size = size if file.write(bytes(size)) == size else size // 2
            except OSError:
                size //= 2
    return filler


def test_a_full_disk_pauses_the_pipeline_and_room_lets_it_go_on_by_itself(
    small_disk: Path, tmp_path: Path
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("\n".join(invented_words(TERMS)) + "\n")
    log = tmp_path / "up.log"
    with running_pipeline(small_disk / "data", *FLAGS, settings=SETTINGS, log=log) as pipeline:
        pipeline.run("submit", str(words), "--batch", "full")
        until(lambda: 10 < finished(pipeline) < TERMS, within_s=30, what="some are finished")
        server = pipeline.pid_of("nats-server")
        filler = fill(small_disk)
        until(lambda: "storage.failed" in log.read_text(), within_s=30, what="it is noticed")
        assert "no space left on device" in log.read_text()
        assert "nats.restarted" not in log.read_text()
        assert pipeline.pid_of("nats-server") == server
        assert state(pipeline) != "completed"
        filler.unlink()
        until(lambda: state(pipeline) == "completed", within_s=120, what="the batch ends")
        assert log.read_text().count("nats.restarted") == 1
        assert "storage.mended" in log.read_text()
        assert pipeline.pid_of("nats-server") != server
        status = pipeline.json("status", "full")
        assert (status["finished"], status["dead"]) == (TERMS, 0)
        pipeline.run("audit")


def finished(pipeline: Pipeline) -> int:
    return int(pipeline.json("status", "full", exit_code=None)["finished"])


def state(pipeline: Pipeline) -> str:
    shown = pipeline.run("status", "full", "--json", exit_code=None)
    return str(json.loads(shown)["state"]) if shown else "unknown"
