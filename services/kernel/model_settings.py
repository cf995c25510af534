"""What an operator can turn about the model: who serves, which model, within which bounds."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr

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


class StageSettings(BaseModel):
    """One stage's share of the model; every replica has its own.

    A completion takes a slot of `concurrency` and one permit of `requests_per_minute`; an answer
    from the cache takes neither.
    """

    concurrency: int = Field(default=16, ge=1, le=1000, description="terms worked on at once")
    requests_per_minute: int = Field(
        default=0, ge=0, description="calls a minute of one replica; 0: no limit"
    )
    max_tokens: int = Field(default=2048, ge=64, description="bound of one completion, in tokens")
    max_tokens_cap: int = Field(
        default=8192,
        ge=64,
        description="a reply that max_tokens cut off is asked for once more with twice the "
        "room, at most so many tokens; not above max_tokens: not asked for again",
    )
    temperature: float = Field(default=0.3, ge=0, le=2, description="randomness of the model")


class ModelSettings(KernelSettings):
    """What the two services need that ask a model."""

    provider: ProviderSettings = ProviderSettings()
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


def resolve_provider(settings: ModelSettings) -> ProviderAccess:
    """The provider that was chosen; never guessed. Raises SettingsError for a half choice."""
    chosen = settings.provider
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
                model=chosen.model or SIMULATED_MODEL,
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
                model=_needed(chosen.model, "provider openrouter needs a model: --model NAME"),
                api_key=key,
            )
        case "custom":
            return ProviderAccess(
                kind="custom",
                base_url=_address(chosen.base_url),
                model=_needed(chosen.model, "a custom provider needs a model: --model NAME"),
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
