"""Taking completions out of the cache, so that they are asked for and paid for again.

The purge goes on record first: the audit then knows why a completion was paid for twice. What has a
claim is left: somebody asks for it, or has just been answered and may have yet to publish.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from nats.js import JetStreamContext

from services.cli.cache.entries import STREAM, Entry, Wanted, read_entries
from services.cli.cache.figures import Census, take_census
from services.kernel import topology
from services.kernel.contracts.cache import CachePurge, CachePurges
from services.kernel.errors import Outage
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.record import Record
from services.kernel.stream.reading import last_message, subjects_of

RECORD: Final = "cache.purges"
"""The key of all purges in FLEET."""

_PAGE: Final = 100
_PURGES_MAX: Final = 1_000


@dataclass
class Purged:
    """What a purge came to. `claimed` were left, since somebody is at work on them."""

    removed: int = 0
    claimed: int = 0

    def as_json(self) -> dict[str, Any]:
        return {"removed": self.removed, "claimed": self.claimed}


async def look(js: JetStreamContext, wanted: Wanted) -> tuple[Census, int]:
    """What a purge would take out, and up to which place of the stream."""
    up_to = (await js.stream_info(STREAM)).state.last_seq
    return await take_census(js, wanted), up_to


async def purge(
    js: JetStreamContext, wanted: Wanted, *, up_to: int, on_removed: Callable[[], None]
) -> Purged:
    """Takes out the wanted entries up to a place of the stream. Raises Outage.

    An entry that is put in its place meanwhile stays. Broken off, it is ended by repeating it.
    """
    await _note(js, wanted.as_purge(datetime.now(UTC)))
    claims = f"$KV.{topology.CLAIMS.name}."
    claimed = {
        subject.removeprefix(claims)
        for subject in await subjects_of(js, f"KV_{topology.CLAIMS.name}", f"{claims}>")
    }
    purged = Purged()
    page: list[Entry] = []
    async with aclosing(read_entries(js, wanted)) as entries:
        async for entry in entries:
            if entry.sequence > up_to:
                break
            if entry.fingerprint in claimed:
                purged.claimed += 1
                continue
            page.append(entry)
            if len(page) >= _PAGE:
                purged.removed += await _remove(js, page, on_removed)
                page.clear()
    purged.removed += await _remove(js, page, on_removed)
    return purged


async def _remove(js: JetStreamContext, page: list[Entry], on_removed: Callable[[], None]) -> int:
    removed = await asyncio.gather(*(_remove_one(js, entry) for entry in page))
    for _ in page:
        on_removed()
    return sum(removed)


async def _remove_one(js: JetStreamContext, entry: Entry) -> int:
    """Up to its place in the stream: no marker stays behind, and a newer one is not touched."""
    subject = f"$KV.{topology.COMPLETIONS.name}.{entry.fingerprint}"
    request = json.dumps({"filter": subject, "seq": entry.sequence + 1}).encode()
    try:
        answer = await js._api_request(f"{js._prefix}.STREAM.PURGE.{STREAM}", request)  # noqa: SLF001
    except NATS_FAULTS as error:
        raise Outage(f"the cache can't be changed: {error!r}; try again") from error
    return int(answer.get("purged", 0))


async def _note(js: JetStreamContext, one: CachePurge) -> None:
    record = Record(await js.key_value(topology.FLEET.name), RECORD, CachePurges())

    def noted(purges: CachePurges) -> CachePurges:
        if one in purges.purges:
            return purges
        return CachePurges(purges=(*purges.purges, one)[-_PURGES_MAX:])

    await record.change(noted)


async def read_purges(js: JetStreamContext) -> tuple[CachePurge, ...]:
    """All that were made, oldest first."""
    bucket = topology.FLEET.name
    data = await last_message(js, f"KV_{bucket}", f"$KV.{bucket}.{RECORD}")
    return CachePurges.model_validate_json(data).purges if data else ()
