"""`cardflow doctor`: what each check makes of what it sees, and that no pipeline is no fault."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import Result
from pydantic import SecretStr
from typer.testing import CliRunner

from services.cli.commands.doctor import machine_findings, open_files_limit
from services.cli.machine.machine_checks import (
    Finding,
    check_disk,
    check_encoding,
    check_open_files,
    check_provider,
    check_python,
    check_server_binary,
)
from services.cli.machine.nats_server import binary
from services.cli.machine.pipeline_checks import check_nats
from services.cli.main import cli
from services.kernel.errors import SettingsError
from services.kernel.model_settings import ModelSettings, ProviderSettings

MIB = 1024 * 1024
KEY = "sk-or-very-secret"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith("CARDFLOW_") or name.upper() == "OPENROUTER_API_KEY":
            monkeypatch.delenv(name)


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, ["doctor", *arguments], env=environment)


FINDINGS = [
    (check_python((3, 10, 9)), "fail"),
    (check_python((3, 11, 0)), "ok"),
    (check_python((4, 0, 0)), "ok"),
    (check_disk("data", 255 * MIB), "fail"),
    (check_disk("data", 256 * MIB), "warn"),
    (check_disk("data", 2048 * MIB), "ok"),
    (check_open_files(255), "fail"),
    (check_open_files(256), "warn"),
    (check_open_files(1024), "ok"),
    (check_open_files(None), "ok"),
    (check_encoding("UTF-8"), "ok"),
    (check_encoding("utf8"), "ok"),
    (check_encoding("ANSI_X3.4-1968"), "warn"),
    (check_encoding("cp949"), "warn"),
]


@pytest.mark.parametrize(("finding", "verdict"), FINDINGS, ids=lambda value: str(value)[:60])
def test_each_check_judges_and_advises(finding: Finding, verdict: str) -> None:
    assert finding.verdict == verdict
    assert bool(finding.advice) == (verdict != "ok")


def test_the_shipped_server_answers_with_its_version() -> None:
    finding = check_server_binary(binary)
    assert finding.verdict == "ok"
    assert finding.seen.startswith("nats-server: v")


def test_a_server_that_is_missing_or_does_not_run_fails(tmp_path: Path) -> None:
    def missing() -> str:
        raise SettingsError("nats-server was not found: make install")

    assert check_server_binary(missing).advice == "nats-server was not found: make install"
    assert check_server_binary(lambda: str(tmp_path / "none")).verdict == "fail"
    broken = tmp_path / "nats-server"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    assert "does not run" in check_server_binary(lambda: str(broken)).seen


def test_a_provider_is_named_without_its_key() -> None:
    chosen = ProviderSettings(
        kind="custom", base_url="https://llm/v1", model="m", api_key=SecretStr(KEY)
    )
    finding = check_provider(lambda: ModelSettings(provider=chosen))
    assert (finding.verdict, finding.seen) == ("ok", "custom: m at https://llm/v1, with a key")


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    chosen = ProviderSettings(kind="custom", base_url=f"https://me:{KEY}@llm/v1", model="m")
    finding = check_provider(lambda: ModelSettings(provider=chosen))
    assert finding.verdict == "fail"
    assert "holds credentials" in finding.seen
    assert KEY not in finding.seen


def test_half_a_choice_of_provider_fails() -> None:
    half = ProviderSettings(kind="openrouter", model="m")
    finding = check_provider(lambda: ModelSettings(provider=half, openrouter_api_key=None))
    assert finding.verdict == "fail"
    assert "OPENROUTER_API_KEY" in finding.seen


def test_the_machine_is_looked_at_for_a_folder_that_is_yet_to_be(tmp_path: Path) -> None:
    found = {f.name: f for f in machine_findings(tmp_path / "not" / "yet")}
    assert "MiB free" in found["disk"].seen
    limit = open_files_limit()
    assert limit is None or limit > 0


def test_without_a_pipeline_its_checks_are_skipped_and_all_is_well() -> None:
    printed = run("--json")
    answer = json.loads(printed.stdout)
    verdicts = {check["name"]: check["verdict"] for check in answer["checks"]}
    assert printed.exit_code == 0
    assert answer["healthy"]
    assert all(verdicts[n] == "skipped" for n in ("nats", "jetstream", "topology", "dead letters"))


def test_a_pipeline_that_was_named_and_is_not_there_fails() -> None:
    printed = run("--data", "nowhere")
    assert printed.exit_code == 1
    assert "does not exist" in printed.stdout
    both = run("--data", "nowhere", "--nats", "nats://127.0.0.1:1", "--json")
    assert "not both" in json.loads(both.stdout)["checks"][-5]["seen"]


def test_unusable_settings_are_a_finding_not_a_crash() -> None:
    printed = run("--json", CARDFLOW_PROVIDER__TIMEOUT_S="soon")
    found = {check["name"]: check for check in json.loads(printed.stdout)["checks"]}
    assert printed.exit_code == 1
    assert "CARDFLOW_PROVIDER__TIMEOUT_S" in found["provider settings"]["seen"]


async def test_a_server_that_is_away_fails_and_skips_what_needs_it() -> None:
    verdicts = [finding.verdict for finding in await check_nats("nats://127.0.0.1:1")]
    assert verdicts == ["fail", *["skipped"] * 4]
