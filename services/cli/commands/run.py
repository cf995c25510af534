"""`cardflow run SERVICE`: one consumer in the foreground."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer
import uvloop

from services.cli.common import fail
from services.kernel.errors import SettingsError
from services.kernel.topology import SERVICES

cli = typer.Typer(add_completion=False)


@cli.command()
def run(
    service: Annotated[str, typer.Argument(help=f"One of {', '.join(SERVICES)}.")],
) -> None:
    """Run one service until SIGTERM or SIGINT.

    Settings come from the environment (CARDFLOW_…), see `cardflow settings`. On SIGTERM it stops
    fetching, finishes what is in hand within the grace period and exits 0.
    """
    if service not in SERVICES:
        fail(f"there is no service {service!r}; use one of {', '.join(SERVICES)}")
    try:
        module = importlib.import_module(f"services.{service}.app")
        uvloop.run(module.app.run())
    except SettingsError as error:
        fail(str(error))
