"""What an operator can turn about the model: who serves, which model, within which bounds."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from services.kernel.settings import KernelSettings

ProviderKind = Literal["simulated", "openrouter", "custom"]


class FallbackSettings(BaseModel):
    """Another provider, asked while those before it can't be.

    Its key is named, not given: here only stands where it is found.
    """

    base_url: str = Field(description="root of the chat-completions API")
    model: str = Field(description="the LLM to ask there")
    kind: Literal["openrouter", "custom"] = Field(default="custom", description="its dialect")
    api_key_env: str | None = Field(
        default=None, description="environment variable that holds the key"
    )
    api_key_file: Path | None = Field(default=None, description="file that holds the key")
    requests_per_minute: float = Field(
        default=0, ge=0, description="calls a minute of the whole fleet; 0: found by itself"
    )


class ProviderSettings(BaseModel):
    """Who serves completions."""

    kind: ProviderKind = Field(
        default="simulated", description="simulated (offline), openrouter, or custom (base_url)"
    )
    base_url: str | None = Field(
        default=None, description="root of the chat-completions API; needed for custom"
    )
    model: str | None = Field(
        default=None, description="the LLM to ask; needed for openrouter and custom"
    )
    api_key: SecretStr | None = Field(
        default=None, description="key for custom; openrouter takes OPENROUTER_API_KEY"
    )
    api_key_file: Path | None = Field(
        default=None, description="file with the key for custom in one line, in place of API_KEY"
    )
    timeout_s: float = Field(default=120, gt=0, description="seconds until a call is given up")
    fallback_models: tuple[str, ...] = Field(
        default=(),
        description="LLMs of the same provider, asked in this order while the first can't be; "
        "written as JSON",
    )
    fallbacks: tuple[FallbackSettings, ...] = Field(
        default=(),
        description="other providers, asked after the fallback models, as JSON: base_url, model, "
        "kind, api_key_env or api_key_file, requests_per_minute",
    )
    breaker_failures: int = Field(
        default=8,
        ge=1,
        le=1000,
        description="failed calls in a row, over the fleet, after which a model is not asked for "
        "a while",
    )
    breaker_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="share of at least 20 calls in 30 s whose failure has the same effect",
    )


BUDGET_MAX_USD = 1_000_000

Usd = Annotated[Decimal, Field(ge=0)]


class ModelPrice(BaseModel):
    """What a model costs: US dollars a million tokens, and a request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_usd: Usd
    completion_usd: Usd
    request_usd: Usd = Decimal(0)


class BudgetSettings(BaseModel):
    """Money of all stages together; `cardflow budget` changes it while they run."""

    per_day_usd: Decimal | None = Field(
        default=None,
        gt=0,
        le=BUDGET_MAX_USD,
        description="US dollars that all stages may spend in a day (UTC); none: no limit. Needs "
        "the model's price; at the limit calls wait. `cardflow budget --day` goes before it",
    )


class StageSettings(BaseModel):
    """One stage's share of the model.

    `concurrency` is that of each replica; the limits are those of all replicas of the stage
    together. A call takes a slot of `concurrency` and of `calls_in_flight`, one permit of
    `requests_per_minute`, and its tokens; an answer from the cache takes none of it.
    `cardflow limits` changes the limits while the stage runs.
    """

    model: str | None = Field(
        default=None, description="the LLM that this stage asks; none: the provider's"
    )
    concurrency: int = Field(
        default=16, ge=1, le=1000, description="terms that one replica works on at once"
    )
    requests_per_minute: float = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="calls of all replicas together in any minute; 0: no limit",
    )
    tokens_per_minute: float = Field(
        default=0,
        ge=0,
        le=10_000_000_000,
        description="tokens, of prompts and completions, of all replicas together in any minute; "
        "0: no limit",
    )
    calls_in_flight: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="calls under way at once, of all replicas together; 0: no limit but the "
        "concurrency of each. To keep so many under way, the concurrency of all replicas has to be "
        "about half as much again, since a term is worked on before its call and after it",
    )
    max_tokens: int = Field(default=2048, ge=64, description="bound of one completion, in tokens")
    max_tokens_cap: int = Field(
        default=8192,
        ge=64,
        description="a reply that max_tokens cut off is asked for once more with twice the "
        "room, at most so many tokens; not above max_tokens: not asked for again",
    )
    temperature: float = Field(default=0.3, ge=0, le=2, description="randomness of the model")
    budget_usd: Decimal | None = Field(
        default=None,
        gt=0,
        le=BUDGET_MAX_USD,
        description="US dollars that the stage may spend in all, over all days, batches and "
        "replicas; none: no limit. `cardflow budget --stage` goes before it",
    )


class ModelSettings(KernelSettings):
    """What the two services need that ask a model."""

    provider: ProviderSettings = ProviderSettings()
    budget: BudgetSettings = BudgetSettings()
    prices: dict[str, ModelPrice] = Field(
        default={},
        description="what models cost, before what the provider lists: JSON with US dollars a "
        'million tokens, {"MODEL": {"prompt_usd": 0.15, "completion_usd": 0.6}}, and '
        '"request_usd" for each call where there is such a price',
    )
    openrouter_api_key: Annotated[
        SecretStr | None,
        Field(validation_alias="OPENROUTER_API_KEY", description="key of openrouter.ai"),
    ] = None
    openrouter_api_key_file: Annotated[
        Path | None,
        Field(
            validation_alias="OPENROUTER_API_KEY_FILE",
            description="file with the key of openrouter.ai in one line, in place of "
            "OPENROUTER_API_KEY",
        ),
    ] = None
