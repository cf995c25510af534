"""A command's talk with JetStream: connected for one coroutine, its faults told as messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from services.cli.common import fail, run
from services.kernel.errors import SettingsError, TransientError
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.stream.reading import connected

T = TypeVar("T")

_TIMEOUT_S = 10.0
"""For one answer of the server; counting a stream of 50,000 subjects takes 0.1 s."""


def with_jetstream(url: str, work: Callable[[JetStreamContext], Awaitable[T]]) -> T:
    """What `work` returns; ends the command (exit 2) when NATS is away, slow or unwilling."""

    async def session() -> T:
        async with connected(url) as nc:
            return await work(nc.jetstream(timeout=_TIMEOUT_S))

    with reported(), _nats_reported(url):
        return run(session())


@contextmanager
def reported() -> Iterator[None]:
    """Ends the command (exit 2) with the message of what keeps it from running."""
    try:
        yield
    except (SettingsError, TransientError) as error:
        fail(str(error))


@contextmanager
def _nats_reported(url: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except NotFoundError:
        fail(
            f"the server at {url} lacks a stream of cardflow: run `cardflow provision --nats {url}`"
        )
    except NATS_FAULTS as error:
        fail(
            f"the server at {url} did not do its part ({error!r}); see whether it runs and has "
            "JetStream enabled (`cardflow doctor`), then try again"
        )
