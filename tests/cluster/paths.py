"""Where things live: a cache shared by all checkouts of a user, and state that belongs to one checkout."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError

CHECKOUT = Path(__file__).resolve().parents[2]
PROJECT = "whatsapp-operator"
# sockaddr_un.sun_path, with its terminating zero.
UNIX_SOCKET_PATH_MAX = 108


def cache_home(env: Mapping[str, str] = os.environ) -> Path:
    """Built programs, images and package archives: safe to delete, costly to make."""
    return _xdg(env, "XDG_CACHE_HOME", ".cache") / PROJECT


def state_home(env: Mapping[str, str] = os.environ) -> Path:
    return _xdg(env, "XDG_STATE_HOME", ".local/state") / PROJECT


def _xdg(env: Mapping[str, str], variable: str, default: str) -> Path:
    value = Path(env.get(variable, ""))
    # The XDG base directory specification: a relative path is to be ignored.
    return value if value.is_absolute() else Path(env.get("HOME") or Path.home()) / default


@dataclass(frozen=True)
class ClusterPaths:
    """The files of the cluster of one checkout; `id` (8 hex digits) keys its directory, cgroup and interface."""

    id: str
    root: Path

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def audit_log(self) -> Path:
        return self.logs / "audit.log"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    @property
    def containerd_socket(self) -> Path:
        return self.root / "containerd" / "containerd.sock"

    @property
    def link(self) -> str:
        """The host's end of the link to the node; an interface name has at most 15 characters."""
        return f"wa-{self.id}"

    @property
    def cgroup(self) -> str:
        return f"{PROJECT}-{self.id}"

    @property
    def mark(self) -> str:
        return f"cluster-{self.id}"


def cluster_paths(checkout: Path = CHECKOUT, env: Mapping[str, str] = os.environ) -> ClusterPaths:
    """Raises ClusterError if the state directory is too long for unix sockets, or hidden in the node."""
    identity = hashlib.sha256(str(checkout.resolve()).encode()).hexdigest()[:8]
    paths = ClusterPaths(id=identity, root=state_home(env) / "clusters" / identity)
    # kubelet's deepest socket is the longest one.
    longest = paths.root / "kubelet" / "pod-resources" / "kubelet.sock"
    if len(str(longest)) >= UNIX_SOCKET_PATH_MAX:
        raise ClusterError(f"{paths.root} is too long for unix sockets: set XDG_STATE_HOME to a shorter directory")
    # The node sees its own /run, /var/log and /var/lib, see namespace.py.
    for hidden in ("/run", "/var/run", "/var/log", "/var/lib"):
        if paths.root.is_relative_to(hidden):
            raise ClusterError(
                f"the state directory {paths.root} may not be below {hidden}: set XDG_STATE_HOME elsewhere"
            )
    return paths
