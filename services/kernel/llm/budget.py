"""The seam to money: what a call may cost is reserved before it, and settled after it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Protocol

from services.kernel.contracts.base import Batch
from services.kernel.llm.prompt import Inquiry


class Reservation(Protocol):
    """Money set aside for one call. What is neither kept nor settled is given back."""

    def keep(self) -> None:
        """The call is about to be sent: unless it is settled, its worst case stays spent."""
        ...

    def settle(self, cost_usd: Decimal) -> None:
        """The call was billed so much, also nothing."""
        ...


class Budget(Protocol):
    """The money of one stage."""

    def reserve(self, inquiry: Inquiry, batch: Batch) -> AbstractAsyncContextManager[Reservation]:
        """The worst case of one call, set aside inside the block; waits while there is none.

        Raises BudgetReached for a batch whose own budget is used up, or when the service stops
        while it waits, and BatchCancelled.
        """
        ...
