"""Tokens and money, counted in whole nano-dollars: sums are exact, a cost has nine decimals."""

from __future__ import annotations

from typing import Final

PROMPT_NANO_USD: Final = 150
"""$0.15 a million prompt tokens."""
COMPLETION_NANO_USD: Final = 600
"""$0.60 a million completion tokens: a small, cheap model."""

NANO: Final = 1_000_000_000
_BYTES_PER_TOKEN: Final = 4
"""English has about four bytes to a token; a Hangul syllable of three bytes counts as 0.75."""


def count_tokens(text: str) -> int:
    """An estimate from the UTF-8 length alone, so that equal texts cost the same."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


def keep_tokens(text: str, most: int) -> str:
    """The beginning of a text, of at most so many tokens."""
    return text.encode("utf-8", "replace")[: most * _BYTES_PER_TOKEN].decode("utf-8", "ignore")


def price(prompt_tokens: int, completion_tokens: int) -> int:
    """Nano-dollars."""
    return prompt_tokens * PROMPT_NANO_USD + completion_tokens * COMPLETION_NANO_USD


def to_usd(nano_usd: int) -> float:
    """Dollars for JSON; the shortest decimal form of the float is the exact amount."""
    return nano_usd / NANO
