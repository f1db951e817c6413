"""Processes that can be found again: each carries a mark in its environment, so no pid file can be lost or lie.

A mark outlives a crash of whoever started the process, and cannot name a stranger as a recycled pid would.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.packages import SEARCH_PATH

VARIABLE = "WHATSAPP_OPERATOR_CLUSTER_MARK"
KILL_TIMEOUT = 20.0


def start(command: Sequence[str], *, mark: str, log: Path, die_with_parent: bool = False) -> subprocess.Popen[bytes]:
    """Starts a process in a session of its own, its output going to `log`.

    `die_with_parent`: the kernel kills it as soon as the thread that called this ends, however it ends.
    """
    prefix = ["setpriv", "--pdeathsig", "KILL"] if die_with_parent else []
    with log.open("ab") as output:
        return subprocess.Popen(
            [*prefix, *command],
            env=os.environ | {VARIABLE: mark, "PATH": SEARCH_PATH},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def marked(mark: str) -> list[int]:
    """The living processes that carry the mark; those of other users cannot be seen, and are not ours."""
    wanted = f"{VARIABLE}={mark}".encode()
    found = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            environment = (directory / "environ").read_bytes()
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
        if wanted in environment.split(b"\0"):
            found.append(int(directory.name))
    return sorted(found)


def kill(mark: str, timeout: float = KILL_TIMEOUT) -> None:
    """Kills what carries the mark. Raises ClusterError if some of it is still there after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    dying: set[int] = set()
    while pids := set(marked(mark)) | {pid for pid in dying if _is_running(pid)}:
        if time.monotonic() > deadline:
            raise ClusterError(f"processes that do not die: {sorted(pids)}")
        for pid in pids - dying:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        dying = pids
        time.sleep(0.02)


def _is_running(pid: int) -> bool:
    """Whether it has not ended yet; a dying process has lost its environment, and so its mark, before it is gone."""
    try:
        # The state follows the name, which is in parentheses and may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def tail(log: Path, lines: int = 15) -> str:
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(text.splitlines()[-lines:])
