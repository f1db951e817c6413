"""Up, down and the state of the one-node cluster that belongs to this checkout."""

import contextlib
import ipaddress
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import (
    addons,
    binaries,
    cgroups,
    filesystem,
    images,
    locks,
    namespace,
    node,
    packages,
    preflight,
    processes,
)
from tests.cluster.control_plane import (
    Credentials,
    Endpoints,
    apiserver_command,
    controller_manager_command,
    etcd_command,
)
from tests.cluster.errors import ClusterError
from tests.cluster.kubeapi import KubeApi, wait_for
from tests.cluster.paths import ClusterPaths, cluster_paths
from tests.cluster.pki import Authority, KeyPair, kubeconfig

START_TIMEOUT = 90.0
SETTLE_TIMEOUT = 30.0
LOADED_IMAGES = ("busybox", "coredns", "local-path-provisioner")


@dataclass(frozen=True)
class Tools:
    """The folders with the built programs."""

    kubernetes: Path
    etcd: Path
    containerd: Path
    cni: Path


def up(paths: ClusterPaths | None = None) -> Path:
    """Brings the cluster up, unless it is, and returns its kubeconfig. What is half there is removed first.

    Raises ClusterError, with the ends of the logs, if it cannot; what has been started by then is removed.
    """
    paths = paths or cluster_paths()
    preflight.require()
    packages.ensure(packages.NODE)
    tools = Tools(*(binaries.ensure(family) for family in ("kubernetes", "etcd", "containerd", "cni")))
    with _locked():
        if _settles(paths):
            return paths.kubeconfig
        if paths.root.exists():
            print("the cluster is incomplete: starting afresh", flush=True)
        _remove(paths)
        began = time.monotonic()
        try:
            _start(paths, tools)
        except BaseException:
            _remove(paths)
            raise
        print(f"the cluster is up after {time.monotonic() - began:.0f} s", flush=True)
    return paths.kubeconfig


def down(paths: ClusterPaths | None = None) -> None:
    """Removes everything the cluster has made, whatever state it is in. Needs no API server."""
    with _locked():
        _remove(paths or cluster_paths())


