"""`cardflow provision`: the streams, consumers and buckets as the topology says."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.common import (
    FAILED,
    DataOption,
    JsonOption,
    NatsOption,
    nats_url,
    out,
    print_json,
    run,
)
from services.kernel.provisioning.drift import Drift
from services.kernel.provisioning.provision import provision
from services.kernel.settings import KernelSettings, load_settings
from services.kernel.stream.reading import connected

cli = typer.Typer(add_completion=False)


@cli.command(name="provision")
def provision_command(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 when something differs.")
    ] = False,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Create what is missing and put back what was altered. Repeating it changes nothing.

    A lost stream that another one determines is filled again from that one: its terms are
    delivered again, and answered from the cache. What can't be had back is said. Exit 1: with
    --check, something differs; without it, the server refuses a change.

    \b
    cardflow provision --check --json
    cardflow provision --nats nats://127.0.0.1:4222
    """
    drifts = run(_provision(check, data, nats))
    if json:
        print_json({"changed": not check, "drift": [_as_json(drift) for drift in drifts]})
    else:
        for drift in drifts:
            out.print(str(drift), markup=False)
        if not drifts:
            out.print("Everything is as the topology says.")
    if any(not drift.changed for drift in drifts):
        raise typer.Exit(FAILED)


async def _provision(check: bool, data: object, nats: str | None) -> list[Drift]:
    async with connected(nats_url(data, nats)) as nc:  # type: ignore[arg-type]
        settings = load_settings(KernelSettings).nats
        return await provision(nc.jetstream(timeout=10), settings, check_only=check)


def _as_json(drift: Drift) -> dict[str, object]:
    return {
        "kind": drift.kind,
        "name": drift.name,
        "setting": drift.setting,
        "wanted": drift.wanted,
        "found": drift.found,
        "changed": drift.changed,
        "note": drift.note,
    }
