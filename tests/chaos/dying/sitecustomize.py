"""Makes a service kill its own process at a named point, so often as it is told to.

Python imports this at its start when the folder is on PYTHONPATH. It acts only in `run SERVICE`
with DYING_AT naming a folder: a file SERVICE.POINT in it says how many more deaths are wanted. The
files outlive the process, so that a service that is started again knows when to behave.

The seams are wrapped from outside; the services know nothing of it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

SERVICES = ("ingest", "stage1", "stage2", "exporter")


def die(service: str, point: str, folder: Path) -> None:
    """Ends this process here and now, when a death at this point is still wanted."""
    wanted = folder / f"{service}.{point}"
    left = int(wanted.read_text()) if wanted.is_file() else 0
    if left > 0:
        wanted.write_text(str(left - 1))
        os.kill(os.getpid(), signal.SIGKILL)


def wrap(
    owner: Any,
    name: str,
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Has `before` and `after` called around an async method."""
    method = getattr(owner, name)

    async def wrapped(*arguments: Any, **named: Any) -> Any:
        before()
        answer = await method(*arguments, **named)
        after()
        return answer

    setattr(owner, name, wrapped)


def arm_stage(at: Callable[[str], Callable[[], None]]) -> None:
    from services.kernel.llm.cache import BucketCache
    from services.kernel.llm.http_provider import HttpProvider
    from services.kernel.stream.outgoing import Publisher

    wrap(HttpProvider, "complete", at("before_call"), at("after_call"))
    wrap(BucketCache, "put", after=at("after_cache_write"))
    wrap(Publisher, "publish", at("before_publish"), at("after_publish"))


def arm_exporter(at: Callable[[str], Callable[[], None]]) -> None:
    """Only commits of cards count, not the one that makes the tables at the start."""
    import aiosqlite

    from services.exporter.store import Store

    putting = ContextVar("putting", default=False)
    put, replace = Store.put, Path.replace

    async def put_noted(*arguments: Any, **named: Any) -> None:
        token = putting.set(True)
        try:
            await put(*arguments, **named)
        finally:
            putting.reset(token)

    def replace_noted(path: Path, target: Any) -> Path:
        if path.stem == "draft":
            at("before_rename")()
        return replace(path, target)

    def in_put(point: str) -> Callable[[], None]:
        return lambda: at(point)() if putting.get() else None

    Store.put = put_noted  # type: ignore[method-assign]
    Path.replace = replace_noted  # type: ignore[assignment,method-assign]
    wrap(aiosqlite.Connection, "commit", in_put("before_commit"), in_put("after_commit"))


def arm(service: str, folder: Path) -> None:
    from nats.aio.msg import Msg

    def at(point: str) -> Callable[[], None]:
        return lambda: die(service, point, folder)

    wrap(Msg, "ack", before=at("before_ack"))
    if service in ("ingest", "stage1"):
        from services.kernel.stream.lanes import Lanes

        wrap(Lanes, "hurry", before=at("before_lane"))
    if service in ("stage1", "stage2"):
        arm_stage(at)
    if service == "exporter":
        arm_exporter(at)


_called = sys.orig_argv[-2:]
if "DYING_AT" in os.environ and _called[0] == "run" and _called[1] in SERVICES:
    arm(_called[1], Path(os.environ["DYING_AT"]))
