"""`cardflow simulate`: the offline provider by itself."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.common import err

cli = typer.Typer(add_completion=False)


@cli.command()
def simulate(
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8790,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    latency_ms: Annotated[float, typer.Option(help="Mean time to answer, ms.", min=0)] = 50,
    jitter_ms: Annotated[float, typer.Option(help="Most it varies by, ms.", min=0)] = 20,
    rpm: Annotated[
        int, typer.Option(help="Requests a minute of each model; 0: no limit.", min=0)
    ] = 0,
    rps: Annotated[
        int, typer.Option(help="Requests a second of each model; 0: no limit.", min=0)
    ] = 0,
    error_rate: Annotated[float, typer.Option(help="Share of calls that fail.", min=0, max=1)] = 0,
    malformed_rate: Annotated[
        float, typer.Option(help="Share of replies that are malformed.", min=0, max=1)
    ] = 0,
    disagreement_rate: Annotated[
        float,
        typer.Option(
            help="Share of terms that models of other names analyse otherwise.", min=0, max=1
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same run.")] = 0,
) -> None:
    """Serve OpenRouter's protocol at http://HOST:PORT/api/v1, offline, until stopped.

    Its analyses of the shipped word list are true; those of other terms say that they are
    simulated. GET /stats tells what it was asked and what it charged.
    """
    from services.simulator.app import SimulatorSettings, serve

    settings = SimulatorSettings(
        latency_ms=latency_ms,
        jitter_ms=jitter_ms,
        rpm=rpm,
        rps=rps,
        error_rate=error_rate,
        malformed_rate=malformed_rate,
        disagreement_rate=disagreement_rate,
        seed=seed,
    )
    err.print(f"Simulated provider at http://{host}:{port}/api/v1, statistics at /stats")
    serve(settings, host=host, port=port)
