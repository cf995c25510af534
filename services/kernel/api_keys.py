"""A provider's key: from a setting or from a file, and looked at before it is used.

No message here shows any part of a key.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from services.kernel.errors import SettingsError

FILE_MAX_BYTES: Final = 4_096
"""A key has some 100 characters; a longer file is not one."""

OPENROUTER_PREFIX: Final = "sk-or-"
OPENROUTER_MIN_CHARACTERS: Final = 24
"""Today's have 73; a key that was cut off in the middle shows at the first call at the latest."""

_PLACEHOLDER: Final = re.compile(
    r"<.*>|\$.*|.*\.\.\..*|.*….*|.*your[-_ ]?(own[-_ ]?)?(api[-_ ]?)?key.*|change[-_ ]?me"
    r"|x{4,}|\*{4,}",
    re.IGNORECASE | re.DOTALL,
)


def find_key(value: SecretStr | None, file: Path | None, *, name: str) -> SecretStr | None:
    """The key in a setting `name` or in the file that `name`_FILE names; None without one.

    Raises SettingsError for both at once, a file that can't be read or holds more than one line,
    and for what nobody was ever given as a key.
    """
    given = value.get_secret_value().strip() if value is not None else ""
    if file is not None:
        if given:
            raise SettingsError(f"{name} and {name}_FILE are both set; keep one of them")
        given, name = _read(file, name), f"the file of {name}_FILE"
    if not given:
        return None
    if fault := _fault(given):
        raise SettingsError(f"{name} is no key: {fault}; copy the key again, and nothing else")
    return SecretStr(given)


def check_openrouter(key: SecretStr) -> None:
    """Raises SettingsError for what can't be a key of openrouter.ai."""
    text = key.get_secret_value()
    if not text.startswith(OPENROUTER_PREFIX) or len(text) < OPENROUTER_MIN_CHARACTERS:
        raise SettingsError(
            f"the key for openrouter has {len(text)} characters; expected {OPENROUTER_PREFIX}… "
            f"with at least {OPENROUTER_MIN_CHARACTERS}: copy the whole key from "
            "openrouter.ai/settings/keys"
        )


def _read(file: Path, name: str) -> str:
    try:
        with file.open("rb") as opened:
            raw = opened.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(
            f"{name}_FILE names {file}, which can't be read: {error.strerror}"
        ) from None
    lines = [line.strip() for line in raw.decode("utf-8-sig", "replace").splitlines()]
    found = [line for line in lines if line]
    if len(found) != 1 or len(raw) > FILE_MAX_BYTES:
        raise SettingsError(
            f"{name}_FILE names {file}, which holds {len(found)} lines of text; "
            "expected one, the key"
        )
    return found[0]


def _fault(key: str) -> str | None:
    """What people paste in place of a key. A short one is none: local servers take any."""
    if key.lower().startswith(("bearer ", "authorization:")):
        return "it begins as a header does"
    if key[0] in "\"'`" or key[-1] in "\"'`":
        return "it stands in quotes"
    if _PLACEHOLDER.fullmatch(key):
        return "it is a placeholder"
    if any(character.isspace() for character in key):
        return "there are blanks in it"
    if not (key.isascii() and key.isprintable()):
        return "it holds characters that no header takes"
    return None
