"""A child process that is kept running: started, watched, started again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

_RESTART_MIN_S = 0.2
_RESTART_MAX_S = 5.0
_STABLE_S = 10.0
"""Who ran this long before it died is started again at once."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Role:
    """What one child is: its name and replica, its command, where it answers."""

    name: str
    replica: int
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    http_url: str | None = None

    @property
    def label(self) -> str:
        return f"{self.name}-{self.replica}"


@dataclass
class Child:
    """One role and the process that plays it now."""

    role: Role
    changed: Callable[[], None]
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    stopping: bool = False
    restarting: bool = False
    exit_code: int | None = None
    _task: asyncio.Task[None] | None = field(default=None, repr=False)

    async def start(self) -> None:
        """Starts the process and keeps it running until `stop`."""
        await self._spawn()
        self._task = asyncio.create_task(self._keep_running())

    async def stop(self, *, grace_s: float) -> int | None:
        """SIGTERM, then SIGKILL when the grace period is over; the exit code."""
        self.stopping = True
        process = self.process
        await self._end(grace_s)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        return process.returncode if process is not None else None

    async def restart(self, *, grace_s: float) -> None:
        """Ends the process in the same way; it is started again at once."""
        self.restarting = True
        await self._end(grace_s)

    async def _end(self, grace_s: float) -> None:
        process = self.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), grace_s)
        except TimeoutError:
            structlog.get_logger().error("child.killed", child=self.role.label)
            process.kill()
            await process.wait()

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None

    async def _spawn(self) -> None:
        self.role.log.parent.mkdir(parents=True, exist_ok=True)
        with self.role.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.role.command,
                env=dict(self.role.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop them in order.
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self.exit_code = None
        self.changed()

    async def _keep_running(self) -> None:
        delay_s = _RESTART_MIN_S
        while self.process is not None:
            started = time.monotonic()
            self.exit_code = await self.process.wait()
            if self.stopping:
                return
            if not self.restarting:
                stable = time.monotonic() - started > _STABLE_S
                delay_s = _RESTART_MIN_S if stable else min(delay_s * 2, _RESTART_MAX_S)
                self._tell_died(delay_s)
                await asyncio.sleep(delay_s)
            self.restarting = False
            self.restarts += 1
            try:
                await self._spawn()
            except OSError as error:  # No room for its log, or for one more process.
                structlog.get_logger().error(
                    "child.not_started", child=self.role.label, error=str(error)
                )

    def _tell_died(self, delay_s: float) -> None:
        structlog.get_logger().warning(
            "child.died",
            child=self.role.label,
            exit_code=self.exit_code,
            restart_in_s=round(delay_s, 2),
            log=str(self.role.log),
        )


def _die_with_parent() -> None:
    """Runs in the child: when the supervisor is killed, nobody is left to spend money alone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
