"""Who begins when normal, urgent and bulk terms are in hand: in order, and without a clock."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from services.kernel import topology
from services.kernel.stream.lane_share import NORMAL_BEFORE_BULK, LaneShare

SOURCE = topology.accepted_subject("b1", "t1")
BULK = topology.lane_subject(SOURCE, "bulk")
URGENT = topology.lane_subject(SOURCE, "urgent")


@dataclass
class Message:
    """What the share looks at of a message. `num_pending`: so many more wait on its stream.

    `handed_back`: it was answered with a nak.
    """

    subject: str
    headers: dict[str, str] | None = None
    num_pending: int = 0
    handed_back: bool = False

    @property
    def metadata(self) -> Message:
        return self

    async def nak(self) -> None:
        self.handed_back = True


@dataclass
class Work:
    """Deliveries that end when they are told to."""

    begun: list[str] = field(default_factory=list)
    ends: list[asyncio.Event] = field(default_factory=list)

    async def __call__(self, message: Message) -> None:
        self.begun.append(message.subject)
        self.ends.append(asyncio.Event())
        await self.ends[-1].wait()

    def runs(self, subject: str) -> list[asyncio.Event]:
        """The ends of those that have not ended, the oldest first."""
        pairs = zip(self.begun, self.ends, strict=True)
        return [end for begun, end in pairs if begun == subject and not end.is_set()]

    def end(self, subject: str) -> None:
        self.runs(subject)[0].set()


class Stage:
    """A share with its work, and the messages that it was given."""

    def __init__(self, concurrency: int) -> None:
        self.work = Work()
        self.share = LaneShare(self.work, concurrency=concurrency)  # type: ignore[arg-type]
        self.tasks: list[asyncio.Task[None]] = []

    async def give(self, *subjects: str, num_pending: int = 0) -> None:
        for subject in subjects:
            await self.give_message(Message(subject, num_pending=num_pending))

    async def give_message(self, message: Message) -> None:
        self.tasks.append(asyncio.create_task(self.share(message)))  # type: ignore[arg-type]
        await settled()

    @property
    def begun(self) -> str:
        names = {SOURCE: "n", BULK: "b", URGENT: "u"}
        return "".join(names[subject] for subject in self.work.begun)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_bulk_takes_what_normal_leaves_free_and_no_more() -> None:
    stage = Stage(concurrency=3)
    await stage.give(BULK, SOURCE, BULK, BULK)
    assert stage.begun == "bnb"
    stage.work.end(BULK)
    await settled()
    assert stage.begun == "bnbb"
    await stage.close()


async def test_normal_and_urgent_terms_wait_for_no_bulk_one() -> None:
    stage = Stage(concurrency=2)
    await stage.give(BULK, BULK, BULK, SOURCE, URGENT, SOURCE)
    assert stage.begun == "bbnun"
    await stage.close()


async def test_behind_a_backlog_of_normal_terms_bulk_gets_one_in_ten() -> None:
    stage = Stage(concurrency=1)
    await stage.give(SOURCE, BULK, BULK, BULK, num_pending=99)
    for _ in range(4 * NORMAL_BEFORE_BULK):
        stage.work.end(SOURCE)
        await settled()  # The worker is about to fetch the next one.
        await stage.give(SOURCE, num_pending=99)
        if stage.work.runs(BULK):
            stage.work.end(BULK)
    first, *later, _rest = map(len, stage.begun.split("b"))
    assert (first, later) == (NORMAL_BEFORE_BULK, [NORMAL_BEFORE_BULK] * 2)
    await stage.close()


async def test_where_no_normal_term_comes_after_all_bulk_ones_begin() -> None:
    """Another replica had what was waiting."""
    stage = Stage(concurrency=1)
    await stage.give(SOURCE, num_pending=1)
    await stage.give(BULK)
    stage.work.end(SOURCE)
    await settled()
    assert stage.begun == "n"
    async with asyncio.timeout(10):
        while stage.begun != "nb":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await stage.close()


async def test_what_is_only_left_to_its_lane_counts_for_nobody() -> None:
    stage = Stage(concurrency=1)
    await stage.give(SOURCE, BULK)
    for _ in range(2 * NORMAL_BEFORE_BULK):
        left = Message(SOURCE, {topology.PRIORITY: "bulk"})
        await stage.give_message(left)
    assert "b" not in stage.begun
    await stage.close()


async def test_a_stop_hands_back_the_bulk_terms_that_wait() -> None:
    stage = Stage(concurrency=1)
    await stage.give(SOURCE)
    waiting = Message(BULK)
    await stage.give_message(waiting)
    await stage.share.close()
    await settled()
    assert waiting.handed_back
    assert stage.begun == "n"
    await stage.close()
