"""The cgroup that holds all pods of a cluster, in every hierarchy (v1) or the one (v2)."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError

REMOVE_TIMEOUT = 10.0
# kubelet refuses to start without these.
REQUIRED_CONTROLLERS = {"cpu", "cpuacct", "cpuset", "memory", "pids"}


@dataclass(frozen=True)
class Hierarchy:
    """A mounted cgroup file system; `unified` is cgroup v2."""

    mount: Path
    unified: bool
    options: frozenset[str]


def hierarchies(mounts: str) -> list[Hierarchy]:
    """Those of a /proc/self/mounts."""
    found = []
    for line in mounts.splitlines():
        _, mount, kind, options, *_ = line.split()
        if kind in ("cgroup", "cgroup2"):
            found.append(Hierarchy(Path(mount), kind == "cgroup2", frozenset(options.split(","))))
    return found


def mounted() -> list[Hierarchy]:
    return hierarchies(Path("/proc/self/mounts").read_text())


def missing_controllers(found: Iterable[Hierarchy]) -> set[str]:
    """What kubelet needs and neither version offers here (v2 counts the CPU time without a controller of that name)."""
    available: set[str] = set()
    for hierarchy in found:
        if hierarchy.unified:
            controllers = set((hierarchy.mount / "cgroup.controllers").read_text().split())
            available |= controllers | ({"cpuacct"} if "cpu" in controllers else set())
        else:
            available |= hierarchy.options
    return REQUIRED_CONTROLLERS - available


def create(name: str) -> None:
    """Raises ClusterError where cgroups may not be made or delegated, as in most containers."""
    try:
        for hierarchy in mounted():
            if hierarchy.unified:
                _delegate(hierarchy.mount)
            (hierarchy.mount / name).mkdir(exist_ok=True)
    except OSError as error:
        raise ClusterError(f"cannot make the cgroup {name}: {error}") from error


def _delegate(mount: Path) -> None:
    available = (mount / "cgroup.controllers").read_text().split()
    control = mount / "cgroup.subtree_control"
    lacking = [controller for controller in available if controller not in control.read_text().split()]
    if lacking:
        control.write_text(" ".join(f"+{controller}" for controller in lacking))


def remove(name: str) -> None:
    """Removes the cgroup with all below it; its processes are dead, but the kernel may take a moment to let go."""
    deadline = time.monotonic() + REMOVE_TIMEOUT
    for hierarchy in mounted():
        root = hierarchy.mount / name
        # Children come before their parents when the longest path comes first.
        for directory in sorted([path for path in root.rglob("*") if path.is_dir()], key=lambda path: -len(path.parts)):
            _rmdir(directory, deadline)
        _rmdir(root, deadline)


def _rmdir(directory: Path, deadline: float) -> None:
    while True:
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ClusterError(f"cannot remove the cgroup {directory}: {error}") from error
            time.sleep(0.05)
        else:
            return
