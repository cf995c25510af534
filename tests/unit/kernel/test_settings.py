"""Settings: where they come from, what is refused, and that no secret is ever shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.exporter.settings import ExporterSettings
from services.kernel.errors import SettingsError
from services.kernel.model_settings import ModelSettings, ProviderSettings
from services.kernel.provider_access import (
    OPENROUTER_URL,
    SIMULATED_MODEL,
    SIMULATOR_URL,
    is_loopback,
    resolve_provider,
)
from services.kernel.settings import KernelSettings, load_settings
from services.stage1.settings import Stage1Settings

KEY = "sk-or-v1-very-secret-0123456789"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith("CARDFLOW_") or name.upper().startswith("OPENROUTER_"):
            monkeypatch.delenv(name)


def with_provider(*, openrouter_key: str | None = None, **provider: object) -> ModelSettings:
    return ModelSettings(
        provider=ProviderSettings.model_validate(provider),
        openrouter_api_key=SecretStr(openrouter_key) if openrouter_key is not None else None,
    )


RESOLVED = [
    # chosen, (kind, base_url, model, key)
    ({}, ("simulated", SIMULATOR_URL, SIMULATED_MODEL, None)),
    ({"openrouter_key": KEY}, ("simulated", SIMULATOR_URL, SIMULATED_MODEL, None)),
    (
        {"base_url": "http://localhost:9/v1", "model": "m"},
        ("simulated", "http://localhost:9/v1", "m", None),
    ),
    (
        {"kind": "openrouter", "model": "m/1", "openrouter_key": KEY},
        ("openrouter", OPENROUTER_URL, "m/1", KEY),
    ),
    (
        {"kind": "openrouter", "model": "m", "openrouter_key": KEY, "base_url": "https://eu/v1"},
        ("openrouter", "https://eu/v1", "m", KEY),
    ),
    (
        {"kind": "custom", "base_url": "http://gpu:8000/v1", "model": "m"},
        ("custom", "http://gpu:8000/v1", "m", None),
    ),
    (
        {"kind": "custom", "base_url": "http://gpu/v1", "model": "m", "api_key": "local-key"},
        ("custom", "http://gpu/v1", "m", "local-key"),
    ),
    (
        {"kind": "custom", "base_url": "http://gpu/v1", "model": "m", "openrouter_key": KEY},
        ("custom", "http://gpu/v1", "m", None),
    ),
]


@pytest.mark.parametrize(("chosen", "expected"), RESOLVED, ids=repr)
def test_the_provider_is_the_one_that_was_chosen(
    chosen: dict[str, str], expected: tuple[str, str, str, str | None]
) -> None:
    access = resolve_provider(with_provider(**chosen))
    key = access.api_key.get_secret_value() if access.api_key else None
    assert (access.kind, access.base_url, access.model, key) == expected


@pytest.mark.parametrize(
    ("chosen", "hint"),
    [
        ({"kind": "openrouter", "model": "m"}, "OPENROUTER_API_KEY"),
        ({"kind": "openrouter", "model": "m", "openrouter_key": "  "}, "OPENROUTER_API_KEY"),
        ({"kind": "openrouter", "model": "m", "api_key": KEY}, "OPENROUTER_API_KEY"),
        ({"kind": "openrouter", "openrouter_key": KEY}, "--model"),
        ({"kind": "custom", "model": "m"}, "--base-url"),
        ({"kind": "custom", "base_url": "http://gpu/v1"}, "--model"),
        ({"kind": "custom", "base_url": "", "model": "m"}, "--base-url"),
        ({"base_url": "https://openrouter.ai/api/v1"}, "--base-url"),
        ({"base_url": "http://192.168.0.7:8790/v1"}, "on this machine"),
    ],
    ids=repr,
)
def test_half_a_choice_is_refused_and_says_what_is_missing(
    chosen: dict[str, str], hint: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        resolve_provider(with_provider(**chosen))
    assert hint in str(refused.value)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8790/api/v1", True),
        ("http://127.8.8.8/", True),
        ("http://[::1]:80/", True),
        ("http://localhost:1/", True),
        ("http://LOCALHOST:1/", True),
        ("http://localhost.example.com/", False),
        ("http://127.0.0.1.example.com/", False),
        ("http://127.0.0.1@example.com/", False),
        ("http://0.0.0.0/", False),
        ("http://10.0.0.1/", False),
        ("http://[fe80::1]/", False),
        ("127.0.0.1:8790", False),
        ("", False),
    ],
)
def test_loopback_is_told_by_the_host_alone(url: str, loopback: bool) -> None:
    assert is_loopback(url) is loopback


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CARDFLOW_NATS__REPLICAS", "9"),
        ("CARDFLOW_NATS__ACK_WAIT_S", "soon"),
        ("CARDFLOW_LOG__LEVEL", "loud"),
        ("CARDFLOW_RETRY__MAX_ATTEMPTS", "0"),
        ("CARDFLOW_GRACE_S", "-1"),
        ("CARDFLOW_PROVIDER__KIND", "openai"),
        ("CARDFLOW_STAGE1__CONCURRENCY", "0"),
    ],
)
def test_a_wrong_value_is_refused_under_the_name_of_its_variable(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=rf"{variable}: "):
        load_settings(Stage1Settings)


def test_every_wrong_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARDFLOW_GRACE_S", "0")
    monkeypatch.setenv("CARDFLOW_HTTP__PORT", "70000")
    with pytest.raises(SettingsError) as refused:
        load_settings(KernelSettings)
    assert "CARDFLOW_GRACE_S: " in str(refused.value)
    assert "CARDFLOW_HTTP__PORT: " in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CARDFLOW_PROVIDER", f'"{KEY}"'),
        ("CARDFLOW_PROVIDER", KEY),
        ("CARDFLOW_PROVIDER__KIND", KEY),
        ("CARDFLOW_PROVIDER__TIMEOUT_S", KEY),
    ],
)
def test_a_refused_secret_is_not_shown_anywhere(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refused:
        load_settings(ModelSettings)
    assert "PROVIDER" in str(refused.value).upper()
    error: BaseException | None = refused.value
    while error is not None:
        assert KEY not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_key_does_not_show_when_the_settings_are_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    monkeypatch.setenv("CARDFLOW_PROVIDER__API_KEY", KEY)
    settings = load_settings(ModelSettings)
    assert settings.openrouter_api_key is not None
    assert settings.openrouter_api_key.get_secret_value() == KEY
    assert KEY not in f"{settings!r} {settings} {settings.model_dump()}"
    assert KEY not in settings.model_dump_json()


def test_a_list_that_is_no_json_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARDFLOW_EXPORTER__DECK_FORMATS", "apkg")
    with pytest.raises(SettingsError, match=r"exporter.*JSON"):
        load_settings(ExporterSettings)


def test_dot_env_is_read_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(
        "# a comment\n"
        "CARDFLOW_NATS__URL=nats://file:4222\n"
        "CARDFLOW_NATS__REPLICAS=3\n"
        f"OPENROUTER_API_KEY={KEY}\n"
        "SOMETHING_ELSE=1\n"
    )
    monkeypatch.setenv("CARDFLOW_NATS__URL", "nats://environment:4222")
    settings = load_settings(ModelSettings)
    assert settings.nats.url == "nats://environment:4222"
    assert settings.nats.replicas == 3
    assert settings.openrouter_api_key is not None
    assert settings.openrouter_api_key.get_secret_value() == KEY


def test_without_any_of_it_the_defaults_serve_one_machine_offline() -> None:
    settings = load_settings(ModelSettings)
    assert settings.nats.url == "nats://127.0.0.1:4222"
    assert resolve_provider(settings).kind == "simulated"
