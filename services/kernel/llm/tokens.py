"""How many tokens a call will take, before it is made."""

from __future__ import annotations

from collections import deque
from typing import Final

from services.kernel.contracts.provenance import Usage

_BYTES_PER_TOKEN: Final = 3
"""Of JSON in UTF-8: a syllable of Hangul is three bytes and about one token, English is less."""
_REMEMBERED: Final = 50
_LONGER_MAX: Final = 8
"""A provider may let a completion get longer than asked for, but not so many times longer."""


class TokenEstimate:
    """Guesses high rather than low: the longest completion that this process saw lately."""

    def __init__(self) -> None:
        self._completions: deque[int] = deque(maxlen=_REMEMBERED)

    def of(self, prompt_bytes: int, max_tokens: int) -> int:
        """Of prompt and completion together; at most what the request allows."""
        completion = max(self._completions, default=max_tokens)
        return prompt_bytes // _BYTES_PER_TOKEN + min(completion, max_tokens)

    def learn(self, usage: Usage, prompt_bytes: int, max_tokens: int) -> int:
        """What a call has used; 0 when its usage is missing or can't be true."""
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        # A token is a byte at least.
        if not 0 < prompt <= prompt_bytes or not 0 < completion <= _LONGER_MAX * max_tokens:
            return 0
        self._completions.append(completion)
        return prompt + completion
