"""Everything on one machine: nats-server, simulator and every service replica as a child.

lock → leftovers ended → nats-server → provision → simulator → services → ready
stop: services (finish what is in hand) → simulator → nats-server → unlock
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import psutil

from services.cli.common import ENDPOINTS, STORE
from services.cli.interrupting import unless
from services.cli.machine.children import Child, Role
from services.cli.machine.nats_server import EmbeddedServer, free_port, is_free
from services.kernel.errors import SettingsError
from services.kernel.settings import KernelSettings, ProviderAccess, load_settings
from services.kernel.stream.provision import provision
from services.kernel.stream.reading import connected
from services.kernel.topology import SERVICES, ServiceName

_READY_S = 60.0
_POLL_S = 0.05
_CHILD_GRACE_S = 10.0
_SETTINGS_EXIT = 2
_RESTARTS_AT_START = 3
"""Who dies this often before it was ready once will not get better by itself."""
_SAME_PROCESS_S = 1.0
"""Two processes with one pid don't start within the same second."""


@dataclass(frozen=True)
class Plan:
    """What is to run. `nats_url` of None: an embedded server. `simulator`: its flags, or None."""

    data: Path
    access: ProviderAccess
    simulator: tuple[str, ...] | None
    replicas: Mapping[ServiceName, int] = field(default_factory=dict)
    port_base: int | None = None
    nats_url: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


