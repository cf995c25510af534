"""`cardflow dead-letters replay` with a corrected payload: the same event, or a new submission."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from letters_by_hand import NOON, STREAMS, a_letter, count, give_up, stands
from nats.js import JetStreamContext
from pipeline_by_hand import cards_finished, submissions
from typer.testing import CliRunner

from services.cli.letters.editing import PayloadRefused, replay_edited, text_to_edit
from services.cli.letters.letters import Letter, find_letter
from services.cli.letters.replaying import replay
from services.cli.main import cli
from services.kernel import topology
from services.kernel.contracts.analysis import TermAnalyzed
from services.kernel.contracts.base import Batch
from services.kernel.contracts.identity import refusal_id, term_id
from services.kernel.contracts.term import TermAccepted

BATCH = "b1"
ID = term_id("책", None)
REFUSED = b'{"term": "book"}'

Cardflow = Callable[..., Awaitable[Result]]


@pytest.fixture
def cardflow(nats_server: str) -> Cardflow:
    async def run(*arguments: str, given: bytes | None = None) -> Result:
        command = ["dead-letters", *arguments, "--nats", nats_server]
        return await asyncio.to_thread(CliRunner().invoke, cli, command, input=given)

    return run


def accepted(**values: Any) -> TermAccepted:
    defaults = {
        "batch": Batch(BATCH),
        "term_id": ID,
        "term": "책",
        "position": 1,
        "deck": BATCH,
        "sequence": 1,
        "submitted_at": NOON,
    }
    return TermAccepted.model_validate({**defaults, **values})


def event_of(service: str, **values: Any) -> bytes:
    """What the service reads, with some values of the term changed."""
    term = accepted(**values)
    if service == "stage1":
        return term.to_bytes()
    finished = cards_finished(term.batch, term.term, term_id=term.term_id, deck=term.deck)
    if service == "exporter":
        return finished.to_bytes()
    analyzed = TermAnalyzed(accepted=term, analysis=finished.analysis, stage1=finished.stage1)
    return analyzed.to_bytes()


async def dead(js: JetStreamContext, service: str) -> Letter:
    record = a_letter(ID, service, original_payload=event_of(service))
    return await give_up(js, record)


async def refused(js: JetStreamContext, payload: bytes = REFUSED) -> Letter:
    return await give_up(js, a_letter(refusal_id(payload), "ingest", original_payload=payload))


async def newest(js: JetStreamContext, letter: Letter) -> bytes | None:
    stream = STREAMS[letter.record.service]
    return (await js.get_last_msg(stream, letter.record.original_subject)).data


@pytest.mark.parametrize("service", ["stage1", "stage2", "exporter"])
async def test_an_edited_event_goes_out_in_place_of_the_original(
    js: JetStreamContext, cardflow: Cardflow, tmp_path: Path, service: str
) -> None:
    letter = await dead(js, service)
    edited = event_of(service, deck="another")
    (tmp_path / "edited.json").write_bytes(edited)
    arguments = ("replay", letter.address, "--payload", str(tmp_path / "edited.json"))
    result = await cardflow(*arguments, "--json")
    assert json.loads(result.stdout) == [{"id": letter.address, "outcome": "replayed"}]
    message = await js.get_last_msg(STREAMS[service], letter.record.original_subject)
    assert message.data == edited
    assert (message.headers or {})[topology.REPLAYS] == "1"
    assert not await stands(js, letter)
    again = await cardflow(*arguments)
    assert (again.exit_code, "there is no dead letter" in again.stderr) == (1, True)
    assert await count(js, STREAMS[service]) == 1


@pytest.mark.parametrize(
    ("service", "payload", "message"),
    [
        ("stage1", b"{}", "not a TermAccepted"),
        ("stage2", event_of("stage1"), "not a TermAnalyzed"),
        ("exporter", event_of("stage2"), "not a CardsFinished"),
        ("stage1", event_of("stage1", batch="b2"), "is of batch 'b2'"),
        ("stage2", event_of("stage2", batch="b2"), "is of batch 'b2'"),
        ("exporter", event_of("exporter", batch="b2"), "is of batch 'b2'"),
        ("stage1", event_of("stage1", term_id="a" * 16), "its subject needs"),
        ("stage1", event_of("stage1", term="물"), "'물' is another term"),
        ("stage1", event_of("stage1", homonym=2), "is another term"),
        ("stage1", event_of("stage1") + b" " * 524_288, "takes less than 524,288"),
    ],
)
async def test_an_edited_event_that_is_not_what_its_subject_names_is_refused(
    js: JetStreamContext, cardflow: Cardflow, service: str, payload: bytes, message: str
) -> None:
    letter = await dead(js, service)
    result = await cardflow("replay", letter.address, "--payload", "-", given=payload)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "nothing was sent" in result.stderr
    assert await stands(js, letter)
    assert await newest(js, letter) == letter.record.original_payload


async def test_an_edit_after_a_replay_that_was_cut_off_says_that_it_came_too_late(
    js: JetStreamContext,
) -> None:
    letter = await dead(js, "stage1")
    await replay(js, letter)
    letter = await give_up(js, letter.record, original=False)
    edited = event_of("stage1", deck="another")
    assert await replay_edited(js, letter, edited, at=NOON) == "sent_otherwise"
    assert await newest(js, letter) == letter.record.original_payload
    assert not await stands(js, letter)


async def test_an_edit_that_was_cut_off_is_ended_by_the_same_edit(js: JetStreamContext) -> None:
    letter = await dead(js, "stage1")
    edited = event_of("stage1", deck="another")
    await replay_edited(js, letter, edited, at=NOON)
    letter = await give_up(js, letter.record, original=False)
    assert await replay_edited(js, letter, edited, at=NOON) == "replayed_before"
    assert await newest(js, letter) == edited


async def test_an_edited_submission_is_a_new_one_and_the_refusal_stays_on_record(
    js: JetStreamContext, cardflow: Cardflow
) -> None:
    letter = await refused(js)
    edited = '{"term": "책", "position": 7}'.encode()
    arguments = ("replay", letter.address, "--payload", "-", "--json")
    outcomes = [json.loads((await cardflow(*arguments, given=edited)).stdout) for _ in range(2)]
    assert [rows[0]["outcome"] for rows in outcomes] == ["replaced", "replaced_before"]
    assert [message.data for message in await submissions(js)] == [REFUSED, edited]
    standing = (await find_letter(js, letter.address)).record
    assert standing.note == "replaced by an edited submission: 책"
    assert standing.discarded_at
    assert standing.original_payload == REFUSED


async def test_two_people_with_the_same_edit_are_one(js: JetStreamContext) -> None:
    letter = await refused(js)
    edits = (replay_edited(js, letter, "책".encode(), at=NOON) for _ in range(4))
    outcomes = await asyncio.gather(*edits)
    assert sorted(outcomes) == ["replaced"] + ["replaced_before"] * 3
    assert [message.data for message in await submissions(js)] == [REFUSED, "책".encode()]


async def test_a_second_edit_into_another_term_is_refused(js: JetStreamContext) -> None:
    letter = await refused(js)
    await replay_edited(js, letter, "배02".encode(), at=NOON)
    letter = await find_letter(js, letter.address)
    with pytest.raises(PayloadRefused, match="was replaced by an edited submission: 배02"):
        await replay_edited(js, letter, "배03".encode(), at=NOON)
    assert await count(js, "SUBMISSIONS") == 2


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b'{"term": "kniga"}', "term: "),
        (b'{"term": "kniga"}', "not_korean"),
        (b'{"term": ', "not_json"),
        (REFUSED, "nothing was changed"),
        (b" " * 65_536, "65,536 bytes"),
    ],
)
async def test_a_submission_that_would_be_refused_again_is_not_published(
    js: JetStreamContext, cardflow: Cardflow, payload: bytes, message: str
) -> None:
    letter = await refused(js)
    result = await cardflow("replay", letter.address, "--payload", "-", given=payload)
    assert result.exit_code == 1
    assert message in result.stderr
    assert await count(js, "SUBMISSIONS") == 1
    assert not (await find_letter(js, letter.address)).is_discarded


def an_editor(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """$EDITOR runs this on the file, as `path`."""
    source = f"import pathlib, sys; path = pathlib.Path(sys.argv[1]); {program}"
    monkeypatch.setenv("EDITOR", shlex.join([sys.executable, "-c", source]))
    monkeypatch.delenv("VISUAL", raising=False)


async def test_the_editor_shows_an_event_in_lines_and_what_it_saves_is_sent(
    js: JetStreamContext, cardflow: Cardflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = await dead(js, "stage1")
    an_editor(
        monkeypatch,
        "text = path.read_text('utf-8'); assert '\\n  \"term\": \"책\",\\n' in text; "
        'path.write_text(text.replace(\'"deck": "b1"\', \'"deck": "another"\'), \'utf-8\')',
    )
    result = await cardflow("replay", letter.address, "--edit")
    assert (result.exit_code, result.stdout) == (0, "replayed: 1\n")
    assert TermAccepted.from_bytes(await newest(js, letter) or b"").deck == "another"


@pytest.mark.parametrize("program", ["pass", "path.write_text(path.read_text('utf-8'), 'utf-8')"])
async def test_an_editor_that_changes_nothing_sends_nothing(
    js: JetStreamContext, cardflow: Cardflow, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    letter = await dead(js, "stage1")
    an_editor(monkeypatch, program)
    result = await cardflow("replay", letter.address, "--edit")
    assert (result.exit_code, "nothing was changed" in result.stderr) == (1, True)
    assert await stands(js, letter)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--all", "--edit"), "are for one dead letter"),
        (("abc", "abd", "--payload", "-"), "are for one dead letter"),
        (("abc", "--edit", "--payload", "-"), "not both"),
        (("abc", "--payload", "no-such-file"), "No such file"),
        (("--all", "--rate", "0"), "not in the range"),
    ],
)
async def test_wrong_usage_is_refused_before_anything_is_asked(
    cardflow: Cardflow, arguments: tuple[str, ...], message: str
) -> None:
    result = await cardflow("replay", *arguments, given=b"x")
    assert result.exit_code == 2
    assert message in result.stderr


def test_what_is_no_event_is_edited_as_it_came() -> None:
    assert text_to_edit("책".encode()) == "책"
    assert text_to_edit(b'["x"]') == '["x"]'
    assert text_to_edit(b'{"term": ') == '{"term": '
    with pytest.raises(PayloadRefused, match="--payload FILE"):
        text_to_edit(b"\xff")


def test_a_text_to_edit_is_the_same_event() -> None:
    for service in ("stage1", "stage2", "exporter"):
        original = event_of(service)
        assert json.loads(text_to_edit(original)) == json.loads(original)
