"""`cardflow regenerate` on a real server: what it publishes, from where, and after a cut-off."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest
import running_pipeline as running
from click.testing import Result
from nats.js import JetStreamContext
from pipeline_by_hand import (
    NOON,
    cardflow,
    cards_finished,
    finish,
    ingest,
    open_batch,
    opened,
    report,
    submissions,
)

from services.cli.commands.regenerate import question
from services.cli.revisions.planning import Wanted, plan_revision
from services.ingest.handler import read_submission
from services.kernel import topology
from services.kernel.contracts.analysis import TermAnalyzed
from services.kernel.contracts.base import Batch
from services.kernel.contracts.batch import BatchCancelled
from services.kernel.contracts.identity import term_id
from services.kernel.contracts.term import Revision, TermAccepted


def accepted(batch: str, term: str, **values: Any) -> TermAccepted:
    """The event of an accepted term; a batch that ends in -r2 or so is that revision."""
    root, _, number = batch.partition("-r")
    revision = {"revises": root, "number": number, "source": root, "stage": 2} if number else None
    defaults = {
        "batch": batch,
        "term_id": term_id(term, values.get("homonym")),
        "term": term,
        "position": 1,
        "deck": root,
        "sequence": 1,
        "submitted_at": NOON,
        "revision": revision,
    }
    return TermAccepted.model_validate({**defaults, **values})


async def accept(js: JetStreamContext, *events: TermAccepted, analyzed: bool = True) -> None:
    """Does ingest's work and, with `analyzed`, that of stage 1; the batches are open."""
    for event in events:
        await open_batch(js, event.batch, 0)
        await js.publish(topology.accepted_subject(event.batch, event.term_id), event.to_bytes())
        if analyzed:
            like = cards_finished(event.batch, event.term)
            analysis = TermAnalyzed(accepted=event, analysis=like.analysis, stage1=like.stage1)
            subject = topology.analyzed_subject(event.batch, event.term_id)
            await js.publish(subject, analysis.to_bytes())


async def submitted(js: JetStreamContext) -> dict[str, dict[str, Any]]:
    """What stands on SUBMISSIONS, by term."""
    return {(f := json.loads(m.data or b""))["term"]: f for m in await submissions(js)}


async def published(js: JetStreamContext) -> int:
    return (await js.stream_info(topology.SUBMISSIONS.name)).state.messages


