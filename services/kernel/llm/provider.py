"""The seam to who serves completions."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from pydantic import Field

from services.kernel.contracts.base import Contract
from services.kernel.contracts.provenance import Usage
from services.kernel.errors import ReplyRejected
from services.kernel.llm.prompt import CompletionRequest


class Completion(Contract):
    """One answer of a model: the text, and who served it at what cost.

    Once it is kept, `call_id` is the id of the attempt that asked for it, `prompt` and
    `prompt_version` what it answers, `kept_at` since when; older ones lack them. `rebuilt`: made of
    the result that was read from it, not in the model's own words. `exhausted_for_s`: the
    provider said with it that no call is left for so long; nothing that is kept.
    """

    text: str
    model: str
    provider: str
    generation_id: str | None = None
    usage: Usage = Usage()
    call_id: str | None = None
    prompt: str | None = None
    prompt_version: str | None = None
    kept_at: datetime | None = None
    rebuilt: bool = False
    exhausted_for_s: float | None = Field(default=None, exclude=True)


class UnfitCompletion(ReplyRejected):
    """The provider billed an answer that can't be used; `completion` says what it cost."""

    def __init__(self, reason: str, detail: str, completion: Completion) -> None:
        super().__init__(reason, detail)
        self.completion = completion


class Provider(Protocol):
    """Serves one completion.

    Raises Throttled (wait, no attempt used), TransientError (nothing was billed), UncertainCall
    (may have been billed), PermanentError, or UnfitCompletion (billed, and no use).
    """

    async def complete(self, request: CompletionRequest) -> Completion: ...
