"""One term asked of a scripted server through the real transport, caller and retry policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from scripted_server import Script, ScriptedServer, http, scripted, writes
from unit.asking_fakes import SECRET, MemoryCache, MemoryClaims, MemoryLedger, NoBudget, access
from unit.term_samples import accepted, analysis_reply, as_text

from services.kernel.contracts.analysis import Analysis
from services.kernel.contracts.term import Priority
from services.kernel.errors import ProviderBlocked, Throttled
from services.kernel.holding import Holding
from services.kernel.llm.calling import Caller
from services.kernel.llm.http_provider import HttpProvider, open_http_provider
from services.kernel.llm.prompt import CompletionRequest, Inquiry
from services.kernel.llm.provider import Completion
from services.kernel.llm.reply import read_reply
from services.kernel.llm.routes import Turn
from services.kernel.metrics import Metrics
from services.kernel.provider_access import ProviderAccess
from services.kernel.stream.retry import GiveUp, Retry, RetryPolicy
from services.stage1.checks import checked_analysis
from services.stage1.prompt import AnalysisReply, analysis_prompt

POLICY = RetryPolicy(max_attempts=5, base_s=1, cap_s=60)
TERM = accepted("책")
REPLY = as_text(analysis_reply("책"))
USAGE = {"prompt_tokens": 900, "completion_tokens": 400, "cost": 0.0021}
COST_USD = Decimal("0.0021")


def choice(content: Any = REPLY, *, finish_reason: Any = "stop", **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": content, **message}
    return {"index": 0, "finish_reason": finish_reason, "message": said}


def answer(*choices: Any, **values: Any) -> dict[str, Any]:
    """A completion as OpenRouter sends it; what a test names is different."""
    return {
        "id": "gen-1",
        "model": "test/model-served",
        "provider": "Test",
        "object": "chat.completion",
        "choices": list(choices) or [choice()],
        "usage": USAGE,
        **values,
    }


GOOD = writes(http(answer()))


@dataclass(frozen=True)
class End:
    """What became of one ask.

    `outcomes` are the calls in the ledger, `cost_usd` is what they were billed. `waits` are the
    cool-downs that were asked for, in seconds. `verdict` is the retry policy's after the first
    attempt, at no jitter; None when there is an analysis.
    """

    outcomes: tuple[str, ...]
    cost_usd: Decimal = Decimal(0)
    verdict: Retry | GiveUp | None = None
    waits: tuple[float, ...] = ()
    is_blocked: bool = False


@dataclass(frozen=True)
class Seen:
    """The end, and what else there is to look at."""

    end: End
    error: Exception | None
    analysis: Analysis | None
    completion: Completion | None


class OneRoute:
    """The provider, always open; notes how long it asked us to wait, and does not wait."""

    def __init__(self, access_: ProviderAccess, provider: HttpProvider) -> None:
        self.access = access_
        self.waits: list[float] = []
        self.is_blocked = False
        self._provider = provider

    @asynccontextmanager
    async def turn(self, _inquiry: Inquiry, _priority: Priority) -> AsyncIterator[Turn]:
        yield self

    async def complete(self, request: CompletionRequest) -> Completion:
        try:
            return await self._provider.complete(request)
        except Throttled as error:
            self.waits.append(error.retry_after_s)
            self.is_blocked = isinstance(error, ProviderBlocked)
            raise


async def asked_of(*scripts: Script, timeout_s: float = 5.0) -> tuple[Seen, ServerSeen]:
    """What came of asking a scripted server."""
    async with scripted(*scripts) as server:
        seen = await asked_at(server.url, timeout_s=timeout_s)
        return seen, ServerSeen(server)


@dataclass(frozen=True)
class ServerSeen:
    """What the server was asked."""

    server: ScriptedServer

    @property
    def calls(self) -> int:
        return self.server.calls


async def asked_at(url: str, *, timeout_s: float = 5.0) -> Seen:
    """What came of asking whoever is there. Nothing takes longer than some timeouts."""
    to = access("custom", base_url=url, api_key=SECRET)
    ledger = MemoryLedger([])
    inquiry = Inquiry(analysis_prompt(TERM), to, 2_048, 0.3, max_tokens_cap=8_192)
    error: Exception | None = None
    answered: tuple[Completion, Analysis] | tuple[None, None] = (None, None)
    async with open_http_provider(to, timeout_s=timeout_s, concurrency=2) as provider:
        route = OneRoute(to, provider)
        caller = Caller(route, NoBudget(), MemoryCache([]), Metrics("stage1"), Holding())
        try:
            async with asyncio.timeout(4 * timeout_s):
                answered = await caller.call(inquiry, _parse, ledger, MemoryClaims(), TERM)
        except Exception as raised:
            error = raised
    history = ledger.history
    verdict = POLICY.decide(error, attempt=1, jitter=0.0) if error else None
    outcomes = tuple(a.outcome for a in history.attempts)
    waits = tuple(route.waits)
    end = End(outcomes, history.cost_usd, verdict, waits, route.is_blocked)
    return Seen(end, error, answered[1], answered[0])


def _parse(completion: Completion) -> Analysis:
    return checked_analysis(read_reply(completion.text, AnalysisReply), TERM)
