"""What is watched while it happens, because afterwards nobody could tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from model.broker import Stored
from model.provider import Call

from services.kernel import topology

if TYPE_CHECKING:
    from model.world import World


class _Claimed(NamedTuple):
    """A write of a claim: `token` is None when it was taken back."""

    at_s: float
    token: str | None


class Books:
    """Looks at every call as it reaches the provider: was it recorded, and was it alone?"""

    def __init__(self, world: World) -> None:
        self._world = world
        self._claims: dict[str, list[_Claimed]] = {}
        self._token_of: dict[int, str | None] = {}
        self._claims_bucket = world.broker.bucket(topology.CLAIMS)
        self._claims_bucket.listeners.append(self._on_claim)
        self.unrecorded: list[str] = []
        self.collisions: list[str] = []

    def _on_claim(self, stored: Stored) -> None:
        fingerprint = stored.subject.rsplit(".", 1)[1]
        token = None if "KV-Operation" in stored.headers else stored.data.decode()
        self._claims.setdefault(fingerprint, []).append(_Claimed(stored.at_s, token))

    def on_call(self, call: Call) -> None:
        self._world.note(f"{call.caller} calls for {call.fingerprint[:8]}: {call.mood.value}")
        claims = self._claims.get(call.fingerprint)
        self._token_of[call.number] = claims[-1].token if claims else None
        if not self._is_recorded(call):
            self.unrecorded.append(f"{call.caller} called for {call.fingerprint[:8]}")
        for other in self._unfinished(call):
            if not self._has_lapsed(other):
                self.collisions.append(
                    f"{call.caller} called for {call.fingerprint[:8]}, which {other.caller} has "
                    "asked for and has not put into the cache"
                )

    def _is_recorded(self, call: Call) -> bool:
        return any(
            attempt.outcome == "started" and attempt.fingerprint == call.fingerprint
            for history in self._world.ledgers().values()
            for attempt in history.attempts
        )

    def _unfinished(self, call: Call) -> list[Call]:
        """Calls for the same, of living replicas, whose answer nobody else can find yet."""
        if call.fingerprint in self._world.broker.keys(topology.COMPLETIONS):
            return []
        living = {replica.name for replica in self._world.living()}
        return [
            other
            for other in self._world.provider.calls
            if other.fingerprint == call.fingerprint
            and other.caller in living
            and (other.is_open or (other.is_answered and other.is_fit))
        ]

    def _has_lapsed(self, other: Call) -> bool:
        """Its claim passed its age, since it could not be renewed: no claim prevents that."""
        lifetime_s = self._claims_bucket.config.max_age or 0.0
        history = self._claims.get(other.fingerprint, [])
        token = self._token_of[other.number]
        own = [place for place, write in enumerate(history) if token and write.token == token]
        if not own:
            return False
        last_s = history[own[-1]].at_s
        after = history[own[-1] + 1 :]
        ran_out = not after or after[0].at_s >= last_s + lifetime_s
        return ran_out and self._world.network.troubled_at_s.get("claim", -1.0) >= last_s
