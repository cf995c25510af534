"""The settings of stage 2."""

from __future__ import annotations

from services.kernel.model_settings import ModelSettings, StageSettings


class Stage2Settings(ModelSettings):
    """What stage 2 needs beside the kernel."""

    stage2: StageSettings = StageSettings()