class Supervisor:
    """Runs a plan. Use `running()`; `endpoints.json` tells others where everything is."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.data = plan.data.absolute()
        self._next_port = plan.port_base
        self._server = (
            None if plan.nats_url else EmbeddedServer(self.data / "nats", port=self._port())
        )
        self.nats_url = plan.nats_url or (self._server.url if self._server else "")
        self._nats: Child | None = None
        self._simulator: Child | None = None
        self._services: list[Child] = []
        self.base_url = plan.access.base_url
        self._grace_s = load_settings(KernelSettings).grace_s

    def provider_line(self) -> str:
        """Who serves, in words."""
        return f"{self.plan.access.kind}, {self.plan.access.model} at {self.base_url}"

    @property
    def children(self) -> list[Child]:
        return [c for c in (self._nats, self._simulator, *self._services) if c is not None]

    @asynccontextmanager
    async def running(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """Everything is ready inside the block, and ended after it.

        Raises Interrupted when `stop` is set before all is ready.
        """
        self.data.mkdir(parents=True, exist_ok=True)
        with locked(self.data):
            end_leftovers(self.data)
            try:
                await unless(stop, self._start())
                yield
            finally:
                await self._stop()

    async def _start(self) -> None:
        if self._server is not None:
            self._nats = await self._child("nats-server", 1, self._server.command())
            await self._until(partial(asyncio.to_thread, self._server.is_listening), [self._nats])
        async with connected(self.nats_url) as nc:
            await provision(nc.jetstream(timeout=10), load_settings(KernelSettings).nats)
        if self.plan.simulator is not None:
            await self._start_simulator(self.plan.simulator)
        for name in SERVICES:
            for replica in range(1, self.plan.replicas.get(name, 1) + 1):
                self._services.append(await self._start_service(name, replica))
        await self._wait_until_ready()

    async def _start_simulator(self, flags: tuple[str, ...]) -> None:
        port = self._port()
        self.base_url = f"http://127.0.0.1:{port}/api/v1"
        command = [*_cardflow("simulate"), "--port", str(port), *flags]
        self._simulator = await self._child("simulator", 1, command)

    async def _start_service(self, name: ServiceName, replica: int) -> Child:
        port = self._port()
        return await self._child(
            name,
            replica,
            _cardflow("run", name),
            http_url=f"http://127.0.0.1:{port}",
            environment={
                "CARDFLOW_NATS__URL": self.nats_url,
                "CARDFLOW_HTTP__PORT": str(port),
                "CARDFLOW_PROVIDER__KIND": self.plan.access.kind,
                "CARDFLOW_PROVIDER__BASE_URL": self.base_url,
                "CARDFLOW_PROVIDER__MODEL": self.plan.access.model,
                "CARDFLOW_EXPORTER__STORE_PATH": str(self.data / STORE),
                "CARDFLOW_EXPORTER__DECK_DIR": str(self.data / "decks"),
                **self.plan.environment,
            },
        )

    async def _child(
        self,
        name: str,
        replica: int,
        command: list[str],
        *,
        http_url: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        role = Role(
            name=name,
            replica=replica,
            command=command,
            environment=os.environ | (environment or {}),
            log=self.data / "logs" / f"{name}-{replica}.log",
            http_url=http_url,
        )
        child = Child(role, changed=self.write_endpoints)
        await child.start()
        return child

    async def _wait_until_ready(self) -> None:
        urls = [f"{c.role.http_url}/readyz" for c in self._services]
        if self._simulator is not None:
            urls.append(self.base_url.removesuffix("/api/v1") + "/livez")
        async with httpx.AsyncClient(timeout=2.0) as client:
            for url in urls:
                await self._until(partial(self._answers, client, url), self.children)
        self.write_endpoints()

    async def _answers(self, client: httpx.AsyncClient, url: str) -> bool:
        try:
            return (await client.get(url)).is_success
        except httpx.HTTPError:
            return False

    async def _until(self, is_so: Callable[[], Awaitable[bool]], children: list[Child]) -> None:
        """Raises SettingsError when a child can't be used, or it takes too long."""
        deadline = asyncio.get_running_loop().time() + _READY_S
        while not await is_so():
            self._fail_for_unusable(children)
            if asyncio.get_running_loop().time() > deadline:
                raise SettingsError(f"not ready within {_READY_S:.0f} s; see {self.data / 'logs'}")
            await asyncio.sleep(_POLL_S)

    @staticmethod
    def _fail_for_unusable(children: list[Child]) -> None:
        """A child that says its settings are unusable will say so again: give up at once."""
        for child in children:
            if child.exit_code == _SETTINGS_EXIT or child.restarts >= _RESTARTS_AT_START:
                raise SettingsError(
                    f"{child.role.label} can't start: {_last_line(child.role.log)} "
                    f"(see {child.role.log})"
                )

    async def _stop(self) -> None:
        """Services first, together; what they hold is finished or given back before NATS goes."""
        grace_s = self._grace_s + _CHILD_GRACE_S
        await asyncio.gather(*(c.stop(grace_s=grace_s) for c in self._services))
        if self._simulator is not None:
            await self._simulator.stop(grace_s=_CHILD_GRACE_S)
        if self._nats is not None:
            await self._nats.stop(grace_s=_CHILD_GRACE_S)
        (self.data / ENDPOINTS).unlink(missing_ok=True)

    def write_endpoints(self) -> None:
        """Beside and renamed: a reader never sees half of it."""
        endpoints = {
            "nats_url": self.nats_url,
            "provider": {"kind": self.plan.access.kind, "base_url": self.base_url},
            "services": [
                {
                    "name": child.role.name,
                    "replica": child.role.replica,
                    "pid": child.pid,
                    "http_url": child.role.http_url,
                }
                for child in self._services
            ],
            "nats_pid": self._nats.pid if self._nats else None,
            "simulator_pid": self._simulator.pid if self._simulator else None,
            "supervisor_pid": os.getpid(),
            "started": {str(c.pid): _started(c.pid) for c in self.children if c.pid},
        }
        path = self.data / ENDPOINTS
        beside = path.with_suffix(".json.new")
        beside.write_text(json.dumps(endpoints, indent=2) + "\n")
        beside.replace(path)

    def _port(self) -> int:
        """The next of `port_base`, or any free one. Raises SettingsError when it is taken."""
        if self._next_port is None:
            return free_port()
        port, self._next_port = self._next_port, self._next_port + 1
        if not is_free(port):
            raise SettingsError(
                f"port {port} is taken by another program; give another --port-base"
            )
        return port


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
    _, alive = psutil.wait_procs(leftovers, timeout=_CHILD_GRACE_S)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _started(pid: int) -> float | None:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def _cardflow(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "services.cli", *arguments]


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it ended without a word"
