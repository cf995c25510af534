"""`cardflow submit` before it talks to a server: names, rows, and what it says in the end."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from services.cli.main import cli
from services.cli.printable import printable
from services.cli.submitting.payloads import Payload, Unsendable, read_payloads
from services.cli.submitting.publishing import Publication
from services.cli.submitting.submission import default_batch, read_submission_files
from services.cli.submitting.submission_report import Outcome, show_outcome
from services.kernel.topology import SUBMISSION_MAX_BYTES, is_batch_name

NOON = datetime(2026, 5, 4, 12, 0, 0, 123_456, tzinfo=UTC)
NOWHERE = ("--nats", "nats://127.0.0.1:1")


def submit(*arguments: str | Path, input: str | None = None) -> Result:  # noqa: A002
    return CliRunner().invoke(cli, ["submit", *map(str, arguments)], input=input)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("lists/vocabulary.csv", "vocabulary-20260504-120000-123"),
        ("TOPIK 1 (neu).xlsx", "TOPIK-1-neu-20260504-120000-123"),
        ("단어장.txt", "terms-20260504-120000-123"),
        ("-", "terms-20260504-120000-123"),
        ("-_x.csv", "x-20260504-120000-123"),
        ("x" * 100 + ".csv", "x" * 44 + "-20260504-120000-123"),
    ],
)
def test_a_batch_is_named_after_its_file_and_the_time(source: str, name: str) -> None:
    assert default_batch(source, NOON) == name
    assert is_batch_name(name)


@pytest.mark.parametrize("batch", ["a.b", "a b", "*", ">", "", "책", "-a", "a" * 65])
def test_a_bad_batch_name_is_refused_before_anything_is_read(batch: str) -> None:
    result = submit("does-not-exist.csv", "--batch", batch, *NOWHERE)
    assert result.exit_code == 2
    assert "is no batch name" in result.stderr


@pytest.mark.parametrize("deck", ["", "  ", "d" * 201])
def test_a_deck_that_ingest_would_refuse_is_refused_at_once(deck: str) -> None:
    result = submit("does-not-exist.csv", "--deck", deck, *NOWHERE)
    assert result.exit_code == 2
    assert "--deck" in result.stderr


def test_a_timeout_without_wait_is_a_mistake() -> None:
    assert submit("x.csv", "--timeout-s", "3", *NOWHERE).exit_code == 2


def test_a_file_that_cannot_be_read_exits_2() -> None:
    result = submit("does-not-exist.csv", *NOWHERE)
    assert result.exit_code == 2
    assert "does-not-exist.csv" in result.stderr


def test_without_a_server_it_says_so_and_exits_2() -> None:
    result = submit("-", *NOWHERE, input="책\n")
    assert result.exit_code == 2
    assert "no NATS server at nats://127.0.0.1:1" in result.stderr


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_list_without_a_term_opens_no_batch(tmp_path: Path, flags: tuple[str, ...]) -> None:
    path = tmp_path / "words.csv"
    path.write_text("term,meaning\n,nothing\n")
    result = submit(path, *flags, *NOWHERE)
    assert result.exit_code == 1
    assert "no batch was opened" in result.stderr
    if flags:
        answer = json.loads(result.stdout)
        assert (answer["published"], answer["refused_locally"]) == (0, 1)
    else:
        assert "1 term held nothing to publish" in result.stdout


def test_the_deck_of_the_command_line_holds_for_every_row(tmp_path: Path) -> None:
    path = tmp_path / "words.csv"
    path.write_text("term,deck\n책,Mine\n물,\n")

    def decks(deck: str | None) -> list[str | None]:
        read = [json.loads(p.body) for p in read_payloads([str(path)], deck=deck)]  # type: ignore[union-attr]
        return [fields.get("deck") for fields in read]

    assert decks(None) == ["Mine", None]
    assert decks("Yours") == ["Yours", "Yours"]


def test_a_row_takes_its_place_unless_it_names_one(tmp_path: Path) -> None:
    path = tmp_path / "words.csv"
    path.write_text("no,term\n7,책\n,물\n")
    placed, unplaced = read_payloads([str(path)])
    assert isinstance(placed, Payload)
    assert isinstance(unplaced, Payload)
    assert json.loads(placed.at(2)) == {"term": "책", "position": 7}
    assert json.loads(unplaced.at(2)) == {"term": "물", "position": 2}


def test_a_row_that_no_server_would_take_is_never_sent(tmp_path: Path) -> None:
    path = tmp_path / "words.jsonl"
    path.write_text(json.dumps({"term": "x", "hint": "h" * (SUBMISSION_MAX_BYTES - 50)}))
    [too_large] = read_payloads([str(path)])
    assert isinstance(too_large, Unsendable)
    assert "at most 65,536 can be published" in too_large.reason


def test_half_a_surrogate_pair_goes_out_as_its_escape() -> None:
    from services.cli.submitting import payloads
    from services.ingest.readers import Row

    payload = payloads._payload("-", Row(1, {"term": "책\udc80"}, "책"), {})
    assert isinstance(payload, Payload)
    assert payload.term == "책\udc80"


def test_what_ingest_will_refuse_is_known_beforehand(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("책\nhello\n물\n")
    read = read_submission_files([str(path)])
    assert len(read.payloads) == 3
    [refusal] = read.refusals
    assert (refusal.line, refusal.input, refusal.published) == (2, "hello", True)
    assert refusal.reason.startswith("term: not_korean: ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("책[tɕʰɛk̚]", "책[tɕʰɛk̚]"), ("a\nb\t", "a b "), ("\x1b[2J\u202e", "\\x1b[2J\\u202e")],
)
def test_only_what_can_be_printed_is(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_what_is_long_is_cut() -> None:
    assert printable("abcdef", 4) == "abc…"
    assert printable("abcd", 4) == "abcd"


def test_people_are_told_what_broke_and_how_to_go_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path in paths:
        path.write_text("hello\n" * 15)
    read = read_submission_files(map(str, paths))
    publication = Publication(expected=30, broken_off="the server stopped answering")
    publication.refused.append((read.payloads[0], "too large"))
    show_outcome(Outcome("b1", read, publication))
    shown = capsys.readouterr().out
    assert "Published 0 of 30 terms to batch b1." in shown
    assert "30 terms will be refused:" in shown
    assert "a.txt line 1: hello: term: not_korean" in shown
    assert "… and 10 more" in shown
    assert "1 term not taken by the server:\n  line 1: hello: too large" in shown
    assert "the server stopped answering" in shown
    assert "--batch b1" in shown


def test_a_given_priority_holds_for_every_row(tmp_path: Path) -> None:
    path = tmp_path / "words.csv"
    path.write_text("term,priority\n책,bulk\n물,\n")
    own = read_submission_files([str(path)]).payloads
    assert [json.loads(payload.body).get("priority") for payload in own] == ["bulk", None]
    given = read_submission_files([str(path)], priority="urgent").payloads
    assert [json.loads(payload.body)["priority"] for payload in given] == ["urgent", "urgent"]
