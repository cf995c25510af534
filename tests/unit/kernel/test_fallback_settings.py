"""Whom to ask in place of the first: in which order, and with whose key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.cli.commands.settings import every_setting
from services.kernel.errors import SettingsError
from services.kernel.model_settings import ModelSettings, ProviderSettings
from services.kernel.provider_access import resolve_fallbacks, resolve_provider

KEY = "sk-other-0123456789"


def settings(**chosen: Any) -> ModelSettings:
    provider = {"kind": "custom", "base_url": "http://one/v1", "model": "a", **chosen}
    return ModelSettings(provider=ProviderSettings.model_validate(provider))


def resolved(**chosen: Any) -> list[tuple[str, str, str | None, float]]:
    of = settings(**chosen)
    return [
        (
            access.base_url,
            access.model,
            access.api_key and access.api_key.get_secret_value(),
            limit,
        )
        for access, limit in resolve_fallbacks(of, resolve_provider(of))
    ]


def test_without_any_there_is_none() -> None:
    assert resolved() == []


def test_other_models_come_first_and_share_the_key_then_other_providers_with_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTHER_KEY", f" {KEY}\n")
    file = tmp_path / "key"
    file.write_text(f"{KEY}-2\n")
    assert resolved(
        api_key="first-key",
        fallback_models=["b", "c"],
        fallbacks=[
            {"base_url": "http://two/v1", "model": "d", "api_key_env": "OTHER_KEY"},
            {
                "base_url": "http://three/v1",
                "model": "e",
                "api_key_file": str(file),
                "requests_per_minute": 60,
            },
            {"base_url": "http://four/v1", "model": "f"},
        ],
    ) == [
        ("http://one/v1", "b", "first-key", 0),
        ("http://one/v1", "c", "first-key", 0),
        ("http://two/v1", "d", KEY, 0),
        ("http://three/v1", "e", f"{KEY}-2", 60),
        ("http://four/v1", "f", None, 0),
    ]


def test_they_are_written_as_json_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARDFLOW_PROVIDER__FALLBACK_MODELS", '["b"]')
    monkeypatch.setenv(
        "CARDFLOW_PROVIDER__FALLBACKS", '[{"base_url": "http://two/v1", "model": "d"}]'
    )
    of = ModelSettings().provider
    assert of.fallback_models == ("b",)
    assert of.fallbacks[0].model == "d"


def test_the_stage_s_own_model_is_no_fallback_of_itself() -> None:
    assert resolved(fallback_models=["a", "b"]) == [("http://one/v1", "b", None, 0)]


@pytest.mark.parametrize(
    ("chosen", "hint"),
    [
        ({"fallback_models": ["b", "b"]}, "named twice"),
        ({"fallbacks": [{"base_url": "u", "model": "m", "api_key_env": "NO_SUCH"}]}, "NO_SUCH"),
        ({"fallbacks": [{"base_url": "u", "model": "m", "api_key_file": "/no/such"}]}, "/no/such"),
        (
            {
                "fallbacks": [
                    {"base_url": "u", "model": "m", "api_key_env": "A", "api_key_file": "b"}
                ]
            },
            "name one",
        ),
    ],
    ids=repr,
)
def test_half_a_choice_is_refused_and_says_what_is_missing(
    chosen: dict[str, Any], hint: str
) -> None:
    with pytest.raises(SettingsError, match=hint):
        resolved(**chosen)


def test_the_list_of_settings_shows_where_a_key_is_and_no_password_of_an_address() -> None:
    of = settings(
        fallbacks=[{"base_url": "http://me:secret@two/v1", "model": "d", "api_key_env": "K"}]
    )
    (setting,) = [each for each in every_setting() if each.path == ("provider", "fallbacks")]
    (shown,) = setting.plain(of.provider.fallbacks)
    assert shown["api_key_env"] == "K"
    assert "secret" not in str(shown)
