"""What a service's handler may stand on once the service is connected."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nats.aio.client import Client
from nats.js import JetStreamContext

from services.kernel.circumstances import Circumstances
from services.kernel.holding import Holding
from services.kernel.metrics import Metrics


@dataclass(frozen=True)
class Connected:
    """The connection, and what all parts of a service share.

    `dependencies` is what /readyz tells beside NATS: a name with the reason why it is down, or
    None. `pause_until` pauses the service's consumers, for all replicas, until a time by the
    server's clock, in seconds.
    """

    nc: Client
    js: JetStreamContext
    metrics: Metrics
    holding: Holding
    dependencies: dict[str, str | None]
    circumstances: Circumstances
    pause_until: Callable[[float], Awaitable[None]]
