"""`cardflow estimate`: what a list will cost, before anything is spent."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from services.cli.common import (
    DataOption,
    JsonOption,
    NatsOption,
    nats_url,
    out,
    print_json,
    run,
    running_endpoints,
)
from services.cli.estimating.showing import rows_line, stages_table, summary_lines
from services.cli.estimating.sources import estimate_submission
from services.cli.session import reported, with_jetstream
from services.cli.submitting.submission import read_submission_files
from services.kernel.errors import SettingsError

cli = typer.Typer(add_completion=False)


@cli.command()
def estimate(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="CSV, TSV, XLSX, JSONL or plain lists; - is standard input."
        ),
    ],
    *,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Tell calls, tokens, cost and time of word lists; nothing is published or spent.

    With a pipeline (--data, --nats, or ./cardflow-data) what is in its cache costs nothing, and
    averages are those of its newest cards; without one typical figures stand in. Prices are from
    CARDFLOW_PRICES, else from the provider's list. "At most" is every call with the longest
    answer; a term whose answer is unfit is asked for again and can cost more than once.

    \b
    cardflow estimate words.csv
    cardflow estimate words.csv --json
    cardflow submit words.csv --max-cost 0.50      # refuses beforehand, and never spends more
    """
    with reported():
        read = read_submission_files(files)
        endpoints = running_endpoints(data, nats)
        url = _url(data, nats)
    if url is None:
        with reported():
            found = run(estimate_submission(read, None, endpoints))
    else:
        found = with_jetstream(url, lambda js: estimate_submission(read, js, endpoints))
    if json:
        print_json(found.as_json())
        return
    out.print(rows_line(found), markup=False)
    out.print(stages_table(found))
    for line in summary_lines(found):
        out.print(line, markup=False)


def _url(data: Any, nats: str | None) -> str | None:
    """None when no pipeline was named and none is found; a named one must be there."""
    try:
        return nats_url(data, nats)
    except SettingsError:
        if data is not None or nats is not None:
            raise
        return None
