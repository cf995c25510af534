"""Replicas that share the health of a route through a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta

import pytest
from delivering import eventually
from nats.aio.client import Client
from nats.js import JetStreamContext
from pipeline_by_hand import cardflow

from services.cli.machine.nats_server import free_port
from services.kernel.contracts.provenance import Usage
from services.kernel.errors import PipelineError
from services.kernel.fleet.opening import open_fleet
from services.kernel.fleet.pace.limits import Limits
from services.kernel.fleet.pace.stage import open_pace
from services.kernel.llm.prompt import Inquiry, Prompt
from services.kernel.llm.route_opening import RouteOpener, open_providers, open_routes
from services.kernel.llm.routes import OrderedRoutes
from services.kernel.metrics import Metrics
from services.kernel.model_settings import ProviderSettings
from services.kernel.provider_access import ProviderAccess
from services.kernel.provisioning.pausing import (
    UNTIL_RESUMED,
    consumer_state,
    pause,
    pause_at_least,
)
from services.simulator.app import SimulatorSettings, build_app
from services.simulator.server import build_server, listen

SETTINGS = ProviderSettings(timeout_s=5)
PROMPT = Prompt("analysis", "1", "system", "task", {}, {"term": "책"})


@asynccontextmanager
async def replica(
    nc: Client, js: JetStreamContext, access: ProviderAccess, name: str
) -> AsyncIterator[OrderedRoutes]:
    metrics = Metrics("stage1")

    async def pause_until(until: float) -> None:
        await pause_at_least(js, "stage1", until)

    async with (
        open_fleet(nc, js) as (fleet, clock),
        open_pace(
            fleet, clock, "stage1", Limits(), replica=name, concurrency=8, metrics=metrics
        ) as pace,
        open_providers([(access, 0.0)], timeout_s=SETTINGS.timeout_s, concurrency=8) as providers,
        open_routes(
            RouteOpener(
                fleet, clock, "stage1", name, 8, SETTINGS, metrics, pace, lambda _reason: None, 1.5
            ),
            providers,
            pause_until=pause_until,
        ) as routes,
    ):
        yield routes


def provider_at(port: int) -> ProviderAccess:
    return ProviderAccess(
        kind="custom", base_url=f"http://127.0.0.1:{port}/api/v1", model="m", api_key=None
    )


async def ask(routes: OrderedRoutes, access: ProviderAccess) -> Usage:
    inquiry = Inquiry(PROMPT, access, 500, 0.0)
    async with routes.turn(inquiry, "normal") as turn:
        return (await turn.complete(inquiry.request(access))).usage


@contextmanager
def simulator_on(port: int) -> Iterator[None]:
    server = build_server(build_app(SimulatorSettings(latency_ms=1, jitter_ms=0)))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve(sockets=[listen("127.0.0.1", port)]))
    try:
        yield
    finally:
        server.should_exit = True
        task.add_done_callback(lambda _done: None)


def state_of(routes: OrderedRoutes) -> str:
    return routes._routes[0].health.state()


async def test_a_provider_that_is_away_stops_the_fleet_and_one_probe_brings_it_back(
    nc: Client, js: JetStreamContext, nats_server: str
) -> None:
    port = free_port()
    access = provider_at(port)
    async with replica(nc, js, access, "a") as one, replica(nc, js, access, "b") as two:
        for _ in range(4):
            for routes in (one, two):
                with pytest.raises(PipelineError):
                    await ask(routes, access)
        await eventually(lambda: {state_of(one), state_of(two)} == {"open"})
        waiting = [asyncio.create_task(ask(routes, access)) for routes in (one, two) * 4]
        await eventually_paused(js)
        shown = json.loads((await cardflow("status", "--json", "--nats", nats_server)).stdout)
        assert shown == []  # There is no batch; what follows is told in words.
        told = (await cardflow("status", "--nats", nats_server)).stdout
        assert f"m at 127.0.0.1:{port}: open until" in told
        assert "going on by themselves: stage1" in told
        assert "cardflow resume" not in told
        with simulator_on(port):
            usages = await asyncio.wait_for(asyncio.gather(*waiting), 20)
        assert all(usage.completion_tokens for usage in usages)
        await eventually(lambda: {state_of(one), state_of(two)} == {"closed"})


async def eventually_paused(js: JetStreamContext) -> None:
    for _ in range(100):
        if (await consumer_state(js, "stage1")).paused_until is not None:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("stage1 was never paused")


@pytest.mark.parametrize("lasting", [None, timedelta(hours=1)])
async def test_a_pause_by_hand_that_lasts_longer_stays_as_it_is(
    js: JetStreamContext, lasting: timedelta | None
) -> None:
    until = await pause(js, "stage1", lasting=lasting)
    await pause_at_least(js, "stage1", until.timestamp() - 60)
    assert (await consumer_state(js, "stage1")).paused_until == until
    if lasting is not None:
        longer = until.timestamp() + 60
        await pause_at_least(js, "stage1", longer)
        state = await consumer_state(js, "stage1")
        assert state.paused_until is not None
        assert state.paused_until.timestamp() == pytest.approx(longer, abs=0.001)
    else:
        assert until == UNTIL_RESUMED


async def test_what_was_learned_outlives_the_replicas(nc: Client, js: JetStreamContext) -> None:
    access = provider_at(free_port())
    async with replica(nc, js, access, "a") as routes:
        health = routes._routes[0].health
        health.limited(0.0, 1.0, lambda _last_s: 20)
        health.limited(2e10, 1.0, lambda _last_s: 20)
        await health._write()
    async with replica(nc, js, access, "b") as routes:
        assert routes._routes[0].health.limit() == pytest.approx(0.98 * 1_200, rel=0.1)
