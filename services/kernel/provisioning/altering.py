"""Altering what exists on the server, as far as the server lets us."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, StreamConfig
from nats.js.errors import APIError, NotFoundError

from services.kernel import topology


async def update_stream(
    js: JetStreamContext, found: StreamConfig, wanted: dict[str, Any]
) -> dict[str, str]:
    """Puts settings back: all together, else each that the server takes; why it refuses the rest.

    What the topology leaves open stays as it was found.
    """
    try:
        await js.update_stream(found.evolve(**wanted))
    except APIError as error:
        refusals = dict.fromkeys(wanted, _refusal(error))
    else:
        return {}
    current, refused_before = found, len(wanted) + 1
    while len(refusals) < refused_before:  # A setting may be taken once another has been.
        refused_before = len(refusals)
        for setting in list(refusals):
            evolved = current.evolve(**{setting: wanted[setting]})
            try:
                await js.update_stream(evolved)
            except APIError as error:
                refusals[setting] = _refusal(error)
            else:
                current = evolved
                del refusals[setting]
    return refusals


def _refusal(error: APIError) -> str:
    return f"the server refuses that: {error.description}"


async def update_consumer(
    js: JetStreamContext, consumer: topology.Consumer, wanted: ConsumerConfig
) -> str:
    """Changes a consumer, or makes it anew where the server refuses to; what that means.

    Made anew it delivers the whole stream again: finished work is found done.
    """
    try:
        await js.add_consumer(consumer.stream, wanted)
    except APIError:
        with suppress(NotFoundError):
            await js.delete_consumer(consumer.stream, consumer.durable)
        await js.add_consumer(consumer.stream, wanted)
        return "made anew, it delivers everything on its stream again"
    return ""
