"""`cardflow up`: everything on one machine, in the foreground."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from services.cli.common import DEFAULT_DATA, ENDPOINTS, out, run
from services.cli.interrupting import Interrupted, stop_signal
from services.cli.machine.provider_options import (
    BaseUrlOption,
    ModelOption,
    ProviderOption,
    chosen_provider,
    needs_simulator,
)
from services.cli.machine.supervisor import Plan, Supervisor
from services.kernel.errors import SettingsError
from services.kernel.logs import configure_logs
from services.kernel.provider_access import is_loopback
from services.kernel.settings import KernelSettings, load_settings
from services.kernel.topology import SERVICES, ServiceName

cli = typer.Typer(add_completion=False)


@cli.command()
def up(
    *,
    data: Annotated[Path, typer.Option("--data", help="Folder for all state.")] = DEFAULT_DATA,
    provider: ProviderOption = None,
    base_url: BaseUrlOption = None,
    model: ModelOption = None,
    replicas: Annotated[
        str, typer.Option(help="Processes a service, for example stage1=2,stage2=2.")
    ] = "",
    port_base: Annotated[
        int | None,
        typer.Option(
            help="First of the ports to use, one after the other; free ones by default.",
            min=1024,
            max=65000,
            show_default=False,
        ),
    ] = None,
    nats: Annotated[
        str | None,
        typer.Option("--nats", help="Use this NATS server, none embedded.", show_default=False),
    ] = None,
    latency_ms: Annotated[float, typer.Option(help="Simulator: mean time to answer.")] = 50,
    jitter_ms: Annotated[float, typer.Option(help="Simulator: most it varies by.")] = 20,
    rpm: Annotated[
        int, typer.Option(help="Simulator: requests a minute of each model; 0: none.")
    ] = 0,
    error_rate: Annotated[float, typer.Option(help="Simulator: share of calls that fail.")] = 0,
    malformed_rate: Annotated[float, typer.Option(help="Simulator: share of bad replies.")] = 0,
    disagreement_rate: Annotated[
        float, typer.Option(help="Simulator: share of terms that other models see otherwise.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Simulator: the same seed gives the same run.")] = 0,
) -> None:
    """Run nats-server, the provider's simulator and all services until SIGINT or SIGTERM.

    Prints `ready` when terms can be submitted, and writes DIR/endpoints.json. A process that dies
    is started again, a stream or consumer that was deleted or altered is repaired, and nats-server
    is started again once its disk, which was full, has room. After a stop or a kill the next `up`
    on the same folder goes on where it was.

    \b
    cardflow up &
    cardflow submit words.csv --wait
    """
    simulator = {
        "--latency-ms": latency_ms,
        "--jitter-ms": jitter_ms,
        "--rpm": rpm,
        "--error-rate": error_rate,
        "--malformed-rate": malformed_rate,
        "--disagreement-rate": disagreement_rate,
        "--seed": seed,
    }
    run(_up(data, (provider, base_url, model), replicas, port_base, nats, simulator))


async def _up(
    data: Path,
    provider: tuple[str | None, str | None, str | None],
    replicas: str,
    port_base: int | None,
    nats: str | None,
    simulator: dict[str, float],
) -> None:
    access = chosen_provider(*provider)
    plan = Plan(
        data=data,
        access=access,
        simulator=simulator_flags(simulator) if needs_simulator(access, provider[1]) else None,
        replicas=parse_replicas(replicas),
        port_base=port_base,
        nats_url=nats,
    )
    log = load_settings(KernelSettings).log
    configure_logs("up", level=log.level, format=log.format)
    await serve_until_signal(Supervisor(plan))


async def serve_until_signal(supervisor: Supervisor) -> None:
    """Returns when all is stopped after the first SIGINT or SIGTERM, also one during the start."""
    stop = stop_signal()
    with contextlib.suppress(Interrupted):
        async with supervisor.running(stop):
            _announce(supervisor)
            await stop.wait()
            out.print("stopping: work in hand is finished first")


def _announce(supervisor: Supervisor) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("NATS", supervisor.nats_url)
    table.add_row("provider", supervisor.provider_line())
    for child in supervisor.children:
        if child.role.http_url:
            table.add_row(child.role.label, f"{child.role.http_url}/readyz")
    table.add_row("data", str(supervisor.data / ENDPOINTS))
    out.print(table)
    if supervisor.plan.access.kind != "simulated" and not is_loopback(supervisor.base_url):
        out.print("[yellow]This provider is real: terms that are submitted cost money.[/yellow]")
    # The one line that programs wait for.
    print("ready", flush=True)  # noqa: T201


def simulator_flags(values: dict[str, float]) -> tuple[str, ...]:
    return tuple(part for flag, value in values.items() for part in (flag, str(value)))


def parse_replicas(text: str) -> dict[ServiceName, int]:
    """`stage1=2,stage2=2`. Raises SettingsError."""
    replicas: dict[ServiceName, int] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, count = part.partition("=")
        service = next((s for s in SERVICES if s == name.strip()), None)
        if service is None or not count.strip().isdigit() or not 1 <= int(count) <= 32:
            raise SettingsError(
                f"--replicas {part!r} is not SERVICE=COUNT with a service of "
                f"{', '.join(SERVICES)} and a count of 1-32"
            )
        if service == "exporter" and int(count) > 1:
            raise SettingsError("there can be one exporter only: it owns the store")
        replicas[service] = int(count)
    return replicas
