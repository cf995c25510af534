"""The settings of stage 1."""

from __future__ import annotations

from pydantic import BaseModel, Field

from services.kernel.errors import SettingsError
from services.kernel.model_settings import ModelSettings, StageSettings
from services.kernel.provider_access import resolve_provider

OPINIONS_MAX = 4
"""More would be most of a term's attempts, when none of them answers."""


class SecondOpinionSettings(BaseModel):
    """Whether further models look at each analysis. Each one asked is paid for."""

    models: tuple[str, ...] = Field(
        default=(),
        max_length=OPINIONS_MAX,
        description="further LLMs that analyse each term, as a JSON list; empty: none",
    )
    threshold: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="least agreement on part of speech, pronunciation, hanja and meaning; "
        "below it the cards are marked for review",
    )


class Stage1Settings(ModelSettings):
    """What stage 1 needs beside the kernel."""

    stage1: StageSettings = StageSettings()
    second_opinion: SecondOpinionSettings = SecondOpinionSettings()


def check_stage1(settings: Stage1Settings) -> None:
    """Raises SettingsError for half a provider, and for an opinion that is no second one."""
    model = resolve_provider(settings, settings.stage1).model
    models = settings.second_opinion.models
    if len({model, *models}) <= len(models) or not all(name.strip() for name in models):
        raise SettingsError(
            "CARDFLOW_SECOND_OPINION__MODELS names a model twice, the one that is asked first "
            f"({model}), or none; name others"
        )
