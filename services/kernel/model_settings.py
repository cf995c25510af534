"""What an operator can turn about the model: who serves, which model, within which bounds."""

from __future__ import annotations

import ipaddress
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from services.kernel.api_keys import check_openrouter, find_key
from services.kernel.errors import SettingsError
from services.kernel.settings import KernelSettings

ProviderKind = Literal["simulated", "openrouter", "custom"]

OPENROUTER_URL = "https://openrouter.ai/api/v1"
SIMULATOR_URL = "http://127.0.0.1:8790/api/v1"
SIMULATED_MODEL = "simulated/teacher-1"


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
        "concurrency of each",
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


class ProviderAccess(BaseModel):
    """The provider as resolved: where to call, which model, with which key."""

    kind: ProviderKind
    base_url: str
    model: str
    api_key: SecretStr | None


def resolve_provider(settings: ModelSettings, stage: StageSettings | None = None) -> ProviderAccess:
    """The provider that was chosen, and the model: the stage's own, if it has one.

    Never guessed. Raises SettingsError for a half choice.
    """
    chosen = settings.provider
    model = (stage and stage.model) or chosen.model
    match chosen.kind:
        case "simulated":
            base_url = chosen.base_url or SIMULATOR_URL
            if not is_loopback(base_url):
                raise SettingsError(
                    f"the simulated provider must be on this machine, but its URL is {base_url}; "
                    "for another server use --base-url URL --model NAME"
                )
            return ProviderAccess(
                kind="simulated",
                base_url=base_url,
                model=model or SIMULATED_MODEL,
                api_key=None,
            )
        case "openrouter":
            key = find_key(
                settings.openrouter_api_key,
                settings.openrouter_api_key_file,
                name="OPENROUTER_API_KEY",
            )
            if key is None:
                raise SettingsError(
                    "provider openrouter needs a key: set OPENROUTER_API_KEY, or "
                    "OPENROUTER_API_KEY_FILE to a file that holds it"
                )
            check_openrouter(key)
            return ProviderAccess(
                kind="openrouter",
                base_url=_address(chosen.base_url or OPENROUTER_URL),
                model=_needed(model, "provider openrouter needs a model: --model NAME"),
                api_key=key,
            )
        case "custom":
            return ProviderAccess(
                kind="custom",
                base_url=_address(chosen.base_url),
                model=_needed(model, "a custom provider needs a model: --model NAME"),
                api_key=find_key(
                    chosen.api_key, chosen.api_key_file, name="CARDFLOW_PROVIDER__API_KEY"
                ),
            )


def _address(url: str | None) -> str:
    """Credentials in it would be shown wherever the address is."""
    address = _needed(url, "a custom provider needs --base-url URL")
    if "@" in address.partition("//")[2].partition("/")[0]:
        raise SettingsError(
            "the provider's URL holds credentials; take them out and set CARDFLOW_PROVIDER__API_KEY"
        )
    return address


def _needed(value: str | None, message: str) -> str:
    if not value:
        raise SettingsError(message)
    return value


def is_loopback(url: str) -> bool:
    """True when the URL's host is this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
