"""`cardflow audit`: every term and every call accounted for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from nats.js import JetStreamContext

from services.cli.accounts.account import Account, BatchAccount, as_json, show
from services.cli.accounts.accounting import STAGES, Attempts, batch_problems, fingerprint_problems
from services.cli.accounts.billing import Tally, tally
from services.cli.accounts.evidence import read_attempts, read_batches
from services.cli.accounts.provider_books import compare_while, simulator_url
from services.cli.cache.purging import read_purges
from services.cli.common import (
    DEFAULT_DATA,
    ENDPOINTS,
    FAILED,
    DataOption,
    JsonOption,
    NatsOption,
    fail,
    nats_url,
    print_json,
    read_endpoints,
)
from services.cli.session import reported, with_jetstream
from services.kernel import topology
from services.kernel.errors import SettingsError

cli = typer.Typer(add_completion=False)


@cli.command()
def audit(
    batch: Annotated[str | None, typer.Argument(help="One batch; all, if none is named.")] = None,
    *,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Account for every term and every call: exit 0 when it balances, 1 with the ids that don't.

    By id, not by count: each submission is accepted or refused, each accepted term finished, dead,
    cancelled or in flight; no completion was paid twice; what cards say they cost is what was
    recorded, and what the simulator saw and charged. May be run while work goes on.

    \b
    cardflow audit
    cardflow audit monday --json
    """
    with reported():
        if batch is not None and not topology.is_batch_name(batch):
            raise SettingsError(f"{batch!r} is no batch name; see `cardflow status`")
        url = nats_url(data, nats)
        simulator = simulator_url(_endpoints(data, url))
    account = with_jetstream(url, lambda js: account_for(js, batch, simulator))
    if batch is not None and not account.batches:
        fail(f"no stream knows a batch {batch!r}; see `cardflow status`", code=FAILED)
    if json:
        print_json(as_json(account))
    else:
        show(account)
    if not account.balanced:
        raise typer.Exit(FAILED)


def _endpoints(data: Path | None, url: str) -> dict[str, Any] | None:
    """What `cardflow up` says of itself, when it is the one that is looked at."""
    folder = data or DEFAULT_DATA
    endpoints = read_endpoints(folder) if (folder / ENDPOINTS).is_file() else {}
    return endpoints if endpoints.get("nats_url") == url else None


async def account_for(
    js: JetStreamContext, batch: str | None, simulator: str | None = None
) -> Account:
    """The account of one batch, or of all. What calls cost is read after what cards say of it."""
    records = await read_batches(js, batch)
    provider = None
    if simulator is None:
        attempts = await read_attempts(js)
    else:
        attempts, provider = await compare_while(
            simulator, lambda: read_attempts(js), lambda found: _bill(found, None)
        )
    purges = await read_purges(js)
    return Account(
        batches=tuple(
            BatchAccount(r, _bill(attempts, r.batch), tuple(batch_problems(r, attempts)))
            for r in records
        ),
        bill=_bill(attempts, batch),
        provider=provider,
        problems=(
            *fingerprint_problems(attempts, purges),
            *(provider.problems if provider else ()),
        ),
    )


def _bill(attempts: Attempts, batch: str | None) -> Tally:
    """What the stages' calls came to, for one batch or all."""
    return tally(
        history
        for key, history in attempts.items()
        if key.service in STAGES and batch in (None, key.batch)
    )
