"""W3C trace context: one trace from a term's publish to its deck, carried in `traceparent`.

Format: https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from services.kernel import topology

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)


@dataclass(frozen=True)
class Trace:
    """The trace that a message belongs to, and the span that sent it."""

    trace_id: str
    span_id: str
    flags: str = "01"

    @classmethod
    def new(cls) -> Trace:
        return cls(secrets.token_hex(16), secrets.token_hex(8))

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Trace:
        """The trace in the headers; a new one where there is none or it is malformed."""
        match = _TRACEPARENT.fullmatch(headers.get(topology.TRACEPARENT, ""))
        if match is None or set(match[1]) == {"0"} or set(match[2]) == {"0"}:
            return cls.new()
        return cls(match[1], match[2], match[3])

    def child(self) -> Trace:
        """The same trace with a span of our own."""
        return Trace(self.trace_id, secrets.token_hex(8), self.flags)

    def header(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"
