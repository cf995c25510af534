"""Choosing the provider on the command line; shared by `up` and `demo`."""

from __future__ import annotations

from typing import Annotated, get_args

import typer

from services.kernel.errors import SettingsError
from services.kernel.model_settings import ModelSettings, ProviderKind
from services.kernel.provider_access import SIMULATOR_URL, ProviderAccess, resolve_provider
from services.kernel.settings import load_settings

ProviderOption = Annotated[
    str | None,
    typer.Option(
        "--provider",
        help="simulated (offline, the default), or openrouter (needs OPENROUTER_API_KEY and "
        "--model; spends money).",
        show_default=False,
    ),
]
BaseUrlOption = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        help="Root URL of any chat-completions server, with --model.",
        show_default=False,
    ),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="The LLM to ask.", show_default=False)
]


def needs_simulator(access: ProviderAccess, base_url: str | None) -> bool:
    """True when the simulated provider is wanted and nobody named one that runs already."""
    return access.kind == "simulated" and base_url is None and access.base_url == SIMULATOR_URL


def chosen_provider(
    provider: str | None, base_url: str | None, model: str | None
) -> ProviderAccess:
    """Flags over settings; never guessed. Raises SettingsError for half a choice."""
    settings = load_settings(ModelSettings)
    kind = provider or ("custom" if base_url else settings.provider.kind)
    if kind not in get_args(ProviderKind):
        raise SettingsError(
            f"there is no provider {kind!r}; use one of {', '.join(get_args(ProviderKind))}"
        )
    chosen = settings.provider.model_copy(
        update={
            "kind": kind,
            "base_url": base_url or settings.provider.base_url,
            "model": model or settings.provider.model,
        }
    )
    return resolve_provider(settings.model_copy(update={"provider": chosen}))
