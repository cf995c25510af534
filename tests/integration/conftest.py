"""A real nats-server for each test, in a folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from services.cli.machine.nats_server import EmbeddedServer, free_port
from services.kernel.provisioning.provision import provision
from services.kernel.settings import NatsSettings


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh server with JetStream."""
    server = EmbeddedServer(tmp_path / "nats", port=free_port(), sync_always=False)
    with server.running():
        yield server.url


@pytest.fixture
async def nc(nats_server: str) -> AsyncIterator[Client]:
    client = await nats.connect(nats_server)
    yield client
    await client.close()


@pytest.fixture
async def js(nc: Client) -> JetStreamContext:
    """A provisioned server's JetStream."""
    context = nc.jetstream(timeout=5)
    await provision(context, NatsSettings(stream_max_mib=64))
    return context
