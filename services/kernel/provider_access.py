"""Who serves, as resolved from the settings: where to call, which model, with which key."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from services.kernel.api_keys import check_openrouter, find_key
from services.kernel.errors import SettingsError
from services.kernel.model_settings import (
    FallbackSettings,
    ModelSettings,
    ProviderKind,
    StageSettings,
)
from services.kernel.settings import secret_of_environment, secret_of_file

OPENROUTER_URL = "https://openrouter.ai/api/v1"
SIMULATOR_URL = "http://127.0.0.1:8790/api/v1"
SIMULATED_MODEL = "simulated/teacher-1"


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
