"""What an operator can turn. The only place that reads the environment.

Layers, later ones win: defaults, `.env` in the working folder, environment. A field is set by
`CARDFLOW_<SECTION>__<FIELD>`, for example `CARDFLOW_NATS__URL`.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableSettings

from services.kernel.errors import SettingsError

SettingsT = TypeVar("SettingsT", bound="KernelSettings")

ProviderKind = Literal["simulated", "openrouter", "custom"]

OPENROUTER_URL = "https://openrouter.ai/api/v1"
SIMULATOR_URL = "http://127.0.0.1:8790/api/v1"
SIMULATED_MODEL = "simulated/teacher-1"


class NatsSettings(BaseModel):
    """The connection, and what provisioning gives the streams."""

    url: str = Field(default="nats://127.0.0.1:4222", description="server, or several with commas")
    replicas: int = Field(
        default=1, ge=1, le=5, description="copies of each stream; 3 in a cluster"
    )
    max_age_days: float = Field(
        default=30, gt=0, description="days after which a stream forgets a message"
    )
    stream_max_mib: int = Field(
        default=1024, ge=1, description="MiB a stream may hold; at the bound publishers are refused"
    )
    ack_wait_s: float = Field(
        default=20,
        ge=1,
        description="seconds without a sign of life after which the server hands a message to "
        "another replica; a running replica gives one every third of it",
    )
    publish_timeout_s: float = Field(
        default=10, gt=0, description="seconds to wait for a PubAck; an election takes 4-8"
    )
    watch_interval_s: float = Field(
        default=5,
        ge=1,
        description="seconds between two looks at the streams and consumers: a service reports "
        "what is missing or altered of its own, `cardflow up` repairs all",
    )


class HttpSettings(BaseModel):
    """The probes of one process: /livez, /readyz, /metrics."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=0, ge=0, le=65535, description="port to listen on; 0: no probes")


class LogSettings(BaseModel):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least level that is logged"
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: console on a terminal, JSON elsewhere"
    )


class RetrySettings(BaseModel):
    """When a failed term is tried again; see `kernel.stream.retry`."""

    max_attempts: int = Field(default=5, ge=1, le=20, description="attempts before the dead letter")
    base_s: float = Field(default=1, gt=0, description="bound of the first delay, in seconds")
    cap_s: float = Field(default=60, gt=0, description="bound of every delay, in seconds")


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
    temperature: float = Field(default=0.3, ge=0, le=2, description="randomness of the model")


class KernelSettings(BaseSettings):
    """What every service needs; each service adds its own section."""

    model_config = SettingsConfigDict(
        env_prefix="CARDFLOW_",
        env_nested_delimiter="__",
        env_file=".env",
        extra="ignore",
        populate_by_name=True,
    )

    nats: NatsSettings = NatsSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    retry: RetrySettings = RetrySettings()
    grace_s: float = Field(
        default=25, gt=0, description="seconds that work in hand may take to finish on SIGTERM"
    )


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
            key = settings.openrouter_api_key
            if key is None or not key.get_secret_value().strip():
                raise SettingsError("provider openrouter needs a key: set OPENROUTER_API_KEY")
            return ProviderAccess(
                kind="openrouter",
                base_url=chosen.base_url or OPENROUTER_URL,
                model=_needed(chosen.model, "provider openrouter needs a model: --model NAME"),
                api_key=key,
            )
        case "custom":
            return ProviderAccess(
                kind="custom",
                base_url=_needed(chosen.base_url, "a custom provider needs --base-url URL"),
                model=_needed(chosen.model, "a custom provider needs a model: --model NAME"),
                api_key=chosen.api_key,
            )


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


def load_settings(kind: type[SettingsT]) -> SettingsT:
    """The settings from all layers. Raises SettingsError that names each field at fault."""
    try:
        return kind()
    except ValidationError as error:
        faults = "; ".join(
            f"CARDFLOW_{'__'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        # Without its cause, whose text shows the values, secrets too.
        raise SettingsError(f"settings can't be used: {faults}") from None
    except UnreadableSettings as error:
        raise SettingsError(
            f"settings can't be used: {error}; sections and lists are written as JSON"
        ) from None
