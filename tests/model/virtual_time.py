"""An event loop whose clock only waiting moves: minutes of backoff take no time at all.

When nothing is ready, the loop does not wait for its next timer: it sets its clock to it. So
`asyncio.sleep`, `asyncio.timeout`, `loop.call_later` and `loop.time` all follow one clock, and the
order of events is the same in every run. There are no files, sockets or threads in such a loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stalled(AssertionError):
    """Somebody waits for what nothing is going to bring about."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Starts at 0 s. Its own selector: `select` is where a real loop would wait."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._selector = self

    def time(self) -> float:
        return self._now_s

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stalled("nothing is ready and no timer is set: this would wait for ever")
        if timeout > 0:
            self._now_s = max(self._now_s, self._scheduled[0].when())
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none: nothing outside of the process takes part."""

    def _write_to_self(self) -> None:
        """Wakes a selector that waits; ours never does."""

    def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` to its end, and meanwhile whatever else is due."""
        return self.run_until_complete(work)

    def run_for(self, seconds: float) -> None:
        self.run_until_complete(asyncio.sleep(seconds))

    def shut(self) -> None:
        """Cancels what still runs, and closes."""
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run_until_complete(asyncio.wait(tasks))
        self.run_until_complete(self.shutdown_asyncgens())
        self.close()
