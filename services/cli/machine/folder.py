"""A folder of `cardflow up`: one supervisor at a time, and nobody left behind by one before."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from services.cli.common import ENDPOINTS
from services.kernel.errors import SettingsError

_LEFTOVER_GRACE_S = 10.0
_SAME_PROCESS_S = 1.0
"""Two processes with one pid don't start within the same second."""


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """One supervisor a folder. Raises SettingsError when there is another."""
    with (data / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise SettingsError(
                f"`cardflow up` runs on {data} already (pid {lock.read().strip() or 'unknown'}); "
                "stop it, or give --data another folder"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def end_leftovers(data: Path) -> None:
    """Ends children of a supervisor that was killed: only those that we started ourselves."""
    try:
        endpoints = json.loads((data / ENDPOINTS).read_text())
    except (FileNotFoundError, ValueError):
        return
    leftovers = []
    for pid, started in endpoints.get("started", {}).items():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(int(pid))
            if abs(process.create_time() - started) < _SAME_PROCESS_S:
                process.terminate()
                leftovers.append(process)
    _, alive = psutil.wait_procs(leftovers, timeout=_LEFTOVER_GRACE_S)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()


def started_at(pid: int) -> float | None:
    """When a process was started, in seconds since the epoch; None when there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None