class Command:
    """`cardflow regenerate` on one server."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __call__(self, *arguments: str) -> Result:
        return await cardflow("regenerate", *arguments, "--nats", self._url)

    async def json(self, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
        result = await self(*arguments, "--json")
        assert result.exit_code == exit_code, result.output
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer

    async def refused(self, *arguments: str, exit_code: int = 1) -> str:
        result = await self(*arguments)
        assert result.exit_code == exit_code, result.output
        return result.stderr


@pytest.fixture
def regenerate(nats_server: str, js: JetStreamContext) -> Command:
    assert js
    return Command(nats_server)


async def test_each_analysed_term_is_submitted_to_the_next_revision_with_all_that_it_had(
    js: JetStreamContext, regenerate: Command
) -> None:
    book = accepted(
        "monday", "책", position=3, type="noun", deck="My deck", hint="to read", priority="urgent"
    )
    await accept(js, book, accepted("monday", "물", position=1))
    await accept(js, accepted("monday", "눈"), analyzed=False)
    answer = await regenerate.json("--batch", "monday")

    assert {m.subject for m in await submissions(js)} == {"terms.submit.monday-r2"}
    said = await submitted(js)
    assert said.keys() == {"책", "물"}
    assert said["책"] == {
        "term": "책",
        "position": 3,
        "type": "noun",
        "deck": "My deck",
        "priority": "urgent",
        "hint": "to read",
        "revision": {
            "revises": "monday",
            "number": 2,
            "source": "monday",
            "stage": 2,
            "model": None,
        },
    }
    assert (await opened(js, "monday-r2")).expected == 2
    assert answer == {
        "revises": "monday",
        "revision": 2,
        "stage": 2,
        "model": None,
        "batch": "monday-r2",
        "published": 2,
        "refused_locally": 0,
        "expected_refusals": 0,
        "refused_by_server": 0,
        "broken_off": None,
        "expected": 2,
        "problems": [],
    }


async def test_a_revision_from_stage_1_has_every_accepted_term(
    js: JetStreamContext, regenerate: Command
) -> None:
    await accept(js, accepted("monday", "책"))
    await accept(js, accepted("monday", "눈"), analyzed=False)
    await regenerate.json("--batch", "monday", "--stage", "1", "--model", "vendor/m")
    said = await submitted(js)
    assert said.keys() == {"책", "눈"}
    assert {(f["revision"]["stage"], f["revision"]["model"]) for f in said.values()} == {
        (1, "vendor/m")
    }


@pytest.mark.parametrize("homonym", [None, 1, 9, 10, 12, 99])
async def test_ingest_takes_each_homonym_for_the_term_that_it_was(
    js: JetStreamContext, regenerate: Command, homonym: int | None
) -> None:
    await accept(js, accepted("monday", "배", homonym=homonym))
    await regenerate.json("--batch", "monday")
    [message] = await submissions(js)
    submission = read_submission(message.subject or "", message.data or b"")
    assert submission.term_id == term_id("배", homonym)


async def test_a_revision_of_a_revision_is_the_next_one_of_the_root(
    js: JetStreamContext, regenerate: Command
) -> None:
    await accept(js, *(accepted("monday", term) for term in ("책", "물", "눈")))
    await accept(js, accepted("monday-r2", "책"), accepted("monday-r2", "물"))
    await accept(js, accepted("monday-r10", "물"))
    answer = await regenerate.json("--batch", "monday-r2")
    assert (answer["batch"], answer["revises"], answer["revision"]) == ("monday-r11", "monday", 11)
    sources = {term: f["revision"]["source"] for term, f in (await submitted(js)).items()}
    assert sources == {"눈": "monday", "책": "monday-r2", "물": "monday-r10"}


@pytest.mark.parametrize("gone", [topology.TERMS, topology.ANALYSES])
async def test_the_root_is_found_by_whatever_checkpoint_remembers_the_revision(
    js: JetStreamContext, regenerate: Command, gone: topology.Stream
) -> None:
    await accept(js, accepted("monday", "책"), accepted("monday-r2", "책"))
    subject = f"{gone.subjects[0].removesuffix('*.*')}monday-r2.*"
    await js.purge_stream(gone.name, subject=subject)
    answer = await regenerate.json("--batch", "monday-r2")
    assert (answer["batch"], answer["revises"]) == ("monday-r3", "monday")


@pytest.mark.parametrize(
    "subject",
    [
        "batches.monday-r7.opened",
        "terms.submit.monday-r7",
        "terms.accepted.monday-r7.x",
        "terms.analyzed.monday-r7.x",
        "cards.finished.monday-r7.x",
        "dead.stage2.monday-r7.x",
        "cancelled.stage2.monday-r7.x",
    ],
)
async def test_a_number_that_any_stream_knows_is_not_given_again(
    js: JetStreamContext, regenerate: Command, subject: str
) -> None:
    event = accepted("monday-r7", "물")
    body = event.to_bytes()
    if subject.startswith("batches"):
        await open_batch(js, "monday-r7", 0)
    else:
        await js.publish(subject, body)
    await accept(js, accepted("monday", "책"))
    for neighbour in ("monday-r9x", "monday-r9-r9", "tuesday-r9", "xmonday-r9", "monday-r1"):
        await open_batch(js, neighbour, 0)
    assert (await plan_revision(js, Wanted("monday"))).batch == "monday-r8"


async def test_a_batch_that_is_only_named_like_a_revision_is_left_out(
    js: JetStreamContext, regenerate: Command
) -> None:
    await accept(js, accepted("monday", "책"))
    await accept(js, accepted("monday-r2", "물", revision=None))
    answer = await regenerate.json("--batch", "monday")
    assert answer["batch"] == "monday-r3"
    assert (await submitted(js)).keys() == {"책"}


async def test_a_batch_that_is_only_named_like_a_revision_has_revisions_of_its_own(
    js: JetStreamContext, regenerate: Command
) -> None:
    await accept(js, accepted("monday", "책"))
    await accept(js, accepted("monday-r2", "물", revision=None))
    answer = await regenerate.json("--batch", "monday-r2")
    assert (answer["batch"], answer["revises"]) == ("monday-r2-r2", "monday-r2")
    assert (await submitted(js)).keys() == {"물"}


async def test_terms_that_cannot_be_submitted_again_are_named_and_the_others_are_published(
    js: JetStreamContext, regenerate: Command
) -> None:
    await accept(js, accepted("monday", "책"))
    await accept(js, accepted("monday", "물", position=5, term_id=term_id("불", None)))
    await accept(js, accepted("monday", "rain", position=7))
    await js.publish("terms.analyzed.monday.fromlater", b'{"version": 2}')
    answer = await regenerate.json("--batch", "monday", exit_code=1)
    assert (answer["published"], answer["expected"]) == (1, 1)
    problems = [(p["batch"], p["position"], p["term"]) for p in answer["problems"]]
    assert problems == [("monday", 0, "fromlater"), ("monday", 5, "물"), ("monday", 7, "rain")]
    reasons = " | ".join(problem["reason"] for problem in answer["problems"])
    assert "another release" in reasons
    assert "another term" in reasons
    assert "not_korean" in reasons


async def test_where_no_term_can_be_submitted_again_no_batch_is_opened(
    js: JetStreamContext, regenerate: Command
) -> None:
    await accept(js, accepted("monday", "rain"))
    result = await regenerate("--batch", "monday")
    assert result.exit_code == 1
    assert "1 term can't be submitted again:\n  monday 1: rain: term: not_korean" in result.stdout
    assert "no batch was opened" in result.stderr
    assert await published(js) == 0


# What can't be


async def test_an_unknown_batch_is_told_with_those_that_are_known(
    js: JetStreamContext, regenerate: Command
) -> None:
    await accept(js, accepted("monday", "책"))
    told = await regenerate.refused("--batch", "sunday")
    assert "no batch 'sunday'" in told
    assert "monday" in told


@pytest.mark.parametrize(("stage", "advice"), [("1", "Submit them again"), ("2", "Try --stage 1")])
async def test_a_checkpoint_without_terms_is_told(
    js: JetStreamContext, regenerate: Command, stage: str, advice: str
) -> None:
    await open_batch(js, "monday", 3)
    told = await regenerate.refused("--batch", "monday", "--stage", stage)
    assert "holds no terms of monday" in told
    assert advice in told
    assert await published(js) == 0


async def test_a_name_that_would_be_too_long_is_told(
    js: JetStreamContext, regenerate: Command
) -> None:
    name = "m" * 62
    await accept(js, accepted(name, "책"))
    told = await regenerate.refused("--batch", name)
    assert f"{name}-r2, which has 65 characters" in told


@pytest.mark.parametrize("model", ["", "  ", "x" * 201, "a\nb"])
async def test_a_model_without_a_name_is_refused_before_anything_is_read(
    regenerate: Command, model: str
) -> None:
    told = await regenerate.refused("--batch", "monday", "--model", model, exit_code=2)
    assert "--model" in told


@pytest.mark.parametrize("stage", ["0", "3", "two"])
async def test_there_are_two_stages(regenerate: Command, stage: str) -> None:
    told = await regenerate.refused("--batch", "monday", "--stage", stage, exit_code=2)
    assert "--stage" in told


async def test_without_a_pipeline_it_says_how_to_start_one() -> None:
    result = await cardflow("regenerate", "--batch", "monday", "--nats", "nats://127.0.0.1:9")
    assert result.exit_code == 2
    assert "cardflow up" in result.stderr


# A publisher that was cut off


async def cut_off(js: JetStreamContext, regenerate: Command, *, arrived: int) -> None:
    """A revision of three terms, of which this many were published before the process died."""
    await accept(js, *(accepted("monday", t, position=p) for p, t in enumerate("책물눈", 1)))
    plan = await plan_revision(js, Wanted("monday", stage=1, model="vendor/m"))
    await open_batch(js, "monday-r2", 3)
    for payload in plan.payloads[:arrived]:
        await js.publish("terms.submit.monday-r2", payload.body)


@pytest.mark.parametrize("arrived", [0, 1, 2])
async def test_a_revision_that_was_cut_off_is_completed_by_its_number(
    js: JetStreamContext, regenerate: Command, arrived: int
) -> None:
    await cut_off(js, regenerate, arrived=arrived)
    how = ("--stage", "1", "--model", "vendor/m") if arrived == 0 else ()
    answer = await regenerate.json("--batch", "monday", "--revision", "2", *how)
    assert (answer["published"], answer["expected"]) == (3 - arrived, 3)
    assert (await opened(js, "monday-r2")).expected == 3
    terms = [json.loads(m.data or b"") for m in await submissions(js)]
    assert sorted(f["term"] for f in terms) == sorted("책물눈")
    assert len({json.dumps(f["revision"]) for f in terms}) == 1


@pytest.mark.parametrize("arrived", [0, 2])
async def test_no_revision_is_begun_after_one_that_was_cut_off(
    js: JetStreamContext, regenerate: Command, arrived: int
) -> None:
    await cut_off(js, regenerate, arrived=arrived)
    told = await regenerate.refused("--batch", "monday")
    assert f"{arrived} of 3 terms were published" in told
    assert "cardflow regenerate --batch monday --revision 2" in told
    assert await published(js) == arrived


async def test_a_revision_that_was_cancelled_is_in_nobodys_way(
    js: JetStreamContext, regenerate: Command
) -> None:
    await cut_off(js, regenerate, arrived=1)
    event = BatchCancelled(batch=Batch("monday-r2"), cancelled_at=NOON)
    await js.publish(topology.batch_subject("monday-r2", "cancelled"), event.to_bytes())
    assert (await regenerate.json("--batch", "monday"))["batch"] == "monday-r3"


async def test_completing_a_whole_revision_publishes_nothing(
    js: JetStreamContext, regenerate: Command
) -> None:
    await accept(js, accepted("monday", "책"))
    await regenerate.json("--batch", "monday")
    answer = await regenerate.json("--batch", "monday", "--revision", "2")
    assert (answer["published"], answer["expected"]) == (0, 1)
    assert await published(js) == 1


async def test_a_revision_is_completed_from_what_came_before_it(
    js: JetStreamContext, regenerate: Command
) -> None:
    await cut_off(js, regenerate, arrived=1)
    await accept(js, *(accepted("monday-r3", term) for term in "책물눈"))
    await regenerate.json("--batch", "monday", "--revision", "2")
    said = [json.loads(m.data or b"")["revision"] for m in await submissions(js)]
    assert {revision["source"] for revision in said} == {"monday"}


@pytest.mark.parametrize("how", [("--stage", "2"), ("--model", "other/m")])
async def test_a_revision_is_completed_in_the_way_in_which_it_was_begun(
    js: JetStreamContext, regenerate: Command, how: tuple[str, str]
) -> None:
    await cut_off(js, regenerate, arrived=1)
    told = await regenerate.refused("--batch", "monday", "--revision", "2", *how)
    assert "was begun from stage 1 with the model vendor/m" in told
    assert await published(js) == 1


async def test_a_revision_that_was_never_begun_cannot_be_completed(
    js: JetStreamContext, regenerate: Command
) -> None:
    await accept(js, accepted("monday", "책"), accepted("monday-r2", "책"))
    told = await regenerate.refused("--batch", "monday", "--revision", "3")
    assert "no revision 3 of monday to complete; there are: 2" in told


async def test_a_batch_of_its_own_is_not_completed_as_a_revision(
    js: JetStreamContext, regenerate: Command
) -> None:
    await accept(js, accepted("monday", "책"))
    await js.publish("terms.submit.monday-r2", "물".encode())
    told = await regenerate.refused("--batch", "monday", "--revision", "2")
    assert "monday-r2 is a batch of its own" in told


# What people are told


async def test_people_are_told_the_batch_and_where_to_look(
    js: JetStreamContext, regenerate: Command
) -> None:
    await accept(js, accepted("monday", "책"))
    result = await regenerate("--batch", "monday")
    assert result.exit_code == 0
    assert "Revision 2 of monday is the batch monday-r2." in result.stderr
    assert (
        "Published 1 of 1 terms to batch monday-r2, revision 2 of monday from stage 2."
        in result.stdout
    )
    assert "cardflow status monday-r2" in result.stdout


async def test_what_was_not_published_is_said_with_the_command_that_does_it(
    js: JetStreamContext, regenerate: Command
) -> None:
    await accept(js, *(accepted("monday", term) for term in "책물눈"))
    config = (await js.stream_info(topology.SUBMISSIONS.name)).config
    config.max_bytes = 600
    await js.update_stream(config)
    result = await regenerate("--batch", "monday")
    assert result.exit_code == 1
    assert "Publishing ended early: refused by the server: maximum bytes exceeded." in result.stdout
    assert "cardflow regenerate --batch monday --revision 2" in result.stdout
    first = await published(js)
    assert (await opened(js, "monday-r2")).expected == first < 3

    config.max_bytes = 100_000
    await js.update_stream(config)
    answer = await regenerate.json("--batch", "monday", "--revision", "2")
    assert (answer["published"], answer["expected"]) == (3 - first, 3)


async def test_waiting_ends_with_the_deck_of_the_batch_that_is_revised(
    js: JetStreamContext, regenerate: Command
) -> None:
    await accept(js, accepted("monday", "책"))
    waiting = asyncio.create_task(regenerate("--batch", "monday", "--wait"))
    await ingest(js, 1)
    await finish(js, "monday-r2", "책")
    await report(js, "monday-r2", finished=1)
    result = await waiting
    assert result.exit_code == 0, result.output
    assert "1 terms finished, 0 dead" in result.stdout
    assert "cardflow export --batch monday -o monday.apkg" in result.stdout


@pytest.mark.parametrize(
    ("stage", "model", "asked"),
    [
        (2, None, "from stage 2: 3 terms, up to 3 calls to the model of the settings?"),
        (1, "vendor/m", "from stage 1: 3 terms, up to 6 calls to vendor/m?"),
    ],
)
async def test_the_question_names_the_terms_and_the_calls(
    js: JetStreamContext, stage: Any, model: str | None, asked: str
) -> None:
    await accept(js, *(accepted("monday", term) for term in "책물눈"))
    plan = await plan_revision(js, Wanted("monday", stage=stage, model=model))
    assert question(plan) == f"Make revision 2 of monday {asked}"


@pytest.mark.parametrize(
    ("typed", "flags", "exit_code", "messages"),
    [("n\n", (), 1, 0), ("y\n", (), 0, 1), ("", ("--yes",), 0, 1)],
)
async def test_a_person_at_a_terminal_is_asked_before_anything_is_published(
    nats_server: str,
    js: JetStreamContext,
    typed: str,
    flags: tuple[str, ...],
    exit_code: int,
    messages: int,
) -> None:
    await accept(js, accepted("monday", "책"))
    command = running.cardflow("regenerate", "--batch", "monday", "--nats", nats_server, *flags)
    keyboard, terminal = os.openpty()
    os.write(keyboard, typed.encode())
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=terminal,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=running.environment(),
    )
    _, told = await process.communicate()
    os.close(keyboard)
    os.close(terminal)
    assert process.returncode == exit_code, told
    assert (b"1 terms, up to 1 calls" in told) == bool(typed)
    assert await published(js) == messages


async def test_a_plan_is_in_the_order_of_the_deck(js: JetStreamContext) -> None:
    places = {"책": 3, "물": 1, "눈": 2}
    await accept(js, *(accepted("monday", term, position=at) for term, at in places.items()))
    plan = await plan_revision(js, Wanted("monday"))
    assert [payload.term for payload in plan.payloads] == ["물", "눈", "책"]
    assert plan.revision == Revision.model_validate(
        {"revises": "monday", "number": 2, "source": "monday", "stage": 2}
    )
