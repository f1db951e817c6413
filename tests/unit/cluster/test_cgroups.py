from pathlib import Path

import pytest

from tests.cluster.cgroups import Hierarchy, hierarchies, missing_controllers

V1 = """\
proc /proc proc rw 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0
"""


def test_hierarchies_of_version_1() -> None:
    found = hierarchies(V1)
    assert [str(hierarchy.mount) for hierarchy in found] == [
        "/sys/fs/cgroup/cpu,cpuacct",
        "/sys/fs/cgroup/cpuset",
        "/sys/fs/cgroup/memory",
        "/sys/fs/cgroup/pids",
    ]
    assert not any(hierarchy.unified for hierarchy in found)
    assert missing_controllers(found) == set()


def test_missing_hierarchies_are_named() -> None:
    found = hierarchies("\n".join(line for line in V1.splitlines() if "memory" not in line and "cpuset" not in line))
    assert missing_controllers(found) == {"cpuset", "memory"}


@pytest.mark.parametrize(
    ("controllers", "missing"),
    [
        ("cpuset cpu io memory hugetlb pids rdma misc", set()),
        ("cpu io pids", {"cpuset", "memory"}),
        ("", {"cpu", "cpuacct", "cpuset", "memory", "pids"}),
    ],
)
def test_controllers_of_version_2(tmp_path: Path, controllers: str, missing: set[str]) -> None:
    (tmp_path / "cgroup.controllers").write_text(controllers + "\n")
    found = hierarchies(f"cgroup2 {tmp_path} cgroup2 rw,nosuid 0 0")
    assert found == [Hierarchy(tmp_path, True, frozenset({"rw", "nosuid"}))]
    assert missing_controllers(found) == missing
