"""Counters of the session pod in the text format of Prometheus, without its library."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple


class Description(NamedTuple):
    kind: str
    text: str
    labels: tuple[str, ...] = ()


HELP: Final[Mapping[str, Description]] = {
    "whatsapp_session_connected": Description("gauge", "1 while the session is paired and its socket is open."),
    "whatsapp_session_machine_state": Description(
        "gauge", "1 for the state that the session's machine is in.", ("state",)
    ),
    "whatsapp_session_connects_total": Description("counter", "Logins that succeeded."),
    "whatsapp_session_connections_lost_total": Description(
        "counter", "Connections that were lost, by reason.", ("reason",)
    ),
    "whatsapp_session_messages_total": Description("counter", "Text messages, by direction.", ("direction",)),
    "whatsapp_session_undecryptable_messages_total": Description("counter", "Messages that could not be decrypted."),
    "whatsapp_session_keepalive_timeouts_total": Description("counter", "Keepalives that were not answered."),
    "whatsapp_session_keepalive_latency_seconds": Description("gauge", "Round trip of the last answered keepalive."),
    "whatsapp_session_silence_seconds": Description("gauge", "Time since anything was received from the server."),
    "whatsapp_session_worker_starts_total": Description("counter", "Worker processes started."),
    "whatsapp_session_worker_exits_total": Description(
        "counter", "Worker processes that ended by themselves, or hung."
    ),
    "whatsapp_session_pairing_attempts_total": Description(
        "counter", "Finished pairing attempts since the process began.", ("result", "reason")
    ),
    "whatsapp_session_api_writes_total": Description(
        "counter", "Writes to the API server, by what and outcome.", ("what", "outcome")
    ),
    "whatsapp_session_resident_memory_bytes": Description("gauge", "Resident memory, by process.", ("process",)),
}

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Label values are ours (reasons, states), never data of the session."""

    def __init__(self) -> None:
        self._values: dict[str, dict[Labels, float]] = defaultdict(dict)
        for name, (kind, _, labels) in HELP.items():
            if kind == "counter" and not labels:
                self._values[name][()] = 0.0  # a counter that is not there before its first increase hides that one

    def add(self, name: str, amount: float = 1.0, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        self._values[name][key] = self._values[name].get(key, 0.0) + amount

    def set(self, name: str, value: float, **labels: str) -> None:
        """A gauge; with labels, the one of its series that has a value."""
        self._values[name][tuple(sorted(labels.items()))] = value

    def clear(self, name: str) -> None:
        self._values[name].clear()

    def render(self) -> str:
        lines: list[str] = []
        for name, (kind, text, _) in HELP.items():
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            for labels, value in sorted(self._values[name].items()):
                shown = ",".join(f'{key}="{label}"' for key, label in labels)
                lines.append(f"{name}{{{shown}}} {value:g}" if shown else f"{name} {value:g}")
        return "\n".join(lines) + "\n"


def resident_bytes(pid: int) -> float:
    """Resident memory of a process, 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return float(pages * 4096)