def is_up(paths: ClusterPaths) -> bool:
    """Whether its node is Ready and its add-ons are there."""
    if not _is_complete(paths):
        return False
    server = json.loads(paths.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    pki = paths.pki
    api = KubeApi(server, pki / "ca.crt", KeyPair(pki / "admin.crt", pki / "admin.key"))
    return _node_ready(api) and _addons_ready(api)


def _is_complete(paths: ClusterPaths) -> bool:
    """Whether an `up` came to its end, and no reboot or kill has taken its processes since."""
    return _ready_file(paths).exists() and namespace.Namespace(paths).init_pid() is not None


def _settles(paths: ClusterPaths) -> bool:
    """Whether it is up, or will be soon: a busy node is not a reason to throw a cluster away."""
    try:
        wait_for("up", lambda: not _is_complete(paths) or is_up(paths), SETTLE_TIMEOUT)
    except ClusterError:
        return False
    return _is_complete(paths)


def _ready_file(paths: ClusterPaths) -> Path:
    return paths.root / "complete"


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    with locks.exclusive(Path(__file__).parent):
        yield


def _remove(paths: ClusterPaths) -> None:
    processes.kill(paths.mark)
    namespace.remove_link(paths.link)
    cgroups.remove(paths.cgroup)
    if paths.root.exists():
        shutil.rmtree(paths.root)
    # The directories above are shared by the clusters of other checkouts.
    for parent in (paths.root.parent, paths.root.parent.parent):
        with contextlib.suppress(OSError):
            parent.rmdir()


def _start(paths: ClusterPaths, tools: Tools) -> None:
    for directory in (paths.root, paths.logs, paths.volumes, paths.root / "containerd", paths.root / "cni"):
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    paths.root.chmod(0o700)
    if not Path("/proc/sys/net/bridge").exists():
        subprocess.run(["modprobe", "br_netfilter"], env={"PATH": packages.SEARCH_PATH}, check=True)
    cgroups.create(paths.cgroup)
    link = namespace.choose_link(paths.id, namespace.networks_in_use())
    inside = namespace.Namespace(paths)
    inside.start(link)
    _Startup(paths, tools, inside, link).run()
    _ready_file(paths).touch()


class _Startup:
    """One start of the cluster, from empty namespaces to a Ready node."""

    def __init__(
        self, paths: ClusterPaths, tools: Tools, inside: namespace.Namespace, link: ipaddress.IPv4Network
    ) -> None:
        self.paths = paths
        self.tools = tools
        self.inside = inside
        self.address = str(list(link.hosts())[1])
        self.endpoints = Endpoints(self.address, "0.0.0.0", 6443, 2379, 2380)
        self.authority = Authority(paths.pki)
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def run(self) -> None:
        credentials = Credentials.issue(self.authority, self.address)
        name = f"whatsapp-operator-{self.paths.id}"
        self.paths.kubeconfig.write_text(kubeconfig(self.endpoints.url, name, credentials.authority, credentials.admin))
        self.paths.kubeconfig.chmod(0o600)
        api = KubeApi(self.endpoints.url, credentials.authority, credentials.admin)

        tiny = {image: _tiny_image(image) for image in LOADED_IMAGES}
        self._start_containerd(tiny["busybox"][0])
        self._start("etcd", etcd_command(self.tools.etcd, self.paths.root / "etcd", self.endpoints))
        kubelet_client = (
            f"--kubelet-client-certificate={credentials.admin.certificate}",
            f"--kubelet-client-key={credentials.admin.key}",
            f"--kubelet-certificate-authority={credentials.authority}",
            "--kubelet-preferred-address-types=InternalIP",
        )
        command = apiserver_command(
            self.tools.kubernetes, credentials, self.endpoints, [*kubelet_client, *self._audit()]
        )
        self._start("kube-apiserver", command)
        self._wait("containerd answers", self.paths.containerd_socket.exists)
        for _, archive in tiny.values():
            images.load(archive, self.paths)
        self._wait("the API server is ready", lambda: api.get("/readyz") is not None)

        self._start_kubernetes(credentials)
        for manifest in addons.manifests(
            tiny["coredns"][0], tiny["local-path-provisioner"][0], tiny["busybox"][0], self.paths.volumes
        ):
            api.apply(manifest)
        self._wait("the node is Ready", lambda: _node_ready(api))
        self._wait("the add-ons are available", lambda: _addons_ready(api))

    def _audit(self) -> list[str]:
        """What service accounts do is recorded: tests count the writes of a session and compare the rights used."""
        policy = self.paths.root / "audit-policy.json"
        policy.write_text(json.dumps(node.AUDIT_POLICY))
        return [f"--audit-policy-file={policy}", f"--audit-log-path={self.paths.audit_log}"]

    def _start_containerd(self, pause_image: str) -> None:
        root = self.paths.root
        config = root / "containerd" / "config.toml"
        snapshotter = "overlayfs" if filesystem.overlay_works(root) else "native"
        restrict_oom = not node.may_lower_oom_scores(Path("/proc/self/status").read_text())
        (root / "cni" / "10-pods.conflist").write_text(node.cni_config())
        config.write_text(
            node.containerd_config(
                self.paths, self.tools.containerd, self.tools.cni, pause_image, snapshotter, restrict_oom
            )
        )
        self._start("containerd", [str(self.tools.containerd / "containerd"), f"--config={config}"])

    def _start_kubernetes(self, credentials: Credentials) -> None:
        kubernetes = self.tools.kubernetes
        manager = self._config("kube-controller-manager", credentials.controller_manager)
        patience = [f"--node-monitor-grace-period={node.MONITOR_GRACE}"]
        self._start("kube-controller-manager", controller_manager_command(kubernetes, credentials, manager, patience))
        scheduler = self._config("kube-scheduler", self.authority.issue("kube-scheduler", "system:kube-scheduler"))
        self._start("kube-scheduler", node.scheduler_command(kubernetes, scheduler))
        proxy = self._config("kube-proxy", self.authority.issue("kube-proxy", "system:kube-proxy"))
        self._start("kube-proxy", node.kube_proxy_command(kubernetes, proxy))
        kubelet = self.authority.issue(
            "kubelet",
            f"system:node:{node.NODE_NAME}",
            "system:nodes",
            [f"DNS:{node.NODE_NAME}", f"IP:{self.address}"],
        )
        config = self.paths.root / "kubelet.json"
        config.write_text(json.dumps(node.kubelet_config(self.paths, credentials.authority, kubelet), indent=2))
        self._start(
            "kubelet",
            node.kubelet_command(kubernetes, self.paths, config, self._config("kubelet", kubelet), self.address),
        )

    def _config(self, name: str, client: KeyPair) -> Path:
        path = self.paths.root / f"{name}.kubeconfig"
        # Inside, the API server is at home on every address.
        path.write_text(kubeconfig(self.endpoints.url, "local", self.authority.certificate, client))
        return path

    def _start(self, name: str, command: Sequence[str]) -> None:
        self.running[name] = self.inside.start_process(name, command)

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        def alive_and_met() -> bool:
            for name, process in self.running.items():
                if process.poll() is not None:
                    log = processes.tail(self.paths.logs / f"{name}.log")
                    raise ClusterError(f"{name} ended with {process.returncode}\n{log}")
            return condition()

        wait_for(what, alive_and_met, START_TIMEOUT, self._explain)

    def _explain(self) -> str:
        return "\n".join(f"--- {name}\n{processes.tail(self.paths.logs / f'{name}.log')}" for name in self.running)


def _node_ready(api: KubeApi) -> bool:
    found = api.get(f"/api/v1/nodes/{node.NODE_NAME}")
    conditions = found.get("status", {}).get("conditions", []) if isinstance(found, dict) else []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _addons_ready(api: KubeApi) -> bool:
    for namespace_name, name in addons.DEPLOYMENTS:
        found = api.get(f"/apis/apps/v1/namespaces/{namespace_name}/deployments/{name}")
        if not isinstance(found, dict) or found.get("status", {}).get("availableReplicas") != 1:
            return False
    return True


def _tiny_image(name: str) -> tuple[str, Path]:
    if name == "busybox":
        # Also the pause image: a container that sleeps is all that a pod's sandbox needs.
        program = shutil.which("busybox", path=packages.SEARCH_PATH)
        if program is None:
            raise ClusterError("busybox is gone")
        links = {
            f"bin/{applet}": "busybox" for applet in ("sh", "mkdir", "rm", "sleep", "nslookup", "wget", "nc", "cat")
        }
        return images.save_tiny(name, {"bin/busybox": Path(program)}, links, ["/bin/sleep", "infinity"])
    program_path = binaries.ensure(name) / name
    return images.save_tiny(name, {f"bin/{name}": program_path}, {}, [f"/bin/{name}"])
