"""The memory of processes over time, from /proc: their anonymous memory in MiB.

Pages of files are left out: those that processes share count for more to each of them, the fewer they are.
"""

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

EVERY = 10.0
"""Seconds between samples."""
MINUTE_OF_SAMPLES = 6
MAX_GROWTH = 0.05
"""Over the second half of a process's time."""
OLD = 300.0
"""Seconds after which a worker is judged; few live for longer."""
AGES = ((0, 1), (1, 3), (3, 6), (6, 12), (12, 60))
"""Minutes."""

Series = list[tuple[float, float]]
"""(seconds, MiB)."""


class Memory:
    def __init__(self) -> None:
        self._series: dict[tuple[str, int], Series] = defaultdict(list)
        self._by_age: dict[int, list[float]] = defaultdict(list)

    def sample(self, now: float, kind: str, pid: int) -> None:
        """A process that may end at any time."""
        with suppress(OSError, ProcessLookupError):
            self._series[kind, pid].append((now, anonymous(pid)))

    def sample_by_age(self, pid: int) -> None:
        with suppress(OSError, ProcessLookupError):
            self.add_by_age(pid, age(pid), anonymous(pid))

    def add_by_age(self, pid: int, seconds: float, value: float) -> None:
        self._by_age[int(seconds // 60)].append(value)
        self._series["worker", pid].append((seconds, value))

    def objections(self) -> list[str]:
        """What is not flat. The simulator is not judged: it keeps every device that was ever linked."""
        found = []
        grown = self._growth(self._longest_lived("supervisor"))
        if grown > MAX_GROWTH:
            found.append(f"the supervisors grow by {grown:.1%} over the second half")
        old = self._old_workers()
        if old and (grown := self._growth(old)) > MAX_GROWTH:
            found.append(
                f"the {len(old)} workers that lived for {OLD / 60:.0f} minutes grow by {grown:.1%} over the second half"
            )
        return found

    def rows(self) -> list[tuple[str, ...]]:
        """What, MiB at the start, in the middle and at the end, growth over the second half."""
        rows = []
        for kind in ("supervisor", "simulator"):
            series = self._longest_lived(kind)
            minutes = (series[0][-1][0] - series[0][0][0]) / 60
            times = [
                f"{statistics.fmean(statistics.fmean(part(samples)) for samples in series):.1f}"
                for part in (_first, _middle, _last)
            ]
            name = f"{kind} (mean of {len(series)}, {minutes:.0f} min)"
            rows.append((name, *times, f"{self._growth(series):+.1%}"))
        if old := self._old_workers():
            rows.append(
                (f"workers that lived for {OLD / 60:.0f} min ({len(old)})", "", "", "", f"{self._growth(old):+.1%}")
            )
        return rows

    def rows_by_age(self) -> list[tuple[str, ...]]:
        """Age, number of samples, median and most in MiB."""
        return [
            (f"{low} to {high} min", str(len(values)), f"{statistics.median(values):.1f}", f"{max(values):.1f}")
            for low, high in AGES
            if (values := self._aged(low, high))
        ]

    def _aged(self, low: int, high: int) -> list[float]:
        return [value for minutes, values in self._by_age.items() if low <= minutes < high for value in values]

    def _old_workers(self) -> list[Series]:
        return [samples for (kind, _), samples in self._series.items() if kind == "worker" and samples[-1][0] >= OLD]

    def _longest_lived(self, kind: str) -> list[Series]:
        """The processes of a kind that lived nearly as long as the oldest of them."""
        series = [samples for (name, _), samples in self._series.items() if name == kind]
        most = max(len(samples) for samples in series)
        return [samples for samples in series if len(samples) >= most - 2]

    @staticmethod
    def _growth(series: list[Series]) -> float:
        return statistics.fmean(growth(samples) for samples in series)


def growth(samples: Sequence[tuple[float, float]]) -> float:
    """How much a value grows over the second half of (time, value), by a straight line through it; 0.05 is 5 %.

    Raises:
        statistics.StatisticsError: fewer than two samples in that half.
    """
    middle = (samples[0][0] + samples[-1][0]) / 2
    half = [(at, value) for at, value in samples if at >= middle]
    times, values = [at for at, _ in half], [value for _, value in half]
    slope, _ = statistics.linear_regression(times, values)
    return slope * (times[-1] - times[0]) / statistics.fmean(values)


def anonymous(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")), 0) / 1024


def age(pid: int) -> float:
    """Seconds since the process began."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(_stat(pid)[19]) / os.sysconf("SC_CLK_TCK")


def state(pid: int) -> str:
    """As `ps` shows it; X where there is no such process."""
    with suppress(OSError):
        return _stat(pid)[0]
    return "X"


def _stat(pid: int) -> list[str]:
    """The fields after the name."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _first(samples: Series) -> list[float]:
    return [value for _, value in samples[:MINUTE_OF_SAMPLES]]


def _middle(samples: Series) -> list[float]:
    return [value for _, value in samples[len(samples) // 2 :][:MINUTE_OF_SAMPLES]]


def _last(samples: Series) -> list[float]:
    return [value for _, value in samples[-MINUTE_OF_SAMPLES:]]
