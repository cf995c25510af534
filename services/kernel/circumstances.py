"""What holds for all work of a service at a moment, told by one part of it to another."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field


@dataclass
class Circumstances:
    """`cancelled` and `unaffordable`: batches that nothing more is, or can be, spent on.

    `is_stopping`: what only waits is to be given back.
    """

    cancelled: Container[str] = ()
    unaffordable: set[str] = field(default_factory=set)
    is_stopping: bool = False
