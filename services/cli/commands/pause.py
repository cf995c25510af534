"""`cardflow pause`: a service hands out no more work, on all machines at once."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from nats.js import JetStreamContext

from services.cli.common import DataOption, JsonOption, NatsOption, nats_url, out, print_json
from services.cli.machine.pauses import lasting_of, pauses_as_json, services_named
from services.cli.session import reported, with_jetstream
from services.kernel.provisioning.pausing import pause, until_words
from services.kernel.topology import ServiceName

cli = typer.Typer(add_completion=False)


@cli.command(name="pause")
def pause_command(
    services: Annotated[
        list[str], typer.Argument(metavar="SERVICE...", help="ingest, stage1, stage2, exporter.")
    ],
    *,
    lasting: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="TIME",
            help="How long: 90s, 30m, 2h, 1d. (default: until it is resumed)",
            show_default=False,
        ),
    ] = None,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Pause services: they finish what is in hand and begin nothing more, on all replicas.

    Nothing is lost: what arrives waits in the stream. The pause is kept by the server; it
    outlives restarts of the services and of nats-server. Pausing again moves its end.

    \b
    cardflow pause stage1 --for 30m      # no new model calls of stage 1 for half an hour
    cardflow pause ingest                # submissions wait until: cardflow resume ingest
    """
    with reported():
        url = nats_url(data, nats)
        names = services_named(services)
        duration = lasting_of(lasting) if lasting is not None else None

    async def work(js: JetStreamContext) -> dict[ServiceName, datetime]:
        return {name: await pause(js, name, lasting=duration) for name in names}

    paused = with_jetstream(url, work)
    if json:
        print_json({"paused": pauses_as_json(paused)})
        return
    for name, until in paused.items():
        out.print(f"{name} is paused {until_words(until)}.", markup=False)
    out.print(f"Go on with: cardflow resume {' '.join(paused)}", markup=False)
