"""The mount, network and process namespaces that the whole node lives in.

Everything the cluster makes that is not a file of its state directory or a cgroup (mounts, interfaces, packet filter
rules, sockets, processes) exists only inside, so the kernel removes it with the last process; and two clusters on one
machine cannot collide in ports, interface names or rules. One link joins the node to the host, and there is no route
beyond it: pods reach each other and the host, not the internet.
"""

import ipaddress
import json
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.cluster import processes
from tests.cluster.errors import ClusterError
from tests.cluster.kubeapi import wait_for
from tests.cluster.packages import SEARCH_PATH
from tests.cluster.paths import ClusterPaths

# RFC 2544, for benchmarks between devices: never on the internet, rarely used in private networks.
LINK_POOL = ipaddress.IPv4Network("198.18.0.0/15")
LINK_PREFIX = 30
POD_SUBNET = "10.244.0.0/16"
# The first process only reaps: the kernel does that by itself for who ignores SIGCHLD.
_INIT = ["env", "--ignore-signal=CHLD", "sleep", "infinity"]
# kubelet sets these for the whole machine unless it finds them set: it shall find them, and the machine keep its own.
_KUBELET_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
_START_TIMEOUT = 10.0


def choose_link(cluster_id: str, taken: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """The subnet of the link between host and node: picked by the cluster's id, moved on if something uses it.

    Raises ClusterError if the whole pool is taken.
    """
    used = list(taken)
    count = 1 << (LINK_PREFIX - LINK_POOL.prefixlen)
    first = int(cluster_id, 16)
    for offset in range(count):
        address = int(LINK_POOL.network_address) + ((first + offset) % count) * (1 << (32 - LINK_PREFIX))
        candidate = ipaddress.IPv4Network((address, LINK_PREFIX))
        if not any(candidate.overlaps(network) for network in used):
            return candidate
    raise ClusterError(f"every address of {LINK_POOL} is in use on this machine")


def networks_in_use() -> list[ipaddress.IPv4Network]:
    """Destinations of this machine's routes, without the default route."""
    output = subprocess.run(
        ["ip", "-json", "-4", "route", "show", "table", "all"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": SEARCH_PATH},
    ).stdout
    destinations = {route["dst"] for route in json.loads(output or "[]")} - {"default"}
    return [ipaddress.IPv4Network(destination, strict=False) for destination in destinations]


class Namespace:
    """The namespaces of one cluster, found by the mark of their first process."""

    def __init__(self, paths: ClusterPaths) -> None:
        self.paths = paths

    def init_pid(self) -> int | None:
        for pid in processes.marked(self.paths.mark):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            # The process id in each nested namespace, the innermost last; before the exec it is not set up yet.
            numbers = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
            if len(numbers) > 1 and numbers[-1] == "1" and command.startswith(b"sleep\0"):
                return pid
        return None

    def start(self, link: ipaddress.IPv4Network) -> None:
        """Makes the namespaces and the link (host: its first address, node: its second). Raises ClusterError."""
        unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        log = self.paths.logs / "namespace.log"
        processes.start([*unshare, "--propagation", "slave", *_INIT], mark=self.paths.mark, log=log)
        wait_for("the namespaces are there", lambda: bool(self.init_pid()), _START_TIMEOUT, lambda: processes.tail(log))
        host, node = list(link.hosts())[:2]
        name = self.paths.link
        _checked(["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(self.init_pid())])
        _checked(["ip", "address", "add", f"{host}/{LINK_PREFIX}", "dev", name])
        _checked(["ip", "link", "set", name, "up"])
        self.run(["sh", "-euc", setup_script(f"{node}/{LINK_PREFIX}")])

    def enter(self, command: Sequence[str]) -> list[str]:
        """The command that runs `command` inside. Raises ClusterError if there is no inside."""
        pid = self.init_pid()
        if pid is None:
            raise ClusterError("the cluster's namespaces are gone")
        return ["nsenter", "--target", str(pid), "--mount", "--net", "--pid", "--", *command]

    def run(self, command: Sequence[str]) -> str:
        return _checked(self.enter(command))

    def start_process(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        log = self.paths.logs / f"{name}.log"
        return processes.start(self.enter(command), mark=self.paths.mark, log=log)


def remove_link(name: str) -> None:
    """The link goes with its other end, once the kernel gets to it; this does not wait for that."""
    if Path("/sys/class/net", name).exists():
        subprocess.run(["ip", "link", "delete", name], env={"PATH": SEARCH_PATH}, capture_output=True, check=False)


def setup_script(node_address: str) -> str:
    """What makes fresh namespaces a node's: private directories for state that has fixed paths, and the network."""
    lines = [f"mount -t tmpfs -o mode=755 tmpfs {directory}" for directory in ("/run", "/var/log", "/var/lib")]
    for name, value in _KUBELET_SYSCTLS.items():
        file = f"/run/sysctl/{name}"
        lines += [f"mkdir -p {Path(file).parent}", f"echo {value} > {file}", f"mount --bind {file} /proc/sys/{name}"]
    lines += [
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        # Answers between two pods on the bridge must pass the packet filter, which translates a service's address back.
        "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables",
        "ip link set lo up",
        f"ip address add {node_address} dev eth0",
        "ip link set eth0 up",
        # The host has no route to pods: to it, they are the node.
        "nft add table ip pods",
        "nft 'add chain ip pods leave { type nat hook postrouting priority srcnat; }'",
        f"nft add rule ip pods leave ip saddr {POD_SUBNET} oifname eth0 masquerade",
    ]
    return "\n".join(lines)


def _checked(command: Sequence[str]) -> str:
    result = subprocess.run(
        command, env={"PATH": SEARCH_PATH}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed: {result.stderr.strip()}")
    return result.stdout
