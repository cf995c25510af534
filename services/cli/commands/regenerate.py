"""`cardflow regenerate`: a new revision of a batch, made from its checkpoint."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, cast

import typer
from nats.js import JetStreamContext

from services.cli.bar import counting_bar
from services.cli.common import (
    FAILED,
    DataOption,
    JsonOption,
    NatsOption,
    err,
    fail,
    nats_url,
    print_json,
)
from services.cli.revisions.checkpoints import Stage
from services.cli.revisions.planning import CannotRegenerate, Plan, Wanted, plan_revision
from services.cli.revisions.report import Made, show_made, show_problems
from services.cli.session import reported, with_jetstream
from services.cli.submitting.publishing import publish_submission
from services.cli.submitting.waiting import dead_terms, status_bar, wait_for_batch
from services.kernel.contracts.term import MODEL_MAX_CHARACTERS

cli = typer.Typer(add_completion=False)


StageOption = Annotated[
    int | None,
    typer.Option(
        help="The first stage that asks a model again: 1 analyses anew and writes new cards, "
        "2 writes new cards for the analyses that there are. (default: 2)",
        min=1,
        max=2,
        show_default=False,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help="Ask this model, from that stage on. (default: that of the settings)",
        show_default=False,
    ),
]
RevisionOption = Annotated[
    int | None,
    typer.Option(
        help="Complete the revision with this number, which was cut off while it was "
        "published. (default: the next number)",
        min=2,
        show_default=False,
    ),
]


@cli.command()
def regenerate(
    *,
    batch: Annotated[str, typer.Option(help="The batch, or any revision of it.")],
    stage: StageOption = None,
    model: ModelOption = None,
    revision: RevisionOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until every term has ended.")] = False,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Make the cards of a batch anew, as a revision: with a new prompt, or another model.

    The revision of `monday` is the batch `monday-r2`, with a status, a cost and dead letters of
    its own. It has the terms that the streams hold of the batch, each as its newest revision has
    it. Decks take the newest revision, and Anki updates the notes in place. The stage that is
    regenerated asks anew, whatever the cache holds. Exit 1: there is nothing to regenerate, or
    not all terms were published.

    \b
    cardflow regenerate --batch monday --wait
    cardflow regenerate --batch monday --stage 1 --model VENDOR/MODEL
    """
    _check_model(model)
    wanted = Wanted(batch, cast("Stage | None", stage), model, revision)
    with reported():
        url = nats_url(data, nats)
    try:
        plan = with_jetstream(url, partial(_plan, wanted=wanted))
    except CannotRegenerate as error:
        fail(str(error), code=FAILED)
    if not plan.payloads and not plan.arrived:
        show_problems("can't be submitted again", plan.problems)
        fail("no term can be regenerated, so no batch was opened", code=FAILED)
    if plan.payloads and not yes and sys.stdin.isatty():
        typer.confirm(question(plan), abort=True, err=True)
    made = with_jetstream(url, partial(_make, plan=plan, wait=wait))
    if json:
        print_json(made.as_json())
    else:
        show_made(made)
    if not made.is_whole:
        raise typer.Exit(FAILED)


def question(plan: Plan) -> str:
    """What is asked before money is spent."""
    revision = plan.revision
    asked = revision.model or "the model of the settings"
    return (
        f"Make revision {revision.number} of {revision.revises} from stage {revision.stage}: "
        f"{len(plan.payloads):,} terms, up to {plan.most_calls:,} calls to {asked}?"
    )


def _check_model(model: str | None) -> None:
    if model is None:
        return
    if not (model.isprintable() and model.strip() and len(model) <= MODEL_MAX_CHARACTERS):
        fail(f"--model is no name of 1-{MODEL_MAX_CHARACTERS} printable characters: {model[:80]!r}")


async def _plan(js: JetStreamContext, *, wanted: Wanted) -> Plan:
    with counting_bar("reading terms", None) as on_read:
        return await plan_revision(js, wanted, on_read=on_read)


async def _make(js: JetStreamContext, *, plan: Plan, wait: bool) -> Made:
    # Named before anything is published: whoever is cut off knows what to complete.
    err.print(
        f"Revision {plan.revision.number} of {plan.revision.revises} is the batch {plan.batch}.",
        markup=False,
    )
    with counting_bar("publishing", len(plan.payloads)) as on_published:
        publication = await publish_submission(
            js,
            plan.batch,
            plan.payloads,
            deck=None,
            now=datetime.now(UTC),
            on_published=on_published,
            before=plan.arrived,
        )
    if not wait or publication.broken_off:
        return Made(plan, publication)
    with status_bar(plan.batch) as on_status:
        status = await wait_for_batch(js, plan.batch, on_status=on_status)
    return Made(plan, publication, status, await dead_terms(js, plan.batch))
