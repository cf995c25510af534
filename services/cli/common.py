"""What the commands share: where the pipeline is, how results and errors are shown."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console

from services.kernel.errors import SettingsError

T = TypeVar("T")

DEFAULT_DATA = Path("cardflow-data")
ENDPOINTS = "endpoints.json"
STORE = Path("store") / "cards.sqlite"

FAILED = 1
"""The command ran, and the answer is no: an account that does not balance, a drift, not found."""
UNUSABLE = 2
"""The command could not run: wrong usage, nothing to connect to."""

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder of a running `cardflow up`; its server is used "
        f"(default: ./{DEFAULT_DATA} if it exists).",
        show_default=False,
    ),
]
NatsOption = Annotated[
    str | None,
    typer.Option("--nats", help="URL of a NATS server, instead of --data.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def print_json(value: Any) -> None:
    """One JSON document on one line of standard output."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=str))


def fail(message: str, *, code: int = UNUSABLE) -> NoReturn:
    """Says what is wrong and what to do, and ends the command."""
    err.print(f"[red]cardflow:[/red] {_escaped(message)}")
    raise typer.Exit(code)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def run(command: Coroutine[Any, Any, T]) -> T:
    """Runs a command's coroutine; a wrong setting becomes a message, not a traceback."""
    try:
        return asyncio.run(command)
    except SettingsError as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def nats_url(data: Path | None, url: str | None) -> str:
    """The server to talk to: --nats, --data, the environment, ./cardflow-data, in that order."""
    if url and data:
        raise SettingsError("give either --data or --nats, not both")
    if url:
        return url
    if data is not None:
        return str(read_endpoints(data)["nats_url"])
    from_environment = os.environ.get("CARDFLOW_NATS__URL")
    if from_environment:
        return from_environment
    if (DEFAULT_DATA / ENDPOINTS).is_file():
        return str(read_endpoints(DEFAULT_DATA)["nats_url"])
    raise SettingsError(
        "where is the pipeline? Start one with `cardflow up`, or name it with --data DIR or "
        "--nats URL"
    )


def read_endpoints(data: Path) -> dict[str, Any]:
    """What `cardflow up` wrote about its processes. Raises SettingsError when it never ran."""
    path = data / ENDPOINTS
    try:
        endpoints: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise SettingsError(
            f"{path} does not exist: start `cardflow up --data {data}` first"
        ) from None
    except ValueError as error:
        raise SettingsError(f"{path} is damaged ({error}); start `cardflow up` anew") from error
    return endpoints


def running_endpoints(data: Path | None, nats: str | None) -> dict[str, Any] | None:
    """What the `cardflow up` that is talked to says of itself; None where there is none."""
    folder = data or DEFAULT_DATA
    if not (folder / ENDPOINTS).is_file():
        return None
    endpoints = read_endpoints(folder)
    return endpoints if nats in (None, endpoints.get("nats_url")) else None


def store_path(data: Path | None) -> Path:
    """The exporter's SQLite file of a data folder."""
    configured = os.environ.get("CARDFLOW_EXPORTER__STORE_PATH")
    if data is None and configured:
        return Path(configured)
    return (data or DEFAULT_DATA) / STORE
