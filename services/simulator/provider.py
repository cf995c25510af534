"""What becomes of a call: refused, limited, hung, failed, or answered and billed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from services.simulator.asked import Asked, BadRequest, read_call
from services.simulator.completions import SimulatedModel
from services.simulator.fate import Fate, decide_fate
from services.simulator.knowledge import Knowledge
from services.simulator.ledger import Ledger
from services.simulator.limits import Limits
from services.simulator.replies import (
    Generation,
    Reply,
    error_of,
    generation_of,
    reply_broken_choice,
    reply_completion,
    reply_error,
    reply_json,
)
from services.simulator.settings import SimulatorSettings
from services.simulator.wire import (
    read_body,
    reset_connection,
    send_half,
    send_reply,
    wait_for_disconnect,
)

_GENERATIONS_KEPT: Final = 100_000
_RETRY_AFTER_S: Final = 1
_FAULT: Final = "Simulated failure of the provider"


class SimulatedProvider:
    """`settings` may be replaced while calls are in hand; the ledger only grows.

    `generations` are the newest 100,000 billed completions by their id.
    """

    def __init__(
        self,
        settings: SimulatorSettings,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.settings = settings
        self.ledger = Ledger(datetime.fromtimestamp(clock(), UTC).isoformat())
        self.generations: dict[str, Generation] = {}
        self._clock = clock
        self._sleep = sleep
        self._model = SimulatedModel(Knowledge.shipped())
        self.limits = Limits()

    def stats(self, *, with_terms: bool) -> dict[str, Any]:
        refused = self.limits.refused
        return {
            **self.ledger.stats(with_terms=with_terms),
            "rate_limited": refused.total(),
            "refused": dict(refused),
            "models": self.limits.windows.seen(),
        }

    async def take_call(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.ledger.calls += 1
        body = await read_body(receive)
        try:
            asked = read_call(body)
        except BadRequest as error:
            self.ledger.errors["bad_request"] += 1
            await send_reply(send, reply_error(400, str(error)))
            return
        refusal = self._refuse() or self.limits.refuse(self.settings, asked.model, self._clock())
        if refusal is not None:
            await send_reply(send, refusal)
            return
        nth = self.ledger.next_try(asked)
        fate = decide_fate(self.settings, asked.stage, asked.identity, nth)
        with self.ledger.in_flight():
            await self._meet_fate(asked, fate, scope, receive, send)

    def _refuse(self) -> Reply | None:
        """The answer to everybody while the provider is down or refuses us."""
        status = self.settings.refuse_status or (503 if self.settings.down else 0)
        if not status:
            return None
        self.ledger.errors["down" if self.settings.down else f"refused_{status}"] += 1
        return reply_error(status, f"{_FAULT}: told to answer {status} to every call")

    async def _meet_fate(
        self, asked: Asked, fate: Fate, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if fate.hangs:
            self.ledger.errors["hang"] += 1
            await wait_for_disconnect(receive)
            return
        if fate.latency_s:
            await self._sleep(fate.latency_s)
        if fate.error is not None:
            self.ledger.errors[fate.error] += 1
        if fate.error == "reset":
            reset_connection(scope)
        elif fate.error is None or fate.error == "cut":
            await self._answer(asked, fate, scope, send)
        else:
            await send_reply(send, self._failure(fate.error, asked, fate))

    async def _answer(self, asked: Asked, fate: Fate, scope: Scope, send: Send) -> None:
        """A billed completion; the bill stands before the first byte, so stats never lag behind."""
        completion = self._model.complete(
            asked,
            fate,
            self.settings.seed,
            disagreement_rate=self.settings.disagreement_rate,
        )
        generation = generation_of(asked, completion, f"gen-{fate.code}", int(self._clock()))
        self._keep(generation)
        told = self.limits.headers(self.settings, asked.model, self._clock())
        reply = reply_completion(generation, completion, told)
        if fate.error == "cut":
            self.ledger.charge_lost(generation.nano_usd)
            await send_half(scope, send, reply)
            return
        self.ledger.charge_answer(asked, generation.nano_usd)
        if completion.malformed is not None:
            self.ledger.malformed[completion.malformed] += 1
        await send_reply(send, reply)

    def _failure(self, kind: str, asked: Asked, fate: Fate) -> Reply:
        """An unbilled failure: most kinds are the name of their status."""
        if kind == "error_in_200":
            return reply_json({"error": error_of(502, _FAULT)})
        if kind == "error_in_choice":
            id_, created_s = f"gen-{fate.code}", int(self._clock())
            empty = Generation(id_, asked.model, asked.prompt_tokens, 0, "error", created_s)
            return reply_broken_choice(empty, _FAULT)
        patient = kind in ("429", "503")
        return reply_error(int(kind), _FAULT, retry_after_s=_RETRY_AFTER_S if patient else None)

    def _keep(self, generation: Generation) -> None:
        self.generations[generation.id] = generation
        if len(self.generations) > _GENERATIONS_KEPT:
            del self.generations[next(iter(self.generations))]
