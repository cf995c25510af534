"""Publishing on a stream: done when the server has said so, a duplicate counts as done."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal

import structlog
from nats.errors import MaxPayloadError
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError

from services.kernel import topology
from services.kernel.errors import Outage, PermanentError
from services.kernel.nats_faults import NATS_FAULTS

Published = Literal["published", "duplicate"]

_DUPLICATE_DESCRIPTION = "maximum messages per subject exceeded"
_ELECTION_S = 30.0
"""An election takes 4–8 s; until this is over, silence is worth another try."""


def is_duplicate(error: APIError) -> bool:
    """True when the subject is taken. A full stream has the same code with another description."""
    return (
        error.err_code == topology.ALREADY_WRITTEN
        and (error.description or "").lower() == _DUPLICATE_DESCRIPTION
    )


class Publisher:
    """Publishes with an awaited PubAck.

    `timeout_s` bounds one wait for the PubAck, `election_s` all tries while no stream answers.
    Publishing the same thing again is harmless on first-write-wins and latest-only subjects, the
    only ones that services write to.
    """

    def __init__(
        self, js: JetStreamContext, *, timeout_s: float, election_s: float = _ELECTION_S
    ) -> None:
        self._js = js
        self._timeout_s = timeout_s
        self._election_s = election_s
        self._log = structlog.get_logger()

    async def publish(
        self, subject: str, body: bytes, *, headers: Mapping[str, str] | None = None
    ) -> Published:
        """Raises Outage when the stream can't take the message now: away, full, no leader.

        Raises PermanentError for a message that no server would take.
        """
        try:
            async with asyncio.timeout(self._election_s):
                return await self._publish_until_answered(subject, body, dict(headers or {}))
        except TimeoutError as error:
            raise Outage(f"no stream took {subject} within {self._election_s:g} s") from error

    async def _publish_until_answered(
        self, subject: str, body: bytes, headers: dict[str, str]
    ) -> Published:
        while True:
            try:
                await self._js.publish(
                    subject, body, timeout=self._timeout_s, headers=headers or None
                )
            except APIError as error:
                if is_duplicate(error):
                    return "duplicate"
                raise Outage(f"the stream of {subject} refused: {error.description}") from error
            except NoStreamResponseError:
                self._log.warning("publish.unanswered", reason="no stream listens or no leader")
                await asyncio.sleep(0.5)
            except MaxPayloadError as error:
                raise PermanentError(
                    f"{len(body)} bytes for {subject} are more than the server takes",
                    reason="too_large",
                ) from error
            except NATS_FAULTS as error:
                raise Outage(f"publishing to {subject} failed: {error!r}") from error
            else:
                return "published"
