"""`cardflow up` as a real process, for tests: everything between publisher and deck is real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

READY_S = 60.0


@dataclass(frozen=True)
class Replica:
    """One service process, as endpoints.json names it."""

    name: str
    number: int
    pid: int
    http_url: str

    @property
    def label(self) -> str:
        return f"{self.name}-{self.number}"


class Pipeline:
    """One `cardflow up` on a folder, and the command line to talk to it.

    `printed` are the lines that all its supervisors wrote so far. What they log themselves is
    among them, unless `log` names a file for it.
    """

    def __init__(
        self,
        data: Path,
        *flags: str,
        settings: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self.data = data
        self._log = log
        self._flags = flags
        self._settings = settings or {}
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self.printed: list[str] = []

    def start(self) -> None:
        """Returns when it printed `ready`."""
        command = [*cardflow("up", "--data", str(self.data)), *self._flags]
        with ExitStack() as files:
            errors = files.enter_context(self._log.open("ab")) if self._log else subprocess.STDOUT
            self._process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment() | self._settings,
            )
        assert self._process.stdout is not None
        printed_before = len(self.printed)
        for line in self._process.stdout:
            self.printed.append(line)
            if line.strip() == "ready":
                self._listener = threading.Thread(target=self._listen, args=(self._process.stdout,))
                self._listener.start()
                return
        self._process.stdout.close()
        self._process.wait()
        self._process = None
        printed = "".join(self.printed[printed_before:])
        raise AssertionError(f"cardflow up ended before it was ready:\n{printed}")

    def _listen(self, output: IO[str]) -> None:
        """A pipe that nobody reads would stop the supervisor once it is full."""
        for line in output:
            self.printed.append(line)  # One by one: others look at it meanwhile.

    def stop(self, number: int = signal.SIGTERM, *, within_s: float = 40) -> int:
        """Sends the signal to the supervisor; its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        assert self._process.stdout is not None
        assert self._listener is not None
        code = self._process.wait(within_s)
        self._listener.join()
        self._process.stdout.close()
        self._process = None
        return code

    def stop_if_running(self) -> None:
        if self._process is not None:
            self.stop()

    @property
    def endpoints(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.data / "endpoints.json").read_text())
        return loaded

    @property
    def nats_url(self) -> str:
        return str(self.endpoints["nats_url"])

    def pid_of(self, name: str) -> int:
        endpoints = self.endpoints
        if name == "nats-server":
            return int(endpoints["nats_pid"])
        if name == "simulator":
            return int(endpoints["simulator_pid"])
        return next(int(s["pid"]) for s in endpoints["services"] if s["name"] == name)

    def replicas(self) -> list[Replica]:
        """The service processes that run at this moment, or are about to be started again."""
        return [
            Replica(str(s["name"]), int(s["replica"]), int(s["pid"]), str(s["http_url"]))
            for s in self.endpoints["services"]
        ]

    def deaths(self) -> list[tuple[str, int]]:
        """(label, exit code) of every child that ended while it should run, in order."""
        logged = [json.loads(line) for line in self.printed if line.startswith("{")]
        died = [entry for entry in logged if entry["event"] == "child.died"]
        return [(str(entry["child"]), int(entry["exit_code"])) for entry in died]

    def simulator(self) -> dict[str, Any]:
        """What the simulator was asked: GET /stats."""
        base_url = self.endpoints["provider"]["base_url"].removesuffix("/api/v1")
        with urllib.request.urlopen(f"{base_url}/stats", timeout=5) as answer:
            stats: dict[str, Any] = json.load(answer)
            return stats

    def control(self, **changes: Any) -> None:
        """Changes the simulator's settings while it runs: POST /control."""
        base_url = self.endpoints["provider"]["base_url"].removesuffix("/api/v1")
        request = urllib.request.Request(f"{base_url}/control", json.dumps(changes).encode())
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.status == 200

    def run(self, *arguments: str, exit_code: int | None = 0) -> str:
        """A command on this pipeline; its standard output."""
        done = subprocess.run(
            cardflow(*arguments, "--data", str(self.data)),
            capture_output=True,
            text=True,
            env=environment(),
            timeout=110,
            check=False,
        )
        if exit_code is not None:
            assert done.returncode == exit_code, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *arguments: str, exit_code: int | None = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", exit_code=exit_code))


@contextmanager
def running_pipeline(
    data: Path,
    *flags: str,
    settings: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Iterator[Pipeline]:
    pipeline = Pipeline(data, *flags, settings=settings, log=log)
    pipeline.start()
    try:
        yield pipeline
    finally:
        pipeline.stop_if_running()


def cardflow(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "services.cli", *arguments]


def environment() -> dict[str, str]:
    """Ours, without settings that a developer's shell may hold."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CARDFLOW_", "OPENROUTER_"))}
    return kept | {"CARDFLOW_NATS__ACK_WAIT_S": "3"}


def until(
    condition: Callable[[], bool], *, within_s: float, what: str, every_s: float = 0.05
) -> None:
    """Polls the condition to its deadline."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(every_s)
    raise AssertionError(f"not within {within_s} s: {what}")


def shipped_terms() -> list[dict[str, str]]:
    """The shipped word list as rows."""
    import csv
    from importlib.resources import files

    text = (files("services.simulator") / "data" / "beginner_terms.csv").read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


def invented_words(count: int) -> list[str]:
    """Hangul that is in nobody's list, the same in every run."""
    first, last = 0xAC00, 0xD7A3
    span = last - first
    return [
        chr(first + (i * 7919) % span) + chr(first + (i * 104_729 + 13) % span)
        for i in range(count)
    ]
