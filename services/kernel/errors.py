"""The error family, branched by what the caller can do about an error.

    PipelineError
    ├── TransientError      trying again can help; may carry a delay
    │   ├── UncertainCall   a model call was cut off: it may have been billed
    │   └── Outage          one of our own servers or disks is away: uses no attempt
    │       └── BudgetReached   no money is left for the batch: its terms wait
    ├── Throttled           the provider asked us to wait: no failure of any term
    │   ├── ProviderBlocked   … until an operator acts (key refused, credit used up)
    │   └── Unavailable       … without naming a time: it is down
    ├── ReplyRejected       the model answered, and the answer is unfit
    ├── BatchCancelled      somebody decided against the batch: nothing more is spent on it
    ├── PermanentError      trying again cannot help
    │   ├── TermRefused     the input is not a term; names the field and the reason
    │   └── CallRefused     the provider calls the request itself wrong
    └── SettingsError       the operator must change something; nothing was started (exit 2)

A message says what was seen, what was expected and what to do. Messages never carry secrets.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Anything that cardflow reports by itself."""


class TransientError(PipelineError):
    """Trying again can help.

    `retry_after_s`: seconds to wait at least, when the other side named them.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UncertainCall(TransientError):
    """A model call ended without an answer; whether it was billed is unknown."""


class Outage(TransientError):
    """NATS, a bucket or the store is away, full or locked. No term's fault: uses up no attempt."""


class BudgetReached(Outage):
    """The budget of a batch is used up: its terms wait until it is raised, others go on."""


class Throttled(PipelineError):
    """The provider asked us to wait `retry_after_s` seconds. Uses up no attempt."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ProviderBlocked(Throttled):
    """The provider refuses us until somebody acts: a bad key, no credit. The stage waits."""


class Unavailable(Throttled):
    """The provider serves nobody and names no time (503): its failure, and none of a term."""


class ReplyRejected(PipelineError):
    """The model answered, and the answer is unfit. `reason` is a short code for metrics."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class BatchCancelled(PipelineError):
    """The batch was cancelled: its terms end here, without another call."""


class PermanentError(PipelineError):
    """Trying again cannot help. `reason` is a short code for metrics and dead letters."""

    def __init__(self, message: str, *, reason: str = "permanent") -> None:
        super().__init__(message)
        self.reason = reason


class TermRefused(PermanentError):
    """The input is not a term that we can take. `field` names the part at fault."""

    def __init__(self, field: str, reason: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}", reason=reason)
        self.field = field
        self.detail = detail


class CallRefused(PermanentError):
    """The provider calls the request wrong (400, 404, 413, 422). Several in a row for different
    terms are no fault of theirs."""


class SettingsError(PipelineError):
    """The settings or the command line can't be used; the message says what to change."""
