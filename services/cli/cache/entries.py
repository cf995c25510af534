"""The entries of the cache: read one page after the other, chosen, and put in.

Nothing here holds more than a page of them, so that a million are as good as ten.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue
from pydantic import ValidationError

from services.kernel import topology
from services.kernel.contracts.cache import CachePurge
from services.kernel.errors import Outage, PermanentError, SettingsError
from services.kernel.llm.provider import Completion
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.stream.reading import messages_of

UNKNOWN: Final = "unknown"
"""What an entry of an earlier release does not say."""
STAGES: Final = {"analysis": "stage1", "cards": "stage2"}
"""The stage that asks, by the name of the prompt."""
STREAM: Final = f"KV_{topology.COMPLETIONS.name}"

_PREFIX: Final = f"$KV.{topology.COMPLETIONS.name}."
_KV_MARKER: Final = "KV-Operation"

Kept = Literal["kept", "present", "overwritten"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One completion in the cache; None where this release can't read it.

    `sequence` tells it from what is put in its place later, `size` is in bytes.
    """

    fingerprint: str
    sequence: int
    size: int
    stored_at: datetime
    completion: Completion | None

    @property
    def stage(self) -> str:
        return STAGES.get((self.completion and self.completion.prompt) or "", UNKNOWN)

    @property
    def model(self) -> str:
        return self.completion.model if self.completion else UNKNOWN

    @property
    def prompt_version(self) -> str:
        return (self.completion and self.completion.prompt_version) or UNKNOWN

    @property
    def kept_at(self) -> datetime:
        return (self.completion and self.completion.kept_at) or self.stored_at


@dataclass(frozen=True)
class Wanted:
    """Which entries a command is about; all, where nothing is said. Ages are counted from `now`."""

    stage: str | None = None
    model: str | None = None
    prompt_version: str | None = None
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def check(self) -> None:
        """Raises SettingsError for what no entry could match."""
        known = (*STAGES.values(), UNKNOWN)
        if self.stage is not None and self.stage not in known:
            raise SettingsError(f"no stage is named {self.stage!r}; use one of {', '.join(known)}")

    @property
    def is_everything(self) -> bool:
        chosen = (self.stage, self.model, self.prompt_version, self.older_than, self.newer_than)
        return all(each is None for each in chosen)

    def fits(self, entry: Entry) -> bool:
        age = self.now - entry.kept_at
        return (
            self.stage in (None, entry.stage)
            and self.model in (None, entry.model)
            and self.prompt_version in (None, entry.prompt_version)
            and (self.older_than is None or age > self.older_than)
            and (self.newer_than is None or age < self.newer_than)
        )

    def as_purge(self, at: datetime) -> CachePurge:
        """What goes on record when these are taken out."""
        return CachePurge(
            at=at,
            stage=self.stage,
            model=self.model,
            prompt_version=self.prompt_version,
            kept_before=None if self.older_than is None else self.now - self.older_than,
        )


async def count_entries(js: JetStreamContext) -> int:
    """How many there are to read, markers of deleted ones included."""
    return (await js.stream_info(STREAM)).state.messages


async def read_entries(
    js: JetStreamContext, wanted: Wanted, on_read: Callable[[], None] = lambda: None
) -> AsyncGenerator[Entry]:
    """The wanted ones, in the order in which they were put in."""
    async for message in messages_of(js, STREAM, f"{_PREFIX}>"):
        on_read()
        if _KV_MARKER in (message.headers or {}):
            continue
        entry = Entry(
            message.subject.removeprefix(_PREFIX),
            message.metadata.sequence.stream,
            len(message.data),
            message.metadata.timestamp,
            _read(message.data),
        )
        if wanted.fits(entry):
            yield entry


def _read(data: bytes) -> Completion | None:
    try:
        return Completion.model_validate_json(data)
    except ValidationError:
        return None


async def keep_all(
    js: JetStreamContext, pairs: Iterable[tuple[str, Completion]], *, overwrite: bool = False
) -> list[Kept | PermanentError]:
    """Puts a page of completions in, each under its fingerprint; what became of each.

    One that is there stays, unless `overwrite`. Raises Outage when the bucket is away or full.
    """
    bucket = await js.key_value(topology.COMPLETIONS.name)
    return list(await asyncio.gather(*(_keep(bucket, *pair, overwrite) for pair in pairs)))


async def _keep(
    bucket: KeyValue, fingerprint: str, completion: Completion, overwrite: bool
) -> Kept | PermanentError:
    try:
        return await _kept(bucket, fingerprint, completion.to_bytes(), overwrite)
    except nats.errors.MaxPayloadError:
        return PermanentError("larger than the server takes", reason="too_large")
    except APIError as error:
        raise Outage(
            f"the cache refuses more ({error.description}); what went in before stays. If it is "
            "full, raise CARDFLOW_NATS__STREAM_MAX_MIB, run `cardflow provision`, and try again"
        ) from error
    except NATS_FAULTS as error:
        raise Outage(f"the cache can't be written: {error!r}; try again") from error


async def _kept(bucket: KeyValue, fingerprint: str, data: bytes, overwrite: bool) -> Kept:
    try:
        await bucket.create(fingerprint, data)
    except KeyWrongLastSequenceError:
        if not overwrite:
            return "present"
    except KeyNotFoundError:  # Taken out while the client looked what was there.
        pass
    else:
        return "kept"
    await bucket.put(fingerprint, data)
    return "overwritten"
