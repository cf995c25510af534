"""/livez, /readyz and /metrics of one process.

/livez says that the process runs its event loop, and nothing of others. /readyz names each
dependency with its reason and answers 503 when one is down.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from services.kernel.metrics import Metrics
from services.kernel.settings import HttpSettings

Readiness = Callable[[], Awaitable[dict[str, str | None]]]
"""Each dependency's name with the reason why it is not ready, or None."""

METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def serve_probes(
    http: HttpSettings, metrics: Metrics, readiness: Readiness
) -> AsyncIterator[None]:
    """Serves the probes while the block runs; nothing at port 0."""
    if http.port == 0:
        yield
        return
    runner = web.AppRunner(_application(metrics, readiness), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, http.host, http.port, reuse_address=True).start()
        yield
    finally:
        await runner.cleanup()


def _application(metrics: Metrics, readiness: Readiness) -> web.Application:
    async def livez(_request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_request: web.Request) -> web.Response:
        reasons = await readiness()
        ready = not any(reasons.values())
        body = {
            "status": "ready" if ready else "not ready",
            "dependencies": {name: reason or "ok" for name, reason in reasons.items()},
        }
        return web.json_response(body, status=200 if ready else 503)

    async def exposition(_request: web.Request) -> web.Response:
        return web.Response(
            body=metrics.exposition(), headers={"Content-Type": METRICS_CONTENT_TYPE}
        )

    application = web.Application()
    application.add_routes(
        [
            web.get("/livez", livez),
            web.get("/readyz", readyz),
            web.get("/metrics", exposition),
        ]
    )
    return application
