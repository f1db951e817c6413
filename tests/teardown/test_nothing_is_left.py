"""The last test of all: taking the cluster down removes every process, mount, interface, cgroup and file it made."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster import cluster, processes
from tests.cluster.paths import ClusterPaths, cluster_paths


def living(paths: ClusterPaths) -> list[str]:
    return [str(pid) for pid in processes.marked(paths.mark)]


def children_of_containers(paths: ClusterPaths) -> list[str]:
    """Processes of pods carry no mark: they are found by their cgroup."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                groups = (process / "cgroup").read_text()
            except OSError:  # it has just ended
                continue
            if paths.cgroup in groups or "kubepods" in groups:
                found.append(process.name)
    return found


def mounts(paths: ClusterPaths) -> list[str]:
    return [line for line in Path("/proc/mounts").read_text().splitlines() if str(paths.root) in line]


def interfaces(paths: ClusterPaths) -> list[str]:
    listed = subprocess.run(["ip", "-oneline", "link"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if paths.link in line or "cni0" in line]


def cgroups(paths: ClusterPaths) -> list[str]:
    return [str(group) for group in Path("/sys/fs/cgroup").rglob(f"*{paths.cgroup}*")]


def files(paths: ClusterPaths) -> list[str]:
    return [str(paths.root)] if paths.root.exists() else []


KINDS: list[Callable[[ClusterPaths], list[str]]] = [living, children_of_containers, mounts, interfaces, cgroups, files]


@pytest.fixture(scope="module")
def before_and_after() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    paths = cluster_paths()
    before = {kind.__name__: kind(paths) for kind in KINDS}
    cluster.down(paths)
    return before, {kind.__name__: kind(paths) for kind in KINDS}


def test_the_cluster_was_there(before_and_after: tuple[dict[str, list[str]], dict[str, list[str]]]) -> None:
    """Finding nothing afterwards means something only if the same look found something before."""
    before, _ = before_and_after
    for kind in ("living", "interfaces", "cgroups", "files"):
        assert before[kind], kind


@pytest.mark.parametrize("kind", [kind.__name__ for kind in KINDS])
def test_nothing_is_left(before_and_after: tuple[dict[str, list[str]], dict[str, list[str]]], kind: str) -> None:
    _, after = before_and_after
    assert after[kind] == []
