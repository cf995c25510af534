"""Group commit: one transaction for what arrived meanwhile, and each waits for its own fate."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from card_samples import finished

from services.exporter.writer import GROUP_MAX, running_writer
from services.kernel.contracts.card import CardsFinished
from services.kernel.errors import Outage, TransientError


class FakeStore:
    """Keeps the groups it was given; `trouble` is raised once each."""

    def __init__(self, *trouble: Exception) -> None:
        self.groups: list[int] = []
        self._trouble = list(trouble)

    async def put(self, events: Sequence[CardsFinished]) -> None:
        self.groups.append(len(events))
        await asyncio.sleep(0)
        if self._trouble:
            raise self._trouble.pop(0)


async def test_what_arrives_together_is_one_transaction() -> None:
    store, told = FakeStore(), []
    async with running_writer(store, told.append) as writer:  # type: ignore[arg-type]
        await asyncio.gather(*(writer.put(finished()) for _ in range(50)))
    assert sum(store.groups) == 50
    assert len(store.groups) <= 2
    assert set(told) == {None}


async def test_a_group_is_bounded() -> None:
    store = FakeStore()
    async with running_writer(store, lambda _reason: None) as writer:  # type: ignore[arg-type]
        await asyncio.gather(*(writer.put(finished()) for _ in range(3 * GROUP_MAX)))
    assert max(store.groups) <= GROUP_MAX


async def test_a_store_that_is_away_is_an_outage_for_all_that_wait_and_told() -> None:
    store, told = FakeStore(TransientError("locked")), []
    async with running_writer(store, told.append) as writer:  # type: ignore[arg-type]
        results = await asyncio.gather(
            *(writer.put(finished()) for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(result, Outage) for result in results)
        await writer.put(finished())
    assert told == ["locked", None]


async def test_an_unexpected_error_reaches_who_waits_and_the_writer_goes_on() -> None:
    store = FakeStore(ValueError("a bug"))
    async with running_writer(store, lambda _reason: None) as writer:  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="a bug"):
            await writer.put(finished())
        await writer.put(finished())
    assert store.groups == [1, 1]


async def test_who_gave_up_waiting_does_not_disturb_the_others() -> None:
    store = FakeStore()
    async with running_writer(store, lambda _reason: None) as writer:  # type: ignore[arg-type]
        impatient = asyncio.ensure_future(writer.put(finished()))
        patient = asyncio.ensure_future(writer.put(finished()))
        await asyncio.sleep(0)
        impatient.cancel()
        await patient
    assert sum(store.groups) == 2
