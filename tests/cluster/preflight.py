"""What this machine lacks to run the cluster, each with what to do about it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster import binaries, cgroups, packages
from tests.cluster.errors import ClusterError


def problems() -> list[str]:
    """Empty where `up` can work. Missing Debian packages are no problem where they can be installed."""
    if sys.platform != "linux":
        return [f"this is {sys.platform}, not Linux: {packages.REMEDY}"]
    found = []
    root = os.geteuid() == 0
    if not root:
        found.append(f"not root: a node makes namespaces, mounts and cgroups; run as root, or {packages.REMEDY}")
    lacking = packages.missing([*packages.NODE, *packages.IMAGES])
    if lacking and not (root and packages.is_debian()):
        names = " ".join(package.name for package in lacking)
        found.append(f"missing (by their Debian names): {names}; install them, or {packages.REMEDY}")
    if controllers := cgroups.missing_controllers(cgroups.mounted()):
        names = ", ".join(sorted(controllers))
        found.append(f"no cgroup controllers {names}: run outside of this container, or {packages.REMEDY}")
    if not Path("/dev/kmsg").exists():
        found.append(f"no /dev/kmsg, which kubelet reads: run outside of this container, or {packages.REMEDY}")
    if not _bridge_netfilter():
        found.append(f"no br_netfilter in this kernel, for services between pods: {packages.REMEDY}")
    return found


def _bridge_netfilter() -> bool:
    if Path("/proc/sys/net/bridge").exists():
        return True
    command = ["modprobe", "--dry-run", "--quiet", "br_netfilter"]
    try:
        return subprocess.run(command, env={"PATH": packages.SEARCH_PATH}, check=False).returncode == 0
    except FileNotFoundError:
        # The package kmod is missing, which is a problem of its own.
        return True


def go_problem() -> str | None:
    """Whether the programs could be built here, if they are not built yet."""
    needed = max(family.go for family in binaries.families().values())
    installed = binaries.installed_go()
    if installed and installed[1] >= needed:
        return None
    try:
        binaries.installer()
    except ClusterError as error:
        return str(error)
    return None


def require() -> None:
    """Raises ClusterError that lists every problem."""
    if found := problems():
        raise ClusterError("this machine cannot run the cluster:\n" + "\n".join(f"- {problem}" for problem in found))
