"""The limits of a stage over all its replicas: what the settings say, and what an operator says."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from services.kernel.contracts.base import Contract
from services.kernel.model_settings import StageSettings

REQUESTS_MAX: Final = 1_000_000
TOKENS_MAX: Final = 10_000_000_000
IN_FLIGHT_MAX: Final = 100_000

Requests = Annotated[float, Field(ge=0, le=REQUESTS_MAX, allow_inf_nan=False)]
Tokens = Annotated[float, Field(ge=0, le=TOKENS_MAX, allow_inf_nan=False)]
InFlight = Annotated[int, Field(ge=0, le=IN_FLIGHT_MAX)]


class Limits(Contract):
    """Requests and tokens in any 60 s, and calls under way at once. 0: no limit."""

    requests_per_minute: Requests = 0
    tokens_per_minute: Tokens = 0
    calls_in_flight: InFlight = 0

    @property
    def are_paced(self) -> bool:
        """A call needs a permit, and waits for its time."""
        return bool(self.requests_per_minute or self.tokens_per_minute)

    @property
    def are_shared(self) -> bool:
        """There is any: the replicas have to agree."""
        return self.are_paced or bool(self.calls_in_flight)


NO_LIMITS: Final = Limits()


class StageLimits(Contract):
    """What an operator has set while the stage runs. None: the setting of the stage holds."""

    requests_per_minute: Requests | None = None
    tokens_per_minute: Tokens | None = None
    calls_in_flight: InFlight | None = None


def limits_of(stage: StageSettings) -> Limits:
    """The limits that the settings of a stage name."""
    return Limits(
        requests_per_minute=stage.requests_per_minute,
        tokens_per_minute=stage.tokens_per_minute,
        calls_in_flight=stage.calls_in_flight,
    )


def limits_in_force(settings: Limits, operator: StageLimits) -> Limits:
    """The operator's limits, and the settings where there are none."""
    return settings.model_copy(update=operator.model_dump(exclude_none=True))


def limits_key(stage: str) -> str:
    """Where the operator's limits of a stage stand in FLEET."""
    return f"limits.{stage}"


def pace_key(stage: str) -> str:
    """Where the permits and slots of a stage stand in FLEET."""
    return f"pace.{stage}"
