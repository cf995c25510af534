"""The settings of the exporter."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

from services.kernel.settings import KernelSettings


class ExporterSection(BaseModel):
    """Where finished cards are kept, and which deck files are written by themselves."""

    store_path: Path = Field(
        default=Path("cardflow-data/store/cards.sqlite"), description="the SQLite file of the store"
    )
    deck_dir: Path | None = Field(
        default=None, description="folder for a deck file of each completed batch; none: no files"
    )
    deck_formats: tuple[str, ...] = Field(
        default=("apkg",), description="formats of those files, as in `cardflow export --format`"
    )
    progress_interval_s: float = Field(
        default=0.5, gt=0, description="seconds between two progress events of a batch"
    )


class ExporterSettings(KernelSettings):
    """What the exporter needs beside the kernel."""

    exporter: ExporterSection = ExporterSection()
