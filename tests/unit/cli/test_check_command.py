"""`cardflow check`: every row's verdict, as ingest would give it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from services.cli.main import cli
from services.ingest.handler import read_submission
from services.kernel.errors import TermRefused

KEYS = ["line", "input", "normal", "homonym", "hint", "priority", "verdict", "reason"]


def check(*arguments: str | Path, input: str | None = None) -> Result:  # noqa: A002
    return CliRunner().invoke(cli, ["check", *map(str, arguments)], input=input)


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.csv"
    path.write_text("term,meaning\n책,book\n배02,pear\nhello,greeting\n,nothing\n")
    return path


def test_each_row_is_one_line_of_json_with_the_documented_keys(words: Path) -> None:
    result = check(words, "--json")
    assert result.exit_code == 1
    assert [list(row) for row in rows(result)] == [KEYS] * 4
    accepted, homonym, refused, empty = rows(result)
    assert accepted == {
        "line": 2,
        "input": "책",
        "normal": "책",
        "homonym": None,
        "hint": "book",
        "priority": "normal",
        "verdict": "accept",
        "reason": None,
    }
    assert (homonym["input"], homonym["normal"], homonym["homonym"]) == ("배02", "배", 2)
    assert (refused["verdict"], refused["normal"]) == ("reject", None)
    assert refused["reason"].startswith("term: not_korean: ")
    assert (empty["verdict"], empty["line"], empty["input"]) == ("reject", 5, ",nothing")
    assert empty["reason"].startswith("row: no term")


def test_a_list_without_a_fault_exits_0(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("책\n꽃잎\n책\n")
    result = check(path)
    assert result.exit_code == 0
    assert "3 rows: 3 accepted, 0 rejected." in result.stdout
    assert "2 different terms; 1 stand there again." in result.stdout


def test_people_see_each_row_of_a_short_list(words: Path) -> None:
    shown = check(words).stdout
    assert "normal form" in shown
    assert "배 (2)" in shown
    assert "not_korean" in shown
    assert "4 rows: 2 accepted, 2 rejected." in shown


def test_people_see_only_what_was_rejected_of_a_long_list(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("".join(f"{chr(0xAC00 + i)}나\n" for i in range(150)) + "hello\n")
    shown = check(path).stdout
    assert "only the rejected rows are shown" in shown
    assert "hello" in shown
    assert "가나" not in shown


def test_nothing_in_a_list_acts_on_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "evil.txt"
    path.write_text("책\x1b[2J\n[bold]책\n")
    shown = check(path).stdout
    assert "\x1b" not in shown
    assert "책\\x1b[2J" in shown
    assert "[bold]책" in shown


def test_standard_input_is_a_file_named_dash() -> None:
    result = check("-", "--json", input="책\n")
    assert result.exit_code == 0
    assert rows(result)[0]["normal"] == "책"


def test_several_files_are_told_apart(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("책\n")
    second.write_text("물\n")
    result = check(first, second, "--json")
    assert [row["file"] for row in rows(result)] == [str(first), str(second)]
    assert "file" in check(first, second).stdout.splitlines()[0]


@pytest.mark.parametrize("content", [None, b"\xff\xff\xff\x80"])
def test_a_file_that_cannot_be_read_exits_2(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    result = check(path, "--json")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "words.txt" in result.stderr


def test_the_verdict_is_that_of_ingest_on_what_submit_would_publish(tmp_path: Path) -> None:
    terms = ["책", "  책  ", "3) 꽃잎", "책(book)", "=1+1", "ㅋㅋ", "http://책", "x" * 200, "눈01"]
    path = tmp_path / "words.jsonl"
    path.write_text("".join(json.dumps({"term": term}) + "\n" for term in terms))
    verdicts = [(row["normal"], row["reason"]) for row in rows(check(path, "--json"))]
    assert verdicts == [as_ingest_says(term) for term in terms]
    assert len({reason for _, reason in verdicts}) > 4


def as_ingest_says(term: str) -> tuple[str | None, str | None]:
    try:
        submission = read_submission("terms.submit.b", json.dumps({"term": term}).encode())
    except TermRefused as refusal:
        return None, f"term: {refusal.reason}: {refusal.detail}"
    return submission.form.text, None


def test_a_row_too_large_to_publish_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "words.jsonl"
    path.write_text(json.dumps({"term": "책", "hint": "책" * 30_000}, ensure_ascii=False))
    [row] = rows(check(path, "--json"))
    assert row["verdict"] == "reject"
    assert "at most 65,536 can be published" in row["reason"]


def test_priorities_are_shown_where_a_row_names_one_and_a_wrong_one_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "words.csv"
    path.write_text("단어,우선순위\n책,urgent\n물,\n꽃,soon\n")
    result = check(path, "--json")
    assert [row["priority"] for row in rows(result)] == ["urgent", "normal", None]
    assert rows(result)[2]["reason"].startswith("priority: invalid_field: ")
    assert "priority" in check(path).stdout
    path.write_text("책\n물\n")
    assert "priority" not in check(path).stdout
