"""What an operator can turn. The only place that reads the environment.

Layers, later ones win: defaults, `.env` in the working folder, environment. A field is set by
`CARDFLOW_<SECTION>__<FIELD>`, for example `CARDFLOW_NATS__URL`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableSettings

from services.kernel.errors import SettingsError

SettingsT = TypeVar("SettingsT", bound="KernelSettings")


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


def secret_of_environment(name: str) -> SecretStr:
    """A secret that a setting names by its variable. Raises SettingsError without one."""
    secret = os.environ.get(name, "").strip()
    if not secret:
        raise SettingsError(f"the environment variable {name} holds no key, but a setting names it")
    return SecretStr(secret)


def secret_of_file(path: Path) -> SecretStr:
    """A secret that a setting names by its file. Raises SettingsError without one."""
    try:
        secret = path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise SettingsError(f"the key file {path} can't be read: {error}") from error
    if not secret:
        raise SettingsError(f"the key file {path} is empty")
    return SecretStr(secret)
