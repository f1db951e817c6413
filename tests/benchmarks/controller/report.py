"""The page of figures: what was measured, beside what it is held to."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.controller import profile

BEGIN: Final = "<!-- Written by `make bench`; do not edit. -->"
END: Final = "<!-- End of what `make bench` writes. -->"
Figures = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """The most that a figure may be, with so many sessions at least; it is the part `key` (with dots) of a result."""

    scenario: str
    key: str
    what: str
    most: float
    unit: str = ""
    sessions: int = 0
    scale: float = 1.0


TARGETS: Final = (
    Target("alone", "median_ms", "one session alone, idle operator: event -> pod created, median", 40, "ms"),
    Target("converge", "ratio", "converging: times the raw writer", 1.5, "", 1000),
    Target("converge", "operator_cpu_ms_per_session", "converging: operator CPU for a session", 8, "ms", 1000),
    Target("converge", "writes.operator", "converging: operator writes for a session, without events", 10),
    Target("restart", "seconds", "cold restart: all sessions looked at", 30, "s", 5000),
    Target("restart", "writes_in_all", "cold restart: writes", 0, "", 5000),
    Target("restart", "memory.VmHWM", "cold restart: peak memory", 250, "MB", 5000, 2**20 / 1e6),
    Target("steady", "writes_in_all", "steady state: operator writes", 0, "", 5000),
    Target("latency", "p99_ms", "event -> action at 50 changes/s, p99", 1000, "ms", 1000),
    Target("failover", "worst_seconds", "leader killed: first correct write of the other, worst", 15, "s", 1000),
    Target("metrics", "seconds", "/metrics without gauges per object: time", 1, "s", 5000),
    Target("metrics", "bytes", "/metrics without gauges per object: size", 5, "MB", 5000, 1e-6),
)


def figures(found: dict[str, Any], *, seconds: float) -> Figures:
    """All results as JSON takes them, and where they were measured."""
    results = {name: _plain(result) for name, result in found.items() if not name.endswith("raw writer")}
    machine = {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "minutes": seconds / 60,
    }
    return {"machine": machine, "results": results}


def _plain(value: Any) -> Any:
    """Kinds of writes become text."""
    if isinstance(value, dict):
        return {_text(key): _plain(part) for key, part in value.items()}
    return value


def _text(key: Any) -> str:
    if isinstance(key, str):
        return key
    return " ".join(part for part in (key.actor, key.verb, f"{key.resource}/{key.subresource}".rstrip("/")) if part)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine


def pick(result: Any, key: str) -> Any:
    """Part of a result, None where it is not."""
    for part in key.split("."):
        result = result.get(part) if isinstance(result, dict) else None
    return result


def page(found: Figures) -> str:
    """The Markdown of a run."""
    results, machine = found["results"], found["machine"]
    head = (
        f"Measured {machine['date']} UTC, in {machine['minutes']:.0f} min, on {machine['cores']} cores "
        f"({machine['cpu']}). `others` is what strangers on the machine have taken of the CPU time used meanwhile: "
        "where that is much, times say little, but CPU seconds still something."
    )
    parts = [head, _targets(results), _scenarios(results), _costs(results), _profile(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _targets(results: dict[str, Any]) -> str:
    rows = []
    for target in TARGETS:
        for name, found in results.items():
            value = pick(found, target.key)
            if value is None or not re.fullmatch(rf"{target.scenario}( \d+)?", name):
                continue
            sessions = found.get("among", found.get("sessions", 0))
            value *= target.scale
            verdict = "held" if value <= target.most else "**missed**"
            if sessions < target.sessions:
                verdict += f", to be held with {target.sessions:,}"
            measured, most = f"{number(value)} {target.unit}".strip(), f"{target.most:g} {target.unit}".strip()
            rows.append((target.what, f"{sessions:,}", measured, most, verdict))
    return "### Targets\n\n" + _table(("what", "sessions", "measured", "at most", ""), rows) if rows else ""


def number(value: float) -> str:
    """Three digits that tell something."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _scenarios(results: dict[str, Any]) -> str:
    rows = []
    for name, found in results.items():
        if "cpu" not in found:
            continue
        raw, writes = found.get("raw"), found["writes"]
        total = sum(found["cpu"].values()) or 1.0
        rows.append(
            (
                name,
                found["sessions"],
                f"{found['seconds']:.1f}" if "seconds" in found else "",
                f"{raw['seconds']:.1f}" if raw else "",
                found.get("ratio", ""),
                f"{found['operator_cpu_seconds']:.1f}" if "operator_cpu_seconds" in found else "",
                found.get("operator_cpu_ms_per_session", ""),
                f"{found['memory']['VmHWM']:.0f}" if "memory" in found else "",
                f"{writes['operator']:g} + {writes['events']:g}",
                f"{writes['pod']:g}",
                f"{found['cpu']['others'] / total:.0%}",
            )
        )
    head = (
        "scenario", "sessions", "time, s", "raw writer, s", "ratio", "operator CPU, s", "ms a session", "peak RSS, MiB",
        "operator writes + events a session", "pod's writes", "others",
    )  # fmt: skip
    return "### Scenarios\n\n" + _table(head, rows) if rows else ""


def _costs(results: dict[str, Any]) -> str:
    """Where all the CPU of a session goes, by process; and which writes it is."""
    wanted = ("converge 1000", *(name for name in reversed(results) if name.startswith("converge")))
    name = next((name for name in wanted if "kinds" in results.get(name, {})), "")
    if not name:
        return ""
    found = results[name]
    count = found["sessions"]
    raw = found.get("raw", {}).get("cpu", {})
    rows = [
        (process, f"{seconds * 1000 / count:.1f}", f"{raw[process] * 1000 / count:.1f}" if process in raw else "")
        for process, seconds in sorted(found["cpu"].items(), key=lambda item: -item[1])
        if process != "others"
    ]
    cpu = _table(("process", "ms CPU a session", "with the raw writer"), rows)
    kinds = sorted(found["kinds"].items(), key=lambda item: -item[1])
    writes = _table(
        ("write", "a session"), ((kind, f"{number / count:.2f}") for kind, number in kinds if number * 20 > count)
    )
    return f"### What a session costs ({name})\n\n{cpu}\n\n{writes}"


def _profile(results: dict[str, Any]) -> str:
    name, stacks = next(((name, found["profile"]) for name, found in results.items() if found.get("profile")), ("", {}))
    stacks = profile.working(stacks)
    if not stacks:
        return ""
    own = _table(
        ("package", "of the time"), ((what, f"{share:.1%}") for what, share in profile.by_package(stacks)[:15])
    )
    inner = profile.by_function(stacks)[:25]
    functions = _table(
        ("function, with what it calls", "of the time"), ((f"`{what}`", f"{share:.1%}") for what, share in inner)
    )
    return f"### Where the operator's time goes ({name})\n\nIn the code of each package itself:\n\n{own}\n\n{functions}"


def insert(path: Path, text: str) -> None:
    """Replace what stands between the two marks of a page."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{path} lacks the marks between which the figures go")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
