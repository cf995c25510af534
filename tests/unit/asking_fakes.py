"""Fakes at the seams of asking a model. They write what is done to them into one journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal

from pydantic import SecretStr
from unit.pace_fakes import MemoryBucket
from unit.route_fakes import route_on, routes_of

from services.kernel.contracts.attempt import Attempt, AttemptHistory, Outcome
from services.kernel.contracts.base import Batch
from services.kernel.contracts.provenance import Usage
from services.kernel.errors import Outage
from services.kernel.holding import Holding
from services.kernel.llm.asker import Asker
from services.kernel.llm.budget import Reservation
from services.kernel.llm.calling import Caller
from services.kernel.llm.claims import Claim
from services.kernel.llm.prompt import CompletionRequest, Inquiry
from services.kernel.llm.provider import Completion, Provider
from services.kernel.metrics import Metrics
from services.kernel.model_settings import ProviderKind, StageSettings
from services.kernel.provider_access import ProviderAccess

Journal = list[str]
Scripted = Completion | Exception

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
SECRET = "sk-or-v1-0123456789abcdef"


def access(
    kind: ProviderKind = "openrouter",
    *,
    base_url: str = "http://provider.test/api/v1",
    model: str = "test/model",
    api_key: str | None = SECRET,
) -> ProviderAccess:
    key = None if api_key is None else SecretStr(api_key)
    return ProviderAccess(kind=kind, base_url=base_url, model=model, api_key=key)


def completion(text: str = "{}", *, cost_usd: str = "0.002") -> Completion:
    return Completion(
        text=text,
        model="test/model-served",
        provider="Test",
        generation_id="gen-1",
        usage=Usage(prompt_tokens=100, completion_tokens=50, cost_usd=Decimal(cost_usd)),
    )


class NoBudget:
    """Money without end; nobody counts. Implements `kernel.llm.budget.Budget`."""

    @asynccontextmanager
    async def reserve(self, inquiry: Inquiry, batch: Batch) -> AsyncIterator[Reservation]:
        yield self

    def settle(self, cost_usd: Decimal) -> None: ...

    def keep(self) -> None: ...


class FakeProvider:
    """Serves what it was given, in order. More calls than that are a fault."""

    def __init__(self, journal: Journal, answers: Iterable[Scripted]) -> None:
        self._journal = journal
        self._answers = list(answers)
        self.requests: list[CompletionRequest] = []

    async def complete(self, request: CompletionRequest) -> Completion:
        self._journal.append("call")
        self.requests.append(request)
        assert self._answers, "asked more often than expected"
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class MemoryCache:
    """Completions in a dictionary; `full_for` that many writes fail."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.completions: dict[str, Completion] = {}
        self.full_for = 0

    async def get(self, fingerprint: str) -> Completion | None:
        self._journal.append("cache.get")
        return self.completions.get(fingerprint)

    async def put(self, fingerprint: str, completion: Completion) -> None:
        self._journal.append("cache.put")
        if self.full_for:
            self.full_for -= 1
            raise Outage("the cache is full")
        # Through the wire's form: what can't be written must not pass for written.
        self.completions[fingerprint] = Completion.model_validate_json(completion.to_bytes())


class MemoryLedger:
    """One delivery's attempts; `earlier` are those of deliveries before it."""

    def __init__(self, journal: Journal, earlier: Iterable[Attempt] = ()) -> None:
        self._journal = journal
        self.history = AttemptHistory(attempts=tuple(earlier))
        self.away_for = 0
        self.max_attempts = 5

    @property
    def has_attempt_left(self) -> bool:
        return self.used < self.max_attempts

    @property
    def used(self) -> int:
        return self.history.count(0)

    @property
    def last(self) -> Attempt:
        return self.history.attempts[-1]

    async def begin(self, fingerprint: str, *, is_repair: bool = False) -> str:
        self._journal.append("begin repair" if is_repair else "begin")
        call = started(fingerprint, f"call-{self.used + 1}")
        self._store([*self.history.attempts, call.model_copy(update={"is_repair": is_repair})])
        return self.last.id

    async def settle(
        self, outcome: Outcome, *, paid_for: Completion | None = None, error: str | None = None
    ) -> None:
        self._journal.append(f"settle {outcome}")
        if self.away_for:
            self.away_for -= 1
            raise Outage("the ledger is away")
        assert self.last.outcome == "started", "settled a call that was never begun"
        settled = {"outcome": outcome, "error": error, "finished_at": NOON}
        if paid_for is not None:
            settled |= {
                "cost_usd": paid_for.usage.cost_usd,
                "generation_id": paid_for.generation_id,
                "model": paid_for.model,
            }
        self._store([*self.history.attempts[:-1], self.last.model_copy(update=settled)])

    async def recover(self, completion: Completion) -> bool:
        self._journal.append("recover")
        attempts = list(self.history.attempts)
        for index, attempt in enumerate(attempts):
            if attempt.id == completion.call_id:
                settled = {"outcome": "billed", "cost_usd": completion.usage.cost_usd}
                attempts[index] = attempt.model_copy(update=settled)
                self._store(attempts)
                return True
        return False

    def _store(self, attempts: list[Attempt]) -> None:
        history = AttemptHistory(attempts=tuple(attempts))
        self.history = AttemptHistory.model_validate_json(history.to_bytes())


