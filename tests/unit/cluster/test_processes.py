import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import locks, processes
from tests.cluster.errors import ClusterError
from tests.cluster.kubeapi import wait_for


@pytest.fixture
def mark() -> Iterator[str]:
    mark = f"test-{uuid.uuid4()}"
    yield mark
    processes.kill(mark)


def test_marked_processes_are_found_and_killed_with_their_children(mark: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    parent = processes.start(["sh", "-c", "sleep 300 & echo started; sleep 300"], mark=mark, log=log)
    wait_for("the child is started", lambda: processes.tail(log) == "started", 10)
    assert parent.pid in processes.marked(mark)
    wait_for("the child carries the mark", lambda: len(processes.marked(mark)) >= 2, 10)
    processes.kill(mark)
    assert processes.marked(mark) == []
    assert parent.wait(timeout=10) == -9


def test_only_the_exact_mark_counts(mark: str, tmp_path: Path) -> None:
    processes.start(["sleep", "300"], mark=mark, log=tmp_path / "log")
    wait_for("it runs", lambda: len(processes.marked(mark)) == 1, 10)
    processes.kill(mark[:-1])
    assert len(processes.marked(mark)) == 1


def test_a_process_dies_with_a_parent_that_is_killed(mark: str, tmp_path: Path) -> None:
    script = (
        "import time\nfrom pathlib import Path\nfrom tests.cluster import processes\n"
        f"processes.start(['sleep', '300'], mark={mark!r}, log=Path({str(tmp_path / 'log')!r}), die_with_parent=True)\n"
        "time.sleep(300)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[3]) as parent:
        wait_for("it runs", lambda: len(processes.marked(mark)) == 1, 10)
        parent.kill()
    wait_for("it died too", lambda: processes.marked(mark) == [], 10)


def test_what_never_happens_is_explained() -> None:
    with pytest.raises(ClusterError, match="the moon is blue: not within 0 s\nsee the log"):
        wait_for("the moon is blue", lambda: False, 0, lambda: "see the log")


def test_a_directory_is_locked_by_one_at_a_time(tmp_path: Path) -> None:
    with locks.exclusive(tmp_path), locks.attempt(tmp_path) as locked:
        assert not locked
    with locks.attempt(tmp_path) as locked:
        assert locked
