"""`cardflow dead-letters` on a real server: found, sent again exactly once, decided against."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pty
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import Result
from letters_by_hand import NOON, STREAMS, TRACE, a_letter, count, give_up, replays_of, stands
from nats.js import JetStreamContext
from typer.testing import CliRunner

from services.cli.letters.letters import Wanted, read_letters
from services.cli.letters.replaying import discard, replay
from services.cli.main import cli
from services.kernel import topology

Cardflow = Callable[..., Awaitable[Result]]


@pytest.fixture
def cardflow(nats_server: str) -> Cardflow:
    """The command, in a thread of its own: it brings its own event loop."""

    async def run(*arguments: str) -> Result:
        command = ["dead-letters", *arguments, "--nats", nats_server]
        return await asyncio.to_thread(CliRunner().invoke, cli, command)

    return run


# Looking ------------------------------------------------------------------------------------------


async def test_none_is_a_fine_answer(js: JetStreamContext, cardflow: Cardflow) -> None:
    assert (await cardflow("list")).stdout == "No dead letters.\n"
    assert json.loads((await cardflow("list", "--json")).stdout) == []
    replayed = await cardflow("replay", "--all")
    assert (replayed.exit_code, replayed.stdout) == (0, "No dead letters match.\n")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ((), ["aaa", "bbb", "ccc"]),
        (("--batch", "b2"), ["bbb"]),
        (("--service", "ingest"), ["ccc"]),
        (("--reason", "empty"), ["bbb"]),
        (("--reason", "empty", "--batch", "b1"), []),
        (("--all",), ["aaa", "bbb", "ccc", "ddd"]),
    ],
)
async def test_the_list_filters_and_hides_what_was_discarded(
    js: JetStreamContext, cardflow: Cardflow, filters: tuple[str, ...], expected: list[str]
) -> None:
    await give_up(js, a_letter("aaa"))
    await give_up(js, a_letter("bbb", "stage2", batch="b2", reason="empty"))
    await give_up(js, a_letter("ccc", "ingest"))
    await discard(js, await give_up(js, a_letter("ddd")), note="no", at=NOON)
    rows = json.loads((await cardflow("list", "--json", *filters)).stdout)
    assert [row["letter_id"] for row in rows] == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (("--older-than", "2h"), ["old"]),
        (("--newer-than", "2h"), ["new"]),
        (("--older-than", "30m", "--newer-than", "4h"), ["new", "old"]),
        (("--older-than", "2d"), []),
        (("--newer-than", "4h", "--reason", "empty"), ["old"]),
    ],
)
async def test_age_is_the_time_since_a_letter_was_given_up_on(
    js: JetStreamContext, cardflow: Cardflow, filters: tuple[str, ...], expected: list[str]
) -> None:
    now = datetime.now(UTC)
    await give_up(js, a_letter("new", last_at=now - timedelta(hours=1)))
    await give_up(js, a_letter("old", last_at=now - timedelta(hours=3), reason="empty"))
    rows = json.loads((await cardflow("list", "--json", *filters)).stdout)
    assert [row["letter_id"] for row in rows] == expected
    result = await cardflow("discard", "--json", *filters)
    assert [row["id"][-3:] for row in json.loads(result.stdout)] == expected


async def test_an_age_that_is_none_is_refused_with_an_example(cardflow: Cardflow) -> None:
    for command in ("list", "replay", "discard"):
        result = await cardflow(command, "--older-than", "yesterday")
        assert result.exit_code == 2
        assert "'yesterday' is no span of time" in " ".join(result.stderr.split())


async def test_cancelled_terms_are_listed_and_shown_by_themselves(
    js: JetStreamContext, cardflow: Cardflow
) -> None:
    await give_up(js, a_letter("dead"))
    record = a_letter("gone", reason="cancelled")
    await js.publish(topology.cancelled_subject("stage1", "b1", "gone"), record.to_bytes())
    for flags, expected in (((), ["dead"]), (("--cancelled",), ["gone"])):
        rows = json.loads((await cardflow("list", "--json", *flags)).stdout)
        assert [row["letter_id"] for row in rows] == expected
    assert (await cardflow("show", "gone")).exit_code == 1
    shown = json.loads((await cardflow("show", "gone", "--cancelled", "--json")).stdout)
    assert (shown["id"], shown["reason"]) == ("stage1/b1/gone", "cancelled")
    assert (await cardflow("replay", "--all")).stdout == "replayed: 1\n"
    assert (
        await cardflow("list", "--cancelled", "--batch", "b2")
    ).stdout == "No cancelled terms.\n"


async def test_a_row_tells_reason_attempts_and_cost(
    js: JetStreamContext, cardflow: Cardflow
) -> None:
    await give_up(js, a_letter(original_headers={topology.REPLAYS: "2"}))
    [row] = json.loads((await cardflow("list", "--json")).stdout)
    assert row["id"] == "stage1/b1/abc"
    assert (row["term"], row["reason"], row["replays"]) == ("책", "schema", 2)
    assert (row["attempts"], row["calls"], row["cost_usd"]) == (1, 1, 0.0002)
    shown = (await cardflow("list")).stdout
    assert "abc" in shown
    assert "책" in shown


async def test_the_whole_story_is_shown_and_nothing_in_it_steers_the_terminal(
    js: JetStreamContext, cardflow: Cardflow
) -> None:
    record = a_letter(field="term", original_payload="\x1b[31m[bold]책".encode(), note="n")
    await give_up(js, record)
    shown = (await cardflow("show", "ab")).stdout
    for part in ("schema: ipa is missing", "ValueError: no ipa", "0.000200 $", TRACE, "field"):
        assert part in shown
    assert "\x1b" not in shown
    assert "[31m[bold]책" in shown


async def test_the_json_has_the_payload_as_text_only_where_it_is_text(
    js: JetStreamContext, cardflow: Cardflow
) -> None:
    await give_up(js, a_letter("text", original_payload="책".encode()))
    await give_up(js, a_letter("bytes", original_payload=b"\xff\xfe"))
    text = json.loads((await cardflow("show", "text", "--json")).stdout)
    assert text["original_payload"] == "책"
    assert [attempt["outcome"] for attempt in text["history"]] == ["throttled", "billed"]
    raw = json.loads((await cardflow("show", "bytes", "--json")).stdout)
    assert raw["original_payload"] is None
    assert base64.b64decode(raw["original_payload_base64"]) == b"\xff\xfe"
    assert "not UTF-8" in (await cardflow("show", "bytes")).stdout


async def test_an_id_may_be_short_when_it_is_clear(
    js: JetStreamContext, cardflow: Cardflow
) -> None:
    for record in (a_letter("abc"), a_letter("abd"), a_letter("abc", batch="b2")):
        await give_up(js, record)
    found = {asked: await cardflow("show", asked) for asked in ("abd", "stage1/b2/a", "ab", "x")}
    assert [result.exit_code for result in found.values()] == [0, 0, 1, 1]
    for candidate in ("stage1/b1/abc", "stage1/b1/abd", "stage1/b2/abc"):
        assert candidate in found["ab"].stderr
    assert "there is no dead letter 'x'" in found["x"].stderr
    assert (await cardflow("show", "")).exit_code == 1


async def test_too_many_candidates_are_cut_short(js: JetStreamContext, cardflow: Cardflow) -> None:
    for number in range(12):
        await give_up(js, a_letter(f"a{number:02}"))
    assert "any of 12" in (message := (await cardflow("show", "a")).stderr)
    assert "…" in message


async def test_a_letter_of_a_newer_cardflow_is_left_out_and_named(
    js: JetStreamContext, cardflow: Cardflow
) -> None:
    await js.publish("dead.stage1.b1.new", b'{"version": 2}')
    listed = await cardflow("list", "--json")
    assert json.loads(listed.stdout) == []
    assert "stage1/b1/new" in listed.stderr
    shown = await cardflow("show", "new")
    assert (shown.exit_code, "newer cardflow" in shown.stderr) == (1, True)


# Replaying ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", STREAMS)
async def test_the_original_bytes_go_to_the_original_subject_with_a_new_count(
    js: JetStreamContext, cardflow: Cardflow, service: str
) -> None:
    headers = {topology.REPLAYS: "4", topology.TRACEPARENT: TRACE, "X-Other": "left out"}
    letter = await give_up(js, a_letter(service=service, original_headers=headers))
    result = await cardflow("replay", "abc", "--json")
    assert json.loads(result.stdout) == [{"id": letter.address, "outcome": "replayed"}]
    assert await replays_of(js, letter) == 5
    message = await js.get_last_msg(STREAMS[service], letter.record.original_subject)
    assert message.headers
    assert message.headers[topology.TRACEPARENT] == TRACE
    assert "X-Other" not in message.headers
    assert not await stands(js, letter)


async def test_headers_that_were_never_set_are_not_invented(js: JetStreamContext) -> None:
    letter = await give_up(js, a_letter(original_headers={topology.REPLAYS: "many"}))
    await replay(js, letter)
    message = await js.get_last_msg("TERMS", letter.record.original_subject)
    assert set(message.headers or {}) == {topology.REPLAYS, topology.FIRST_AT}
    assert (message.headers or {})[topology.REPLAYS] == "1"


@pytest.mark.parametrize("service", STREAMS)
async def test_twice_is_once(js: JetStreamContext, service: str) -> None:
    letter = await give_up(js, a_letter(service=service))
    before = await count(js, STREAMS[service])
    outcomes = [await replay(js, letter) for _ in range(3)]
    assert outcomes[0] == "replayed"
    assert await replays_of(js, letter) == 1
    again = 1 if service == "ingest" else 0  # The others replace what stood on the subject.
    assert await count(js, STREAMS[service]) == before + again


async def test_two_people_at_once_are_one(js: JetStreamContext) -> None:
    letter = await give_up(js, a_letter())
    await asyncio.gather(*(replay(js, letter) for _ in range(8)))
    assert (await count(js, "TERMS"), await replays_of(js, letter)) == (1, 1)
    assert not await stands(js, letter)


async def test_a_death_after_the_subject_was_freed_is_made_good(js: JetStreamContext) -> None:
    letter = await give_up(js, a_letter())
    await js.purge_stream("TERMS", subject=letter.record.original_subject)
    assert await replay(js, letter) == "replayed"
    assert await replays_of(js, letter) == 1
    assert not await stands(js, letter)


async def test_a_death_after_the_publish_leaves_only_the_letter_to_take_away(
    js: JetStreamContext,
) -> None:
    letter = await give_up(js, a_letter())
    await replay(js, letter)
    sent = await js.get_last_msg("TERMS", letter.record.original_subject)
    letter = await give_up(js, letter.record, original=False)
    assert await replay(js, letter) == "replayed_before"
    again = await js.get_last_msg("TERMS", letter.record.original_subject)
    assert again.seq == sent.seq
    assert not await stands(js, letter)


async def test_a_letter_written_meanwhile_is_not_taken_away(js: JetStreamContext) -> None:
    old = await give_up(js, a_letter())
    new = await give_up(js, a_letter(message="dead once more"), original=False)
    await replay(js, old)
    assert await stands(js, new)


async def test_filters_replay_all_that_wait_and_leave_the_discarded(
    js: JetStreamContext, cardflow: Cardflow
) -> None:
    letters = [await give_up(js, a_letter(f"t{number}")) for number in range(30)]
    other = await give_up(js, a_letter("other", batch="b2"))
    await discard(js, letters[0], note="no", at=NOON)
    result = await cardflow("replay", "--batch", "b1")
    assert (result.exit_code, result.stdout) == (0, "replayed: 29\n")
    assert [await stands(js, letter) for letter in letters] == [True] + [False] * 29
    assert await stands(js, other)


async def test_a_replay_keeps_its_pace_however_many_it_has_in_hand(
    js: JetStreamContext, cardflow: Cardflow
) -> None:
    for number in range(9):
        await give_up(js, a_letter(f"t{number}"))
    assert (await cardflow("replay", "--all", "--rate", "10")).stdout == "replayed: 9\n"
    state = (await js.stream_info("TERMS")).state
    sent = [
        (await js.get_msg("TERMS", seq=sequence)).time
        for sequence in range(state.first_seq, state.last_seq + 1)
    ]
    took = sent[-1] - sent[0] if sent[0] and sent[-1] else timedelta(0)
    assert took > timedelta(seconds=0.7)


async def test_a_discarded_letter_is_replayed_when_it_is_named(
    js: JetStreamContext, cardflow: Cardflow
) -> None:
    await discard(js, await give_up(js, a_letter()), note="no", at=NOON)
    assert (await cardflow("replay", "abc", "stage1/b1/abc")).stdout == "replayed: 1\n"


async def test_one_that_fails_does_not_keep_the_others_from_their_turn(
    js: JetStreamContext, cardflow: Cardflow
) -> None:
    first = await give_up(js, a_letter("one"))
    second = await give_up(js, a_letter("two", "stage2"))
    await js.delete_stream("TERMS")
    result = await cardflow("replay", "--all", "--json")
    outcomes = {row["id"]: row["outcome"] for row in json.loads(result.stdout)}
    assert result.exit_code == 1
    assert outcomes[second.address] == "replayed"
    assert outcomes[first.address].startswith("failed")
    assert await stands(js, first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name the dead letters"),
        (("abc", "--batch", "b1"), "name the dead letters"),
        (("--service", "stage9"), "no service 'stage9'"),
        (("--batch", "b.*"), "is no batch name"),
    ],
)
async def test_a_wrong_choice_is_refused(
    js: JetStreamContext, cardflow: Cardflow, arguments: tuple[str, ...], message: str
) -> None:
    result = await cardflow("replay", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(("answer", "code", "left"), [("n", 1, True), ("y", 0, False)])
async def test_on_a_terminal_filters_ask_first(
    js: JetStreamContext, nats_server: str, answer: str, code: int, left: bool
) -> None:
    letter = await give_up(js, a_letter())
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    command = [sys.executable, "-m", "services.cli", "dead-letters", "replay", "--all"]
    asked = await asyncio.to_thread(
        subprocess.run, [*command, "--nats", nats_server], stdin=theirs, capture_output=True
    )
    os.close(ours)
    os.close(theirs)
    assert asked.returncode == code
    assert b"Replay 1 dead letters?" in asked.stderr
    assert await stands(js, letter) == left


# Deciding against ---------------------------------------------------------------------------------


async def test_a_discarded_letter_stays_on_record_with_its_note(
    js: JetStreamContext, cardflow: Cardflow
) -> None:
    await give_up(js, a_letter())
    result = await cardflow("discard", "abc", "--note", "no Korean word")
    assert (result.exit_code, result.stdout) == (0, "discarded: 1\n")
    assert (await cardflow("list")).stdout == "No dead letters.\n"
    assert "discarded" in (await cardflow("list", "--all")).stdout
    assert "no Korean word" in (await cardflow("show", "abc")).stdout
    shown = json.loads((await cardflow("show", "abc", "--json")).stdout)
    assert shown["note"] == "no Korean word"
    assert shown["discarded_at"]


async def test_discarding_by_filter_has_a_note_of_its_own(
    js: JetStreamContext, cardflow: Cardflow
) -> None:
    await give_up(js, a_letter())
    assert (await cardflow("discard", "--reason", "schema")).exit_code == 0
    [letter] = (await read_letters(js, Wanted())).readable
    assert letter.record.note == "no reason given"


async def test_what_was_replayed_meanwhile_is_not_brought_back_by_discarding(
    js: JetStreamContext,
) -> None:
    letter = await give_up(js, a_letter())
    await replay(js, letter)
    assert not await discard(js, letter, note="late", at=NOON)
    assert not await stands(js, letter)
