"""The embedded server's storage: restarted once there is room, not before, and not in a loop."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.cli.machine.storage import Storage
from services.kernel.topology import MIB

FAULT = "stream 'TERMS' write error: no space left on device"
GIB = 1024 * MIB


class Machine:
    """A server and a disk of which a test says how they are."""

    def __init__(self) -> None:
        self.fault: str | None = None
        self.size, self.free = 100 * GIB, 50 * GIB
        self.now = 1000.0
        self.restarts: list[float] = []
        self.helps = True
        self.storage = Storage(
            self.write_fault,
            self.restart,
            folder=Path(),
            room=lambda _folder: (self.size, self.free),
            clock=lambda: self.now,
        )

    async def write_fault(self) -> str | None:
        return self.fault

    async def restart(self) -> None:
        self.restarts.append(self.now)
        if self.helps:
            self.fault = None

    async def look_for(self, seconds: int) -> None:
        for _ in range(seconds):
            await self.storage.is_sound()
            self.now += 1


async def test_a_server_that_writes_is_left_alone() -> None:
    machine = Machine()
    machine.free = 0
    assert await machine.storage.is_sound()
    assert machine.restarts == []


@pytest.mark.parametrize(
    ("size", "free", "restarts"),
    [
        (100 * GIB, 255 * MIB, 0),
        (100 * GIB, 256 * MIB, 1),
        (100 * MIB, 4 * MIB, 0),
        (100 * MIB, 5 * MIB, 1),
    ],
)
async def test_it_is_restarted_once_a_twentieth_or_256_mib_are_free(
    size: int, free: int, restarts: int
) -> None:
    machine = Machine()
    machine.fault, machine.size, machine.free = FAULT, size, free
    assert not await machine.storage.is_sound()
    assert len(machine.restarts) == restarts


async def test_a_fault_is_told_once_the_restart_with_its_reason_and_the_end() -> None:
    machine = Machine()
    machine.fault, machine.free = FAULT, 0
    with capture_logs() as logs:
        await machine.look_for(30)
        machine.free = 50 * GIB
        await machine.look_for(3)
    assert [line["event"] for line in logs] == [
        "storage.failed",
        "nats.restarted",
        "storage.mended",
    ]
    assert logs[0]["error"] == logs[1]["error"] == FAULT
    assert "256 MiB are free" in logs[0]["hint"]
    assert await machine.storage.is_sound()


async def test_restarts_that_do_not_help_come_ever_more_rarely() -> None:
    machine = Machine()
    machine.fault, machine.helps = FAULT, False
    await machine.look_for(3600)
    gaps = [later - earlier for earlier, later in pairwise(machine.restarts)]
    assert gaps[:3] == [10, 20, 40]
    assert gaps == sorted(gaps)
    assert max(gaps) == 600
    assert len(machine.restarts) < 15


async def test_after_a_long_sound_time_the_next_fault_is_mended_at_once() -> None:
    machine = Machine()
    for _ in range(2):
        machine.fault = FAULT
        await machine.look_for(5)
        assert machine.fault is None
        await machine.look_for(1200)
    assert len(machine.restarts) == 2
