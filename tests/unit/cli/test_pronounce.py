"""`cardflow pronounce` and `cardflow verify`, as a learner and as a program use them."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from services.cli.main import cli

RUNNER = CliRunner()


def test_a_word_is_said_in_hangul_and_in_ipa() -> None:
    done = RUNNER.invoke(cli, ["pronounce", "국물", "김밥"])
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "국물   궁물   [kuŋ.mul]",
        "김밥   김밥   [kim.bap̚]   also 김빱",
    ]


def test_the_rules_are_named_on_request() -> None:
    done = RUNNER.invoke(cli, ["pronounce", "국물", "--explain"])
    assert done.stdout.splitlines()[1] == "  국물 → 궁물: nasalisation, art. 18"


def test_programs_pipe_lines_in_and_get_a_line_of_json_for_each() -> None:
    done = RUNNER.invoke(cli, ["pronounce", "--json"], input="물속\n\n책\n")
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["word"], first["surface"], first["ipa"]) == ("물속", "물쏙", "[mul.s͈ok̚]")
    assert first["lexical"] == [
        {"syllable": 2, "switch": "tense", "article": "28", "required": True}
    ]
    assert first["rules"][0]["after"] == "물쏙"
    assert second["rules"] == []


def test_what_is_no_korean_is_told_and_the_others_are_said() -> None:
    done = RUNNER.invoke(cli, ["pronounce", "-"], input="book\n책\n")
    assert done.exit_code == 1
    assert "'book' holds no Hangul" in done.stderr
    assert done.stdout == "책   책   [tɕʰɛk̚]\n"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (["책", "[tɕʰɛk̚]"], 0, "correct (as the standard has it)"),
        (["국물", "[kuk̚.mul]"], 1, "sound 3 is k, expected ŋ"),
        (["국물", "[kuk̚.mul]"], 1, "expected [kuŋ.mul]"),
        (["솔밭", "[sol.p͈at̚]"], 0, "unconfirmed"),
        (["멸돈", "[mjʌl.t͈on]", "--hanja", "滅豚"], 0, "correct"),
    ],
)
def test_an_ipa_is_judged(arguments: list[str], exit_code: int, said: str) -> None:
    done = RUNNER.invoke(cli, ["verify", *arguments])
    assert (done.exit_code, said in done.stdout) == (exit_code, True)


def test_the_verdict_is_json_for_programs() -> None:
    done = RUNNER.invoke(cli, ["verify", "책", "[tɕʰek̚]", "--json"])
    assert json.loads(done.stdout) == {
        "word": "책",
        "ipa": "[tɕʰek̚]",
        "verdict": "acceptable",
        "expected": "[tɕʰɛk̚]",
        "detail": None,
    }


def test_a_word_without_hangul_is_not_judged() -> None:
    done = RUNNER.invoke(cli, ["verify", "book", "[buk]"])
    assert done.exit_code == 2
    assert "holds no Hangul" in done.stderr
