"""`cardflow settings`: every setting with its source, no secret, and a page that is up to date."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from pydantic import BaseModel
from typer.testing import CliRunner

from services.cli.commands.settings import SETTINGS, every_setting, settings_page
from services.cli.main import cli

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"
KEY = "sk-or-very-secret"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith("CARDFLOW_") or name.upper() == "OPENROUTER_API_KEY":
            monkeypatch.delenv(name)


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, ["settings", *arguments], env=environment)


def rows(**environment: str) -> dict[str, dict[str, Any]]:
    printed = run("--json", **environment)
    assert printed.exit_code == 0, printed.output
    return {row["name"]: row for row in json.loads(printed.stdout)}


def test_the_committed_page_is_the_generated_one() -> None:
    assert PAGE.read_text() == settings_page(), (
        "docs/reference/settings.md is not up to date; run `make reference`"
    )


def test_the_page_does_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings_page()
    monkeypatch.setenv("CARDFLOW_NATS__URL", "nats://elsewhere:1")
    assert settings_page() == before


def test_every_field_of_every_service_is_there_and_says_what_it_means() -> None:
    assert all(setting.field.description for setting in every_setting())
    names = [setting.name for setting in every_setting()]
    assert len(names) == len(set(names))
    for kind in SETTINGS.values():
        for section, field in kind.model_fields.items():
            annotation = field.annotation
            if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
                continue
            for name in annotation.model_fields:
                assert f"CARDFLOW_{section}__{name}".upper() in names


def test_without_anything_set_every_value_is_its_default() -> None:
    found = rows().values()
    assert {row["source"] for row in found} == {"default"}
    assert all(row["value"] == row["default"] for row in found)


def test_who_reads_a_setting_is_told() -> None:
    found = rows()
    assert found["CARDFLOW_NATS__URL"]["services"] == ["all"]
    assert found["CARDFLOW_PROVIDER__KIND"]["services"] == ["stage1", "stage2"]
    assert found["CARDFLOW_EXPORTER__STORE_PATH"]["services"] == ["exporter"]
    assert found["CARDFLOW_EXPORTER__DECK_FORMATS"]["value"] == ["apkg"]


SOURCES = [
    ("environment", {"CARDFLOW_RETRY__BASE_S": "3"}, "", "CARDFLOW_RETRY__BASE_S", 3.0),
    ("environment", {"cardflow_retry__base_s": "3"}, "", "CARDFLOW_RETRY__BASE_S", 3.0),
    ("environment", {"CARDFLOW_RETRY": '{"base_s": 3}'}, "", "CARDFLOW_RETRY__BASE_S", 3.0),
    ("default", {"CARDFLOW_RETRY": '{"base_s": 3}'}, "", "CARDFLOW_RETRY__CAP_S", 60),
    (".env", {}, "CARDFLOW_GRACE_S=9", "CARDFLOW_GRACE_S", 9.0),
    ("environment", {"CARDFLOW_GRACE_S": "8"}, "CARDFLOW_GRACE_S=9", "CARDFLOW_GRACE_S", 8.0),
    (".env", {}, f"OPENROUTER_API_KEY={KEY}", "OPENROUTER_API_KEY", "set"),
    ("environment", {"OPENROUTER_API_KEY": KEY}, "", "OPENROUTER_API_KEY", "set"),
    ("environment", {"OPENROUTER_API_KEY": " "}, "", "OPENROUTER_API_KEY", "not set"),
    ("environment", {"CARDFLOW_STAGE2__MAX_TOKENS": "99"}, "", "CARDFLOW_STAGE2__MAX_TOKENS", 99),
]


@pytest.mark.parametrize(("source", "environment", "dotenv", "name", "value"), SOURCES)
def test_the_winning_layer_is_named(
    source: str, environment: dict[str, str], dotenv: str, name: str, value: object
) -> None:
    Path(".env").write_text(dotenv + "\n")
    row = rows(**environment)[name]
    assert (row["source"], row["value"]) == (source, value)


def test_no_secret_is_shown() -> None:
    environment = {
        "OPENROUTER_API_KEY": KEY,
        "CARDFLOW_PROVIDER__API_KEY": KEY,
        "CARDFLOW_NATS__URL": f"nats://me:{KEY}@host:4222,nats://{KEY}@other:4222",
    }
    printed = run("--json", **environment).output + run(**environment).output
    assert KEY not in printed
    assert "nats://***@host:4222,nats://***@other:4222" in printed


def test_people_see_a_table_in_which_names_are_whole() -> None:
    printed = run(CARDFLOW_RETRY__CAP_S="7", COLUMNS="120")
    assert printed.exit_code == 0
    [line] = [line for line in printed.stdout.splitlines() if "CARDFLOW_RETRY__CAP_S" in line]
    assert line.split()[:3] == ["CARDFLOW_RETRY__CAP_S", "7.0", "environment"]
    assert "CARDFLOW_EXPORTER__PROGRESS_INTERVAL_S" in printed.stdout
    assert "none" in printed.stdout


@pytest.mark.parametrize(
    ("name", "value"), [("CARDFLOW_RETRY__CAP_S", "soon"), ("CARDFLOW_STAGE1__CONCURRENCY", "0")]
)
def test_a_value_that_cannot_be_used_is_named_with_exit_code_2(name: str, value: str) -> None:
    printed = run(**{name: value})
    assert printed.exit_code == 2
    assert name in printed.stderr
    assert not printed.stdout
