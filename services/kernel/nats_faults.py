"""What the NATS client raises when the server is away, slow or unwilling."""

from __future__ import annotations

from typing import Final

import nats.errors
import nats.js.errors

NATS_FAULTS: Final = (nats.errors.Error, nats.js.errors.Error, OSError)
"""TimeoutError is an OSError. Errors that are an answer (key not found) must be caught before."""
