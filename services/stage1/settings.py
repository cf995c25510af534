"""The settings of stage 1."""

from __future__ import annotations

from services.kernel.model_settings import ModelSettings, StageSettings


class Stage1Settings(ModelSettings):
    """What stage 1 needs beside the kernel."""

    stage1: StageSettings = StageSettings()
