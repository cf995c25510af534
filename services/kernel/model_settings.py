"""What an operator can turn about the model: who serves, which model, within which bounds."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr

from services.kernel.errors import SettingsError
from services.kernel.settings import KernelSettings, secret_of_environment, secret_of_file

ProviderKind = Literal["simulated", "openrouter", "custom"]

OPENROUTER_URL = "https://openrouter.ai/api/v1"
SIMULATOR_URL = "http://127.0.0.1:8790/api/v1"
SIMULATED_MODEL = "simulated/teacher-1"


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
    temperature: float = Field(default=0.3, ge=0, le=2, description="randomness of the model")


class ModelSettings(KernelSettings):
    """What the two services need that ask a model."""

    provider: ProviderSettings = ProviderSettings()
    openrouter_api_key: Annotated[
        SecretStr | None,
        Field(validation_alias="OPENROUTER_API_KEY", description="key of openrouter.ai"),
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
            key = settings.openrouter_api_key
            if key is None or not key.get_secret_value().strip():
                raise SettingsError("provider openrouter needs a key: set OPENROUTER_API_KEY")
            return ProviderAccess(
                kind="openrouter",
                base_url=chosen.base_url or OPENROUTER_URL,
                model=_needed(model, "provider openrouter needs a model: --model NAME"),
                api_key=key,
            )
        case "custom":
            return ProviderAccess(
                kind="custom",
                base_url=_needed(chosen.base_url, "a custom provider needs --base-url URL"),
                model=_needed(model, "a custom provider needs a model: --model NAME"),
                api_key=chosen.api_key,
            )


def resolve_fallbacks(
    settings: ModelSettings, first: ProviderAccess
) -> list[tuple[ProviderAccess, float]]:
    """Whom to ask in place of the first, in order, each with its requests a minute (0: none set).

    Raises SettingsError for a key that is not where it is said to be.
    """
    chosen = settings.provider
    models = [(first.model_copy(update={"model": model}), 0.0) for model in chosen.fallback_models]
    others = [
        (
            ProviderAccess(
                kind=other.kind,
                base_url=other.base_url,
                model=other.model,
                api_key=_key_of(other),
            ),
            other.requests_per_minute,
        )
        for other in chosen.fallbacks
    ]
    routes = [route for route in (*models, *others) if not _is_same(route[0], first)]
    for at, (access, _limit) in enumerate(routes):
        if any(_is_same(access, other) for other, _ in routes[:at]):
            raise SettingsError(f"the fallback {access.model} at {access.base_url} is named twice")
    return routes


def _is_same(one: ProviderAccess, other: ProviderAccess) -> bool:
    return (one.base_url, one.model) == (other.base_url, other.model)


def _key_of(fallback: FallbackSettings) -> SecretStr | None:
    if fallback.api_key_env and fallback.api_key_file:
        raise SettingsError(
            f"the fallback {fallback.base_url} names api_key_env and api_key_file; name one"
        )
    if fallback.api_key_env:
        return secret_of_environment(fallback.api_key_env)
    if fallback.api_key_file:
        return secret_of_file(fallback.api_key_file)
    return None


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
