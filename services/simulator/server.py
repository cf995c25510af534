"""Serving the simulator: uvicorn without a word, with connections that can be reset."""

from __future__ import annotations

import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from services.kernel.errors import SettingsError
from services.simulator.wire import RESET

_KEEP_ALIVE_S: Final = 75
"""Longer than clients keep idle connections, so that a close never races with a call."""
_GRACE_S: Final = 1
"""Calls in hand when a stop is asked for may take so long; hanging ones never end."""
_BACKLOG: Final = 2048
_LINGER_0: Final = struct.pack("ii", 1, 0)


class _QuietServer(uvicorn.Server):
    """Stops on SIGTERM and SIGINT and then returns; uvicorn would raise the signal once more."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        stops = (signal.SIGINT, signal.SIGTERM)
        before = {stop: signal.signal(stop, self.handle_exit) for stop in stops}
        try:
            yield
        finally:
            for stop, handler in before.items():
                signal.signal(stop, handler)


def build_server(app: ASGIApp) -> uvicorn.Server:
    """A server for one process; `await server.serve(sockets=[listen(...)])` runs it in a loop."""
    return _QuietServer(
        uvicorn.Config(
            app,
            http=_resettable_protocol,  # type: ignore[arg-type]  # any factory of protocols works
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises SettingsError for a taken port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"the simulator can't listen on {host}:{port} ({error.strerror}); "
            "choose another --port or stop what listens there"
        ) from error


def serve_app(app: ASGIApp, *, host: str, port: int) -> None:
    """Serve until a signal says stop; returns then."""
    build_server(app).run(sockets=[listen(host, port)])


def _resettable_protocol(**arguments: Any) -> Any:
    """uvicorn's own protocol for one connection; its app can reset the connection."""
    protocol: Any = AutoHTTPProtocol(**arguments)
    protocol.app = partial(_with_reset, protocol, protocol.app)
    return protocol


async def _with_reset(
    protocol: Any, app: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    scope["extensions"] = {**scope.get("extensions", {}), RESET: partial(_reset, protocol)}
    await app(scope, receive, send)


def _reset(protocol: Any) -> None:
    """Linger 0 makes the closing a TCP reset instead of an orderly end."""
    raw = protocol.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    protocol.transport.abort()
