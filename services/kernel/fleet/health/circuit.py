"""A circuit: closed, open until a time, then half-open for one probe at a time.

Pure. All times are seconds by the clock of the fleet. Which state it is in follows from the time,
so nobody has to write when an open circuit becomes half-open.
"""

from __future__ import annotations

from typing import Final, Literal

from services.kernel.contracts.base import Contract

State = Literal["closed", "half-open", "open"]

_JITTER: Final = 0.25
"""Of the length of an opening: what failed together does not come back together."""


class Circuit(Contract):
    """`open_until` of 0: closed. `length_s` is that of the last opening, before its jitter.

    `probe` names who may make the one call of a half-open circuit, until `probe_until`: whoever
    dies with it must not keep the circuit from closing.
    """

    open_until: float = 0
    length_s: float = 0
    reason: str = ""
    changed_at: float = 0
    probe: str = ""
    probe_until: float = 0

    def state(self, now: float) -> State:
        if not self.open_until:
            return "closed"
        return "open" if now < self.open_until else "half-open"

    def admits(self, now: float, probe: str = "") -> bool:
        """Whether a call may be made now, by the holder of `probe` if the circuit is half-open."""
        match self.state(now):
            case "closed":
                return True
            case "half-open":
                return bool(probe) and self.probe == probe
        return False

    def is_old_news(self, began_at: float) -> bool:
        """What a call tells that began before the last change is about another time."""
        return began_at < self.changed_at

    def is_unheard_of(self, began_at: float) -> bool:
        """Whoever began then did not know that it is open: that was no probe."""
        return began_at < max(self.changed_at, self.open_until)

    def opened(
        self, now: float, *, first_s: float, longest_s: float, reason: str, jitter: float
    ) -> Circuit:
        """Open from now on, twice as long as the last time; `jitter` of 0–1 shortens it.

        `first_s` is the least, `longest_s` the most.
        """
        length_s = max(first_s, min(2 * self.length_s, longest_s)) if self.open_until else first_s
        until = now + length_s * (1 - _JITTER * jitter)
        return Circuit(open_until=until, length_s=length_s, reason=reason, changed_at=now)

    def closed(self, now: float) -> Circuit:
        return Circuit(changed_at=now) if self.open_until else self

    def probed(self, now: float, probe: str, *, until: float) -> Circuit:
        """With the probe given to `probe`, if it is free."""
        taken = self.probe not in ("", probe) and now < self.probe_until
        if self.state(now) != "half-open" or taken:
            return self
        return self.model_copy(update={"probe": probe, "probe_until": until})

    def released(self, probe: str) -> Circuit:
        """With the probe free again, if `probe` holds it: it told nothing."""
        if not probe or self.probe != probe:
            return self
        return self.model_copy(update={"probe": "", "probe_until": 0.0})
