"""`cardflow resume`: paused services go on."""

from __future__ import annotations

from typing import Annotated

import typer
from nats.js import JetStreamContext

from services.cli.common import DataOption, JsonOption, NatsOption, nats_url, out, print_json
from services.cli.machine.pauses import services_named
from services.cli.session import reported, with_jetstream
from services.kernel.provisioning.pausing import paused_services, resume
from services.kernel.topology import ServiceName

cli = typer.Typer(add_completion=False)


@cli.command(name="resume")
def resume_command(
    services: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SERVICE...]", help="All that are paused by default.", show_default=False
        ),
    ] = None,
    *,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """End the pause of services; they go on within a second. One that is not paused stays so.

    \b
    cardflow resume                      # whatever is paused
    cardflow resume ingest --json
    """
    with reported():
        url = nats_url(data, nats)
        names = services_named(services or [])

    async def work(js: JetStreamContext) -> list[ServiceName]:
        wanted = names or list(await paused_services(js))
        return [name for name in wanted if await resume(js, name)]

    resumed = with_jetstream(url, work)
    if json:
        print_json({"resumed": resumed})
    elif resumed:
        out.print(f"Resumed: {', '.join(resumed)}", markup=False)
    else:
        out.print("Nothing was paused.")
