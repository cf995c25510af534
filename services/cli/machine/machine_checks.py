"""What `doctor` looks at on this machine; facts in, findings out."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from services.kernel.errors import SettingsError
from services.kernel.model_settings import ModelSettings
from services.kernel.provider_access import resolve_provider
from services.kernel.topology import MIB

Verdict = Literal["ok", "warn", "fail", "skipped"]

OLDEST_PYTHON: Final = (3, 11)
FREE_MIB: Final = 256
"""The demo takes some 20 MiB; below this a batch of some thousand terms can fill the disk."""
AMPLE_FREE_MIB: Final = 2048
"""Room for 100,000 terms: their streams, the cache and the store."""
OPEN_FILES: Final = 256
AMPLE_OPEN_FILES: Final = 1024
"""A stage holds a connection for each call in flight, and nats-server a few files a stream."""

_SERVER_S: Final = 10.0
_CREDENTIALS: Final = re.compile(r"(?<=://)[^/@\s]+(?=@)")


@dataclass(frozen=True)
class Finding:
    """One check: what was seen, and what to do about it unless it is ok."""

    name: str
    verdict: Verdict
    seen: str
    advice: str = ""


def check_python(version: tuple[int, ...]) -> Finding:
    seen = ".".join(map(str, version[:3]))
    if version[:2] >= OLDEST_PYTHON:
        return Finding("python", "ok", seen)
    return Finding("python", "fail", seen, "install Python 3.11 or newer")


def check_server_binary(find: Callable[[], str]) -> Finding:
    """The embedded nats-server, asked for its version."""
    name = "nats-server binary"
    try:
        path = find()
        answer = subprocess.run(  # noqa: S603
            [path, "--version"], capture_output=True, text=True, timeout=_SERVER_S, check=True
        )
    except SettingsError as error:
        return Finding(name, "fail", "not found", str(error))
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(name, "fail", f"{path} does not run: {error}", "install it anew")
    return Finding(name, "ok", f"{answer.stdout.strip()} at {path}")


def check_disk(folder: str, free_bytes: int) -> Finding:
    free_mib = free_bytes // MIB
    seen = f"{free_mib:,} MiB free for {folder}"
    advice = "free some space, or choose another folder with --data"
    if free_mib < FREE_MIB:
        return Finding("disk", "fail", seen, advice)
    if free_mib < AMPLE_FREE_MIB:
        return Finding("disk", "warn", seen, f"enough for small batches; {advice}")
    return Finding("disk", "ok", seen)


def check_open_files(limit: int | None) -> Finding:
    """`limit` of None: there is none."""
    if limit is None:
        return Finding("open files", "ok", "no limit")
    seen = f"at most {limit:,}"
    if limit < OPEN_FILES:
        return Finding("open files", "fail", seen, f"raise it: ulimit -n {AMPLE_OPEN_FILES}")
    if limit < AMPLE_OPEN_FILES:
        advice = f"raise it for a high concurrency: ulimit -n {AMPLE_OPEN_FILES}"
        return Finding("open files", "warn", seen, advice)
    return Finding("open files", "ok", seen)


def check_encoding(encoding: str) -> Finding:
    if encoding.lower().replace("-", "") == "utf8":
        return Finding("encoding", "ok", encoding)
    advice = "Korean would be printed wrongly; set LANG=C.UTF-8 or PYTHONUTF8=1"
    return Finding("encoding", "warn", encoding, advice)


def check_provider(load: Callable[[], ModelSettings]) -> Finding:
    """Whether the settings name a provider that could be asked. Asks nobody; shows no key."""
    try:
        access = resolve_provider(load())
    except SettingsError as error:
        return Finding("provider settings", "fail", str(error), "see `cardflow settings`")
    key = ", with a key" if access.api_key else ""
    url = _CREDENTIALS.sub("***", access.base_url)
    return Finding("provider settings", "ok", f"{access.kind}: {access.model} at {url}{key}")
