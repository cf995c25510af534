"""Reading requests and sending replies over ASGI, and breaking connections on purpose."""

from __future__ import annotations

from typing import Final

from starlette.types import Message, Receive, Scope, Send

from services.simulator.replies import Reply

RESET: Final = "cardflow.reset"
"""The ASGI extension of our server: a function that drops the connection with a TCP reset."""


async def read_body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def send_reply(send: Send, reply: Reply) -> None:
    await send(_start(reply))
    await send({"type": "http.response.body", "body": reply.body})


async def send_half(scope: Scope, send: Send, reply: Reply) -> None:
    """The header and half of the body it promises, then the end of the connection."""
    await send(_start(reply))
    half = reply.body[: len(reply.body) // 2]
    await send({"type": "http.response.body", "body": half, "more_body": True})
    if RESET not in scope.get("extensions", {}):
        raise ConnectionResetError("simulated: the connection was cut in the body")
    # Our server closes the connection of an app that returns before its reply is complete.


def reset_connection(scope: Scope) -> None:
    """Drop the connection without an answer. Without our server, in process, it raises instead."""
    reset = scope.get("extensions", {}).get(RESET)
    if reset is None:
        raise ConnectionResetError("simulated: the connection was reset")
    reset()


async def wait_for_disconnect(receive: Receive) -> None:
    message: Message = {"type": "http.request"}
    while message["type"] != "http.disconnect":
        message = await receive()


def _start(reply: Reply) -> Message:
    return {
        "type": "http.response.start",
        "status": reply.status,
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(reply.body)),
            *reply.headers,
        ],
    }
