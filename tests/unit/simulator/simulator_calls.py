"""Calls as a stage makes them, for the tests of the simulator."""

from __future__ import annotations

import json
from typing import Any

import httpx

from services.simulator.app import SimulatorSettings, build_app
from services.simulator.knowledge import Knowledge

INSTANT = SimulatorSettings(latency_ms=0, jitter_ms=0)
PATH = "/api/v1/chat/completions"


class Clock:
    """A clock that stands until it is moved; sleeping moves it."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0
        self.slept_s: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)
        self.now_s += delay_s


def client_of(
    settings: SimulatorSettings = INSTANT, clock: Clock | None = None
) -> httpx.AsyncClient:
    clock = clock or Clock()
    app = build_app(settings, clock=clock, sleep=clock.sleep)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://simulated")


def analysis_call(term: str, **data: Any) -> dict[str, Any]:
    return _call("analysis", {"term": term, "homonym": None, "type": None, "hint": None, **data})


def cards_call(term: str, *card_types: str) -> dict[str, Any]:
    analysis = Knowledge.shipped().find(term) or {"term": term}
    return _call("cards", {**analysis, "homonym": None, "card_types": list(card_types)})


def _call(name: str, data: dict[str, Any]) -> dict[str, Any]:
    line = json.dumps(data, ensure_ascii=False)
    schema = {"name": name, "strict": True, "schema": {"type": "object"}}
    return {
        "model": "some/model",
        "messages": [
            {"role": "system", "content": "You are a teacher of Korean."},
            {"role": "user", "content": f"Answer for the term in this object.\n{line}"},
        ],
        "response_format": {"type": "json_schema", "json_schema": schema},
        "max_tokens": 4096,
    }


async def stats_of(client: httpx.AsyncClient) -> dict[str, Any]:
    stats: dict[str, Any] = (await client.get("/stats")).json()
    return stats
