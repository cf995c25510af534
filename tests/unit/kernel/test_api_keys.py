"""Where a key comes from, and what is never taken for one."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.kernel.api_keys import FILE_MAX_BYTES, check_openrouter, find_key
from services.kernel.errors import SettingsError
from services.kernel.model_settings import ModelSettings, ProviderSettings
from services.kernel.provider_access import resolve_provider

KEY = "sk-or-v1-0123456789abcdef0123456789abcdef"
NAME = "CARDFLOW_PROVIDER__API_KEY"


def found(value: str | None = None, file: Path | None = None) -> str | None:
    key = find_key(SecretStr(value) if value is not None else None, file, name=NAME)
    return key.get_secret_value() if key else None


def refusal(value: str | None = None, file: Path | None = None) -> str:
    """The whole story of the refusal, its traceback too, in which no key may stand."""
    with pytest.raises(SettingsError) as refused:
        found(value, file)
    told = "".join(traceback.format_exception(refused.value, chain=True))
    for secret in (value, "0123456789abcdef"):
        assert not secret or secret.strip() not in told
    return str(refused.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "key"


@pytest.mark.parametrize("value", [None, "", "  ", "\n"])
def test_nothing_is_no_key(value: str | None) -> None:
    assert found(value) is None


@pytest.mark.parametrize("value", [KEY, f"  {KEY}\n", "none", "EMPTY", "sk-no-key-required", "a"])
def test_a_key_is_taken_as_it_stands(value: str) -> None:
    """A local server takes any, so a short one is no fault."""
    assert found(value) == value.strip()


PASTED = {
    f"Bearer {KEY}": "header",
    f"bearer {KEY}": "header",
    f"Authorization: Bearer {KEY}": "header",
    f'"{KEY}"': "quotes",
    f"'{KEY}'": "quotes",
    f'{KEY}"': "quotes",
    f"{KEY[:9]} {KEY[9:]}": "blanks",
    f"{KEY}\n{KEY}": "blanks",
    f"export OPENROUTER_API_KEY={KEY}": "blanks",
    "your-key": "placeholder",
    "sk-or-v1-your-api-key-here": "placeholder",
    "YOUR_API_KEY": "placeholder",
    "<key>": "placeholder",
    "$OPENROUTER_API_KEY": "placeholder",
    "${OPENROUTER_API_KEY}": "placeholder",
    "sk-or-...": "placeholder",
    "sk-or-v1-…": "placeholder",
    "changeme": "placeholder",
    "xxxxxxxx": "placeholder",
    "********": "placeholder",
    f"{KEY}\u200b": "no header takes",
    f"{KEY[:9]}\x00{KEY[9:]}": "no header takes",
    "열쇠": "no header takes",
}


@pytest.mark.parametrize(("pasted", "why"), PASTED.items(), ids=repr)
def test_what_people_paste_in_place_of_a_key_is_refused(pasted: str, why: str) -> None:
    assert why in refusal(pasted)
    assert NAME in refusal(pasted)


@pytest.mark.parametrize("raw", [f"{KEY}", f"{KEY}\n", f"\r\n  {KEY}\r\n\r\n", f"\ufeff{KEY}\n"])
def test_a_file_holds_its_key_in_one_line(raw: str, file: Path) -> None:
    file.write_bytes(raw.encode())
    assert found(None, file) == KEY
    assert found("  ", file) == KEY  # An empty variable is none.


UNFIT_FILES = {
    "empty": (b"", "0 lines"),
    "blank": (b" \n\n", "0 lines"),
    "two lines": (f"{KEY}\n{KEY}\n".encode(), "2 lines"),
    "a setting": (f"OPENROUTER_API_KEY = {KEY}".encode(), "blanks"),
    "quoted": (f'"{KEY}"'.encode(), "quotes"),
    "bytes": (b"\xff\xfe" + KEY.encode("utf-16-le"), "no header takes"),
    "too long": (KEY.encode() * 200, "expected one"),
}


@pytest.mark.parametrize(("raw", "why"), UNFIT_FILES.values(), ids=UNFIT_FILES)
def test_a_file_that_holds_something_else_is_refused(raw: bytes, why: str, file: Path) -> None:
    file.write_bytes(raw)
    assert why in refusal(None, file)
    assert f"{NAME}_FILE" in refusal(None, file)


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    assert str(file) in refusal(None, file)
    assert "No such file" in refusal(None, file)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "can't be read" in refusal(None, tmp_path)


def test_of_a_huge_file_only_the_beginning_is_read() -> None:
    assert "expected one" in refusal(None, Path("/dev/zero"))
    assert FILE_MAX_BYTES < 10_000


def test_a_key_in_two_places_is_refused(file: Path) -> None:
    file.write_text(KEY)
    assert "both set" in refusal(KEY, file)


@pytest.mark.parametrize(
    "key", ["sk-or-v1", "sk-or-v1-0123456789", KEY.removeprefix("sk-or-"), "k"]
)
def test_what_openrouter_never_gave_out_is_refused_with_its_length_alone(key: str) -> None:
    with pytest.raises(SettingsError, match=rf"has {len(key)} characters") as refused:
        check_openrouter(SecretStr(key))
    assert key == "k" or key not in str(refused.value)


def test_a_key_of_openrouter_passes() -> None:
    check_openrouter(SecretStr(KEY))
    check_openrouter(SecretStr("sk-or-v1-" + "0" * 64))


def test_both_providers_take_a_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(KEY + "\n")
    monkeypatch.chdir(file.parent)
    monkeypatch.setenv("OPENROUTER_API_KEY_FILE", str(file))
    chosen = ProviderSettings(kind="openrouter", model="m")
    assert _key(ModelSettings(provider=chosen)) == KEY
    monkeypatch.setenv("CARDFLOW_PROVIDER__API_KEY_FILE", str(file))
    monkeypatch.setenv("CARDFLOW_PROVIDER__KIND", "custom")
    monkeypatch.setenv("CARDFLOW_PROVIDER__BASE_URL", "http://gpu/v1")
    monkeypatch.setenv("CARDFLOW_PROVIDER__MODEL", "m")
    assert _key(ModelSettings()) == KEY


def _key(settings: ModelSettings) -> str | None:
    key = resolve_provider(settings).api_key
    return key.get_secret_value() if key else None
