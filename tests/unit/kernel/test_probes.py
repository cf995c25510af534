"""Probes: alive says nothing of others, ready names who is down, metrics can be scraped."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from services.cli.machine.nats_server import free_port
from services.kernel.metrics import Metrics
from services.kernel.probes import METRICS_CONTENT_TYPE, serve_probes
from services.kernel.settings import HttpSettings


async def get(port: int, path: str) -> tuple[int, str, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        kind = response.headers["Content-Type"]
        body = await (response.json() if "json" in kind else response.text())
        return response.status, kind, body


async def nothing_is_down() -> dict[str, str | None]:
    return {"nats": None, "stage1": None}


async def nats_is_down() -> dict[str, str | None]:
    return {"nats": "not connected", "stage1": None}


async def test_livez_says_alive_even_when_a_dependency_is_down() -> None:
    http = HttpSettings(port=free_port())
    async with serve_probes(http, Metrics("stage1"), nats_is_down):
        assert (await get(http.port, "/livez"))[::2] == (200, {"status": "alive"})


@pytest.mark.parametrize(
    ("readiness", "status", "body"),
    [
        (
            nothing_is_down,
            200,
            {"status": "ready", "dependencies": {"nats": "ok", "stage1": "ok"}},
        ),
        (
            nats_is_down,
            503,
            {"status": "not ready", "dependencies": {"nats": "not connected", "stage1": "ok"}},
        ),
    ],
)
async def test_readyz_names_each_dependency(readiness: Any, status: int, body: Any) -> None:
    http = HttpSettings(port=free_port())
    async with serve_probes(http, Metrics("stage1"), readiness):
        assert (await get(http.port, "/readyz"))[::2] == (status, body)


async def test_metrics_can_be_scraped() -> None:
    http, metrics = HttpSettings(port=free_port()), Metrics("stage1")
    metrics.received.inc()
    async with serve_probes(http, metrics, nothing_is_down):
        status, kind, body = await get(http.port, "/metrics")
    assert (status, kind) == (200, METRICS_CONTENT_TYPE)
    assert 'cardflow_messages_received_total{service="stage1"} 1.0' in body


async def test_at_port_zero_nothing_listens_and_the_block_runs() -> None:
    async with serve_probes(HttpSettings(port=0), Metrics("stage1"), nothing_is_down):
        ran = True
    assert ran


async def test_the_port_is_free_again_when_the_block_ends() -> None:
    http = HttpSettings(port=free_port())
    for _ in range(2):
        async with serve_probes(http, Metrics("stage1"), nothing_is_down):
            assert (await get(http.port, "/livez"))[0] == 200
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(http.port, "/livez")