def started(fingerprint: str, id_: str) -> Attempt:
    return Attempt(id=id_, outcome="started", fingerprint=fingerprint, started_at=NOON)


class FakeTime:
    """A clock that only sleeping moves. For one sleeper at a time.

    While `pause` is set to an event, who sleeps wakes up only after that event.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal
        self.now = 1_000.0
        self.pause: asyncio.Event | None = None

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        if self._journal is not None:
            self._journal.append(f"sleep {seconds:g}")
        if self.pause is not None:
            await self.pause.wait()
        self.now += seconds


class MemoryClaims:
    """One claim a fingerprint. Implements `kernel.llm.claims.Claims`.

    `kept` are the answers to whether it is fresh and held, True when they run out; `is_free` says
    whether one in doubt can be taken again.
    """

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.kept: list[bool] = []
        self.is_free = True

    async def retake(self) -> bool:
        return self.is_free

    def is_fresh(self) -> bool:
        return self.kept.pop(0) if self.kept else True

    is_held = is_fresh

    @asynccontextmanager
    async def claim(self, fingerprint: str) -> AsyncIterator[Claim | None]:
        if fingerprint in self.held:
            yield None
            return
        self.held.add(fingerprint)
        try:
            yield self
        finally:
            self.held.discard(fingerprint)


class Asking:
    """An asker among fakes, and everything that there is to look at afterwards."""

    def __init__(
        self,
        *answers: Scripted,
        earlier: Iterable[Attempt] = (),
        stage: StageSettings | None = None,
        provider_access: Callable[[], ProviderAccess] = access,
        provider: Provider | None = None,
    ) -> None:
        self.journal: Journal = []
        self.time = FakeTime(self.journal)
        self.provider = FakeProvider(self.journal, answers)
        self.cache = MemoryCache(self.journal)
        self.claims = MemoryClaims()
        self.ledger = MemoryLedger(self.journal, earlier)
        self.metrics = Metrics("stage1")
        self.access = provider_access()
        self.stage = stage or StageSettings()
        self.troubles: list[str | None] = []
        self.holds: list[str | None] = []
        self.route = route_on(
            MemoryBucket(),
            self.time.clock,
            self.access,
            provider or self.provider,
            metrics=self.metrics,
            note_trouble=self._note_trouble,
        )
        self.routes = routes_of(
            [self.route], self.time.clock, self.time.sleep, note_trouble=self._note_trouble
        )
        self.caller = Caller(
            self.routes,
            NoBudget(),
            self.cache,
            self.metrics,
            Holding(self.holds.append, sleep=self.time.sleep),
        )
        self.asker = Asker(
            self.caller,
            self.access,
            self.cache,
            self.claims,
            self.stage,
            self.metrics,
            clock=self.time.clock,
            sleep=self.time.sleep,
        )

    def _note_trouble(self, reason: str | None) -> None:
        """What is told again while calls wait is told once here."""
        if self.troubles[-1:] != [reason]:
            self.troubles.append(reason)

    def next_term(self) -> None:
        """What is asked from now on is for another term, or for the same in another batch."""
        self.ledger = MemoryLedger(self.journal)

    def sample(self, name: str, **labels: str) -> float:
        """The value of a metric."""
        value = self.metrics.registry.get_sample_value(name, {"service": "stage1", **labels})
        assert value is not None, f"no metric {name} {labels}"
        return value


async def until(claim: Callable[[], bool]) -> None:
    """Lets the other tasks go on until the claim is true."""
    for _ in range(1_000):
        if claim():
            return
        await asyncio.sleep(0)
    raise AssertionError("never came true")
