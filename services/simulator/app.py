"""The simulator as an ASGI app: where a request goes, and what can be looked up and changed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from services.kernel.errors import SettingsError
from services.simulator.catalogue import generation_details, models_list
from services.simulator.provider import SimulatedProvider
from services.simulator.replies import Reply, reply_error, reply_json
from services.simulator.server import serve_app
from services.simulator.settings import SimulatorSettings
from services.simulator.wire import read_body, send_reply

__all__ = ["SimulatorSettings", "build_app", "serve"]


def build_app(
    settings: SimulatorSettings,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> ASGIApp:
    """The simulator with fresh counters. `clock` gives epoch seconds; `sleep` makes the latency."""
    return Simulator(SimulatedProvider(settings, clock, sleep))


def serve(settings: SimulatorSettings, *, host: str = "127.0.0.1", port: int) -> None:
    """Serve until SIGTERM or SIGINT; prints nothing. Raises SettingsError for a taken port."""
    serve_app(build_app(settings), host=host, port=port)


class Simulator:
    """The door of one simulated provider."""

    def __init__(self, provider: SimulatedProvider) -> None:
        self._provider = provider

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path: str = scope["path"].rstrip("/")
        if path.endswith("/chat/completions"):
            if scope["method"] == "POST":
                await self._provider.take_call(scope, receive, send)
            else:
                await send_reply(send, reply_error(405, f"{path} takes POST only"))
        elif path == "/control" and scope["method"] == "POST":
            await send_reply(send, self._control(await read_body(receive)))
        else:
            await send_reply(send, self._look_up(path, parse_qs(scope["query_string"].decode())))

    def _look_up(self, path: str, query: dict[str, list[str]]) -> Reply:
        if path == "/livez":
            return reply_json({"status": "ok"})
        if path == "/control":
            return reply_json(asdict(self._provider.settings))
        if path.endswith("/stats"):
            return reply_json(self._provider.stats(with_terms=query.get("terms") != ["0"]))
        if path.endswith("/models"):
            return reply_json(models_list())
        if path.endswith("/generation"):
            generation = self._provider.generations.get(query.get("id", [""])[0])
            if generation is None:
                return reply_error(404, "Generation not found: ask for the id of a billed reply")
            return reply_json(generation_details(generation))
        return reply_error(404, f"Nothing is simulated at {path or '/'}")

    def _control(self, body: bytes) -> Reply:
        try:
            changes = json.loads(body)
            if not isinstance(changes, dict):
                return reply_error(400, "Expected a JSON object of settings to change")
            self._provider.settings = self._provider.settings.changed(changes)
        except (ValueError, SettingsError) as error:
            return reply_error(400, str(error))
        return reply_json(asdict(self._provider.settings))
