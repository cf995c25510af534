"""`cardflow settings`: every setting, its live value and where it comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final, Literal, get_args, get_origin

import typer
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource
from rich.table import Table
from rich.text import Text

from services.cli.common import JsonOption, fail, out, print_json
from services.exporter.settings import ExporterSettings
from services.kernel.errors import SettingsError
from services.kernel.settings import KernelSettings, load_settings
from services.stage1.settings import Stage1Settings
from services.stage2.settings import Stage2Settings

Source = Literal["default", ".env", "environment"]
Path = tuple[str, ...]
"""Where a field stands: its section and its name."""

SETTINGS: Final[Mapping[str, type[KernelSettings]]] = {
    "all": KernelSettings,
    "stage1": Stage1Settings,
    "stage2": Stage2Settings,
    "exporter": ExporterSettings,
}
"""The settings of each service; what all services have comes first."""

_PREFIX: Final = "CARDFLOW_"
_CREDENTIALS: Final = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_PIPE: Final = r"\|"
"""How a cell of a Markdown table writes the sign that ends it."""
_BOUNDS: Final = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}

_INTRODUCTION: Final = """\
# Settings

Every setting of every service. Later layers win: defaults, the file `.env` in the working folder,
the environment. `cardflow settings` shows the live values and where each comes from. A value that
can't be used ends a command or a service with exit code 2 before any work.

| Setting | Read by | Default | Allowed | Meaning |
|---|---|---|---|---|"""

cli = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Setting:
    """One field of one or more services."""

    path: Path
    field: FieldInfo
    services: tuple[str, ...]

    @property
    def name(self) -> str:
        """The environment variable."""
        alias = self.field.validation_alias
        return alias if isinstance(alias, str) else _PREFIX + "__".join(self.path).upper()

    @property
    def is_secret(self) -> bool:
        return SecretStr in (self.field.annotation, *get_args(self.field.annotation))

    @property
    def default(self) -> Any:
        return self.plain(self.field.get_default(call_default_factory=True))

    @property
    def allowed(self) -> str:
        """Bounds or choices, as far as the type names them."""
        annotation = self.field.annotation
        if get_origin(annotation) is Literal:
            return ", ".join(map(str, get_args(annotation)))
        bounds = [
            f"{sign} {getattr(bound, name)}"
            for bound in self.field.metadata
            for name, sign in _BOUNDS.items()
            if hasattr(bound, name)
        ]
        return ", ".join(bounds)

    def plain(self, value: Any) -> Any:
        """The value for JSON; of a secret only whether there is one."""
        if self.is_secret:
            has_one = isinstance(value, SecretStr) and value.get_secret_value().strip()
            return "set" if has_one else "not set"
        return _plain(value)


def _plain(value: Any) -> Any:
    """For JSON, and without credentials in addresses."""
    if isinstance(value, BaseModel):
        return {name: _plain(part) for name, part in value}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, PurePath):
        return value.as_posix()
    return _CREDENTIALS.sub("***", value) if isinstance(value, str) else value


def every_setting() -> list[Setting]:
    """All settings of all services, each once, in the order of their sections."""
    settings: dict[Path, Setting] = {}
    for service, kind in SETTINGS.items():
        for path, field in _fields(kind):
            known = settings.get(path)
            if known is None:
                settings[path] = Setting(path, field, (service,))
            elif known.services != ("all",):
                settings[path] = Setting(path, field, (*known.services, service))
    return list(settings.values())


def _fields(kind: type[BaseModel], path: Path = ()) -> Iterator[tuple[Path, FieldInfo]]:
    for name, field in kind.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from _fields(section, (*path, name))
        else:
            yield (*path, name), field


@cli.command()
def settings(*, json: JsonOption = False) -> None:
    """Every setting as a service started here would find it, and where its value comes from.

    Later layers win: defaults, the file .env in this folder, the environment. `cardflow up` sets
    NATS, ports, provider and store of its services by itself. Secrets are never shown.

    \b
    CARDFLOW_STAGE1__CONCURRENCY=32 cardflow settings
    """
    try:
        rows = live_settings()
    except SettingsError as error:
        fail(str(error))
    if json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    for column in ("value", "from", "meaning"):
        table.add_column(column, overflow="fold")
    for row in rows:
        style = "" if row["source"] == "default" else "bold"
        cells = (row["name"], _text(row["value"]), row["source"], row["description"])
        table.add_row(*(Text(cell, style) for cell in cells))
    out.print(table)


def live_settings() -> list[dict[str, Any]]:
    """The values of all layers together. Raises SettingsError for one that can't be used."""
    loaded = {service: load_settings(kind) for service, kind in SETTINGS.items()}
    layers = {service: _layers(kind) for service, kind in SETTINGS.items()}
    return [
        {
            "name": setting.name,
            "value": setting.plain(_value(loaded[setting.services[0]], setting.path)),
            "default": setting.default,
            "source": _source(layers[setting.services[0]], setting),
            "description": setting.field.description,
            "services": list(setting.services),
        }
        for setting in every_setting()
    ]


def _value(settings_: Any, path: Path) -> Any:
    for name in path:
        settings_ = getattr(settings_, name)
    return settings_


def _layers(kind: type[KernelSettings]) -> dict[Source, Mapping[str, Any]]:
    """What each layer says, the winning one first. Only keys are looked at."""
    return {"environment": EnvSettingsSource(kind)(), ".env": DotEnvSettingsSource(kind)()}


def _source(layers: Mapping[Source, Mapping[str, Any]], setting: Setting) -> Source:
    for source, said in layers.items():
        if _says(said, setting.path) or setting.name in said:
            return source
    return "default"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _says(said: Any, path: Path) -> bool:
    for name in path:
        if not isinstance(said, Mapping) or name not in said:
            return False
        said = said[name]
    return True


def settings_page() -> str:
    """The reference page `docs/reference/settings.md`."""
    lines = [_INTRODUCTION]
    for setting in every_setting():
        cells = (
            f"`{setting.name}`",
            ", ".join(setting.services),
            f"`{_text(setting.default)}`",
            setting.allowed,
            setting.field.description or "",
        )
        lines.append(f"| {' | '.join(cell.replace('|', _PIPE) for cell in cells)} |")
    return "\n".join(lines) + "\n"
