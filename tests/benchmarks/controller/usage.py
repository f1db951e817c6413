"""What processes use, from /proc."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
MIB = 2**20


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of the children that it has waited for; 0 for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11:15])) / _TICK


def memory(pid: int) -> dict[str, float]:
    """Resident memory now (`VmRSS`) and at its peak (`VmHWM`) in MiB."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in ("VmRSS", "VmHWM"):
            found[key] = int(value.split()[0]) / 1024
    return found


def busy_seconds() -> float:
    """CPU seconds that the whole machine has spent on anything but idling or waiting for disks."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / _TICK


@dataclass(frozen=True)
class Moment:
    """CPU seconds so far: of each named process, and of the machine."""

    processes: Mapping[str, float]
    machine: float

    @classmethod
    def now(cls, pids: Mapping[str, int]) -> "Moment":
        return cls({name: cpu_seconds(pid) for name, pid in pids.items()}, busy_seconds())

    def since(self, earlier: "Moment") -> dict[str, float]:
        """CPU seconds of each process since then; `others` is what strangers on the machine have used."""
        used = {name: value - earlier.processes.get(name, 0.0) for name, value in self.processes.items()}
        used["others"] = max(0.0, self.machine - earlier.machine - sum(used.values()))
        return {name: round(value, 2) for name, value in used.items()}
