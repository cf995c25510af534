"""Everything on one machine: nats-server, simulator and every service replica as a child.

lock → leftovers ended → nats-server → provision → simulator → services → ready
stop: services (finish what is in hand) → simulator → nats-server → unlock
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import structlog

from services.cli.common import ENDPOINTS, STORE
from services.cli.interrupting import cancelled, unless
from services.cli.machine.children import Child, Role
from services.cli.machine.folder import end_leftovers, locked, started_at
from services.cli.machine.nats_server import EmbeddedServer, free_port, is_free
from services.cli.machine.storage import Storage
from services.cli.machine.upkeep import keep_up
from services.kernel.errors import SettingsError
from services.kernel.provider_access import ProviderAccess
from services.kernel.provisioning.provision import provision
from services.kernel.settings import KernelSettings, load_settings
from services.kernel.stream.reading import connected
from services.kernel.topology import SERVICES, ServiceName

_READY_S = 60.0
_POLL_S = 0.05
_CHILD_GRACE_S = 10.0
_SETTINGS_EXIT = 2
_RESTARTS_AT_START = 3
"""Who dies this often before it was ready once will not get better by itself."""


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
        self._server = None
        if plan.nats_url is None:
            self._server = EmbeddedServer(
                self.data / "nats", port=self._port(), monitor_port=free_port()
            )
        self.nats_url = plan.nats_url or (self._server.url if self._server else "")
        self._nats: Child | None = None
        self._simulator: Child | None = None
        self._services: list[Child] = []
        self.base_url = plan.access.base_url
        self._unwritten = False
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
                upkeep = asyncio.create_task(keep_up(self.nats_url, self._storage(), self._tell))
                try:
                    yield
                finally:
                    await cancelled(upkeep)
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
        child = Child(role, changed=self._tell_changed)
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
        """Ready, or only waiting for people: a budget that is used up is no failed start."""
        try:
            answer = await client.get(url)
            parts = answer.json().get("dependencies", {})
        except (httpx.HTTPError, ValueError, AttributeError):
            return False
        waiting = {name for name, reason in parts.items() if reason != "ok"}
        return answer.is_success or waiting == {"budget"}

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

    def _storage(self) -> Storage | None:
        """The embedded server's; None for another's."""
        server, nats = self._server, self._nats
        if server is None or nats is None:
            return None
        return Storage(
            server.write_fault,
            partial(nats.restart, grace_s=_CHILD_GRACE_S),
            folder=server.folder,
        )

    def _tell_changed(self) -> None:
        self._unwritten = True
        self._tell()

    def _tell(self) -> None:
        """Writes the endpoints if they have changed. On a full disk it is tried again later."""
        if not self._unwritten:
            return
        try:
            self.write_endpoints()
        except OSError as error:
            structlog.get_logger().error("endpoints.unwritten", error=str(error))

    def write_endpoints(self) -> None:
        """Beside and renamed: a reader never sees half of it."""
        endpoints = {
            "nats_url": self.nats_url,
            "provider": {
                "kind": self.plan.access.kind,
                "base_url": self.base_url,
                "model": self.plan.access.model,
            },
            "services": [
                {
                    "name": child.role.name,
                    "replica": child.role.replica,
                    "pid": child.pid,
                    "http_url": child.role.http_url,
                }
                for child in self._services
            ],
            "nats_monitor_url": self._server.monitor_url if self._server else None,
            "nats_pid": self._nats.pid if self._nats else None,
            "simulator_pid": self._simulator.pid if self._simulator else None,
            "supervisor_pid": os.getpid(),
            "started": {str(c.pid): started_at(c.pid) for c in self.children if c.pid},
        }
        path = self.data / ENDPOINTS
        beside = path.with_suffix(".json.new")
        beside.write_text(json.dumps(endpoints, indent=2) + "\n")
        beside.replace(path)
        self._unwritten = False

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


def _cardflow(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "services.cli", *arguments]


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it ended without a word"
