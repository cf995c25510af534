"""Who a term is: ids that are the same on every machine and at every redelivery."""

from __future__ import annotations

import base64
import hashlib

from services.kernel.contracts.base import TermId

_ID_BYTES = 10
"""80 bits: among a million terms a collision has odds of about one in a trillion."""


def _digest(parts: tuple[str | bytes, ...]) -> bytes:
    """SHA-256 over length-prefixed parts, so that ("ab", "c") and ("a", "bc") differ."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.digest()


def short_hash(*parts: str | bytes) -> str:
    """16 characters of lower-case base32, safe in subjects, KV keys and file names."""
    return base64.b32encode(_digest(parts)[:_ID_BYTES]).decode("ascii").lower()


def fingerprint(*parts: str | bytes) -> str:
    """64 hexadecimal characters over all that determines a completion."""
    return _digest(parts).hex()


def term_id(normal_form: str, homonym: int | None) -> TermId:
    """The same normal form and the same homonym number are the same term."""
    return TermId(short_hash("term", normal_form, str(homonym or "")))


def refusal_id(payload: bytes) -> str:
    """The id of a submission that is no term: the same bytes are the same refusal."""
    return short_hash("refused", payload)
