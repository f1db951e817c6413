"""What must hold of a day of faults: pure functions of what was seen. Times are in seconds of one clock."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from whatsapp_operator.api.reasons import EXPLANATIONS, MachineState, Reason


@dataclass
class Phantom:
    """Watches one session: a report may say Connected without a connection for `bound` seconds, no longer."""

    bound: float
    longest: float = 0.0
    samples: int = 0
    """Those beyond the bound."""
    _since: float | None = None

    def sample(self, now: float, *, said: bool, connected: bool) -> bool:
        """`said`: the API server holds a report of Connected. Returns whether the bound is broken at this sample."""
        if connected or not said:
            self._since = None
            return False
        self._since = now if self._since is None else self._since
        self.longest = max(self.longest, now - self._since)
        broken = now - self._since > self.bound
        self.samples += broken
        return broken


@dataclass
class Cause:
    """Something that rightly takes a session's credentials, from when it was done to when it had taken effect."""

    name: str
    begin: float
    end: float | None = None
    """None: not yet."""


@dataclass
class Pairings:
    """The devices with which one session was connected, and what took them from it."""

    causes: list[Cause] = field(default_factory=list)
    """Those that no pairing has followed yet."""
    seen: list[tuple[float, str]] = field(default_factory=list)
    """When a device was first told of as connected."""
    explained: list[str] = field(default_factory=list)
    """Names of the causes of all pairings but the first."""

    def connected(self, now: float, device: str) -> bool:
        """A report of Connected as this device. Returns whether it is rightly another one than before, if it is."""
        if self.seen and self.seen[-1][1] == device:
            return True
        first = not self.seen
        self.seen.append((now, device))
        done = [cause for cause in self.causes if cause.begin <= now]
        if done and not first:
            self.explained.append(done[0].name)
        # What had its effect before has it no more.
        self.causes = [cause for cause in self.causes if cause.end is None or cause.end > now]
        return first or bool(done)


def objection(machine: str, reason: str, *, expected: Iterable[Reason]) -> str | None:
    """Why a session must not end like this, or None. `expected`: reasons that its faults can lead to."""
    if machine == MachineState.CONNECTED:
        return None
    if machine not in (MachineState.HELD, MachineState.FAILED):
        return f"ends as {machine} ({reason})"
    if not EXPLANATIONS[Reason(reason)].remedy:
        return f"ends as {machine} ({reason}), for which there is no remedy"
    if reason not in set(expected):
        return f"ends as {machine} ({reason}), which no fault of its schedule leads to"
    return None
