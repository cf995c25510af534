"""`cardflow demo`: the shipped word list from NATS subject to Anki deck, all processes real."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from services.cli.common import FAILED, STORE, err, out, print_json, run
from services.cli.interrupting import Interrupted, stop_signal, unless
from services.cli.machine.provider_options import (
    BaseUrlOption,
    ModelOption,
    ProviderOption,
    chosen_provider,
    needs_simulator,
)
from services.cli.machine.supervisor import Plan, Supervisor
from services.cli.submitting.batch_status import BatchStatus
from services.cli.submitting.payloads import Payload, read_payloads
from services.cli.submitting.publishing import publish_submission
from services.cli.submitting.waiting import DeadTerms, dead_terms, status_bar, wait_for_batch
from services.exporter.formats import write_deck
from services.exporter.store import Store
from services.kernel.errors import SettingsError
from services.kernel.logs import configure_logs
from services.kernel.stream.reading import connected

BATCH = "demo"
DECK = "Korean::First words"
DECK_FILES = ("deck.apkg", "deck.tsv", "deck.jsonl")
_STATE = "pipeline"
_FINISH_S = 600.0

cli = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Result:
    """What a demo came to."""

    status: BatchStatus
    dead: DeadTerms
    cards: int
    provider: str
    seconds: float
    decks: list[Path]
    state: Path


@cli.command()
def demo(
    *,
    out_dir: Annotated[
        Path, typer.Option("--out", help="Folder for the deck files and the run's state.")
    ] = Path("out/demo"),
    provider: ProviderOption = None,
    base_url: BaseUrlOption = None,
    model: ModelOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Run everything once: nats-server, provider, four services, 170 words, three deck files.

    Offline and free unless another provider is named. Ends what it started and exits 0 when every
    term is finished. Running it again begins anew.
    """
    try:
        result = run(_demo(out_dir, (provider, base_url, model)))
    except Interrupted:
        err.print("interrupted; everything that was started is stopped")
        raise typer.Exit(130) from None
    if json:
        print_json(_as_json(result))
    else:
        _print_summary(result)
    if result.status.finished != result.status.submitted:
        raise typer.Exit(FAILED)


async def _demo(out_dir: Path, provider: tuple[str | None, str | None, str | None]) -> Result:
    access = chosen_provider(*provider)
    state = await asyncio.to_thread(_fresh_state, out_dir)
    configure_logs("demo", level="warning", format="auto")
    simulator = () if needs_simulator(access, provider[1]) else None
    supervisor = Supervisor(Plan(data=state, access=access, simulator=simulator))
    err.print("Starting nats-server, the provider and four services …")
    stop = stop_signal()
    async with supervisor.running(stop):
        begun = time.monotonic()
        status, dead = await unless(stop, _process(supervisor.nats_url))
        seconds = time.monotonic() - begun
        decks, cards = await _write_decks(state / STORE, out_dir)
    return Result(status, dead, cards, supervisor.provider_line(), seconds, decks, state)


def _fresh_state(out_dir: Path) -> Path:
    """An empty folder for the pipeline; what an earlier demo left there is removed."""
    state = out_dir.absolute() / _STATE
    if state.exists():
        if not (state / "up.lock").is_file():
            raise SettingsError(f"{state} is in the way and not ours; give --out another folder")
        shutil.rmtree(state)
    return state


async def _process(nats_url: str) -> tuple[BatchStatus, DeadTerms]:
    payloads = shipped_payloads()
    async with connected(nats_url) as nc:
        js = nc.jetstream(timeout=10)
        err.print(f"Publishing {len(payloads)} terms to terms.submit.{BATCH} …")
        await publish_submission(js, BATCH, payloads, deck=DECK, now=datetime.now(UTC))
        with status_bar(BATCH) as show:
            status = await wait_for_batch(js, BATCH, timeout_s=_FINISH_S, on_status=show)
        return status, await dead_terms(js, BATCH)


def shipped_payloads() -> list[Payload]:
    """The shipped word list, as `cardflow submit` would read it."""
    path = files("services.simulator") / "data" / "beginner_terms.csv"
    rows = read_payloads([str(path)], deck=DECK)
    return [row for row in rows if isinstance(row, Payload)]


async def _write_decks(store_path: Path, out_dir: Path) -> tuple[list[Path], int]:
    cards = 0
    decks = [out_dir / name for name in DECK_FILES]
    async with Store.open(store_path, read_only=True) as store:
        for path in decks:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            cards = await write_deck(path.suffix[1:], store.cards_of_batch(BATCH), path)
    return decks, cards


def _as_json(result: Result) -> dict[str, object]:
    return {
        "status": result.status.as_json(),
        "dead_letters": result.dead.as_json(),
        "cards": result.cards,
        "provider": result.provider,
        "seconds": round(result.seconds, 3),
        "decks": [str(path) for path in result.decks],
    }


def _print_summary(result: Result) -> None:
    status = result.status
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("terms in", str(status.submitted))
    table.add_row("finished", f"{status.finished} terms, {result.cards} cards")
    table.add_row("dead letters", _dead_line(result))
    table.add_row("model calls", f"{status.calls}, and {status.cached} answered from the cache")
    table.add_row("cost", f"${status.cost_usd:.4f} ({_money_line(result.provider)})")
    table.add_row("served by", result.provider)
    rate = status.ended / result.seconds if result.seconds else 0.0
    table.add_row("time", f"{result.seconds:.1f} s, {rate:.0f} terms a second")
    for path in result.decks:
        table.add_row("deck file", str(path))
    out.print()
    out.print(table)
    out.print(
        f"""
Into Anki: File → Import → {result.decks[0]}. Importing a newer file updates the notes in place.

Next:
  cardflow up                                  everything on this machine, until Ctrl-C
  cardflow submit words.csv --wait             in another terminal: your own words
  cardflow status · cardflow watch --from-start · cardflow --help
What this run left to look at: {result.state} (streams, store, logs)""",
        markup=False,
    )


def _dead_line(result: Result) -> str:
    counted = result.dead.by_reason.most_common()
    if not counted:
        return "none"
    return ", ".join(f"{count} × {service}: {reason}" for (service, reason), count in counted)


def _money_line(provider: str) -> str:
    simulated = provider.startswith("simulated")
    return "simulated money: nothing was spent" if simulated else "charged by the provider"
