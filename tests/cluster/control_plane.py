"""etcd, kube-apiserver and kube-controller-manager: alone for integration tests, or as a part of the cluster.

`control_plane()` needs neither root nor a container runtime: it listens on free loopback ports and lives in a temporary
directory. Objects behave as in any cluster (RBAC, admission policies, garbage collection, namespaces that terminate),
but there is no node: pods stay Pending.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import binaries, locks, packages, processes
from tests.cluster.errors import ClusterError
from tests.cluster.kubeapi import KubeApi, wait_for
from tests.cluster.pki import Authority, KeyPair, kubeconfig

SERVICE_SUBNET = "10.96.0.0/16"
# The first address of the service subnet is that of the Service `kubernetes`.
KUBERNETES_SERVICE_IP = "10.96.0.1"
START_TIMEOUT = 60.0
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kubectl")
_DIRECTORY_PREFIX = "whatsapp-operator-control-plane-"
# Seconds; a younger directory may be one whose owner is about to lock it.
_NOT_YET_LOCKED = 60.0


@dataclass(frozen=True)
class Endpoints:
    """Where the servers listen. `address` is the one that clients use and the API server advertises."""

    address: str
    bind: str
    port: int
    etcd_port: int
    etcd_peer_port: int

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.port}"

    @property
    def etcd_url(self) -> str:
        return f"http://127.0.0.1:{self.etcd_port}"


@dataclass(frozen=True)
class Credentials:
    """What the control plane's processes and its administrator show each other."""

    authority: Path
    authority_key: Path
    server: KeyPair
    service_accounts: KeyPair
    admin: KeyPair
    controller_manager: KeyPair

    @classmethod
    def issue(cls, authority: Authority, address: str) -> "Credentials":
        names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        addresses = sorted({"127.0.0.1", KUBERNETES_SERVICE_IP, address})
        hosts = [*(f"DNS:{name}" for name in names), *(f"IP:{item}" for item in addresses)]
        return cls(
            authority=authority.certificate,
            authority_key=authority.pair.key,
            server=authority.issue("apiserver", "kube-apiserver", hosts=hosts),
            service_accounts=authority.signing_key("service-accounts"),
            admin=authority.issue("admin", "admin", "system:masters"),
            controller_manager=authority.issue("controller-manager", "system:kube-controller-manager"),
        )


def etcd_command(bin_directory: Path, data: Path, endpoints: Endpoints) -> list[str]:
    peer = f"http://127.0.0.1:{endpoints.etcd_peer_port}"
    return [
        str(bin_directory / "etcd"),
        f"--data-dir={data}",
        f"--listen-client-urls={endpoints.etcd_url}",
        f"--advertise-client-urls={endpoints.etcd_url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        # The data does not outlive the machine's next crash anyway.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def apiserver_command(
    bin_directory: Path, credentials: Credentials, endpoints: Endpoints, extra: Sequence[str] = ()
) -> list[str]:
    """`extra` flags come last and so win over those here: audit, feature gates, other limits."""
    return [
        str(bin_directory / "kube-apiserver"),
        f"--etcd-servers={endpoints.etcd_url}",
        f"--bind-address={endpoints.bind}",
        f"--secure-port={endpoints.port}",
        f"--advertise-address={endpoints.address}",
        f"--service-cluster-ip-range={SERVICE_SUBNET}",
        f"--client-ca-file={credentials.authority}",
        f"--tls-cert-file={credentials.server.certificate}",
        f"--tls-private-key-file={credentials.server.key}",
        f"--service-account-key-file={credentials.service_accounts.certificate}",
        f"--service-account-signing-key-file={credentials.service_accounts.key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        *extra,
    ]


def controller_manager_command(
    bin_directory: Path, credentials: Credentials, config: Path, extra: Sequence[str] = ()
) -> list[str]:
    return [
        str(bin_directory / "kube-controller-manager"),
        f"--kubeconfig={config}",
        f"--service-account-private-key-file={credentials.service_accounts.key}",
        f"--root-ca-file={credentials.authority}",
        "--use-service-account-credentials",
        # Made if missing; the default is a system directory.
        f"--flex-volume-plugin-dir={config.parent}/volume-plugins",
        "--leader-elect=false",
        # Nobody scrapes it, and a second cluster may not find the port taken.
        "--secure-port=0",
        *extra,
    ]


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane. `admin` is a client certificate of the group system:masters."""

    directory: Path
    url: str
    kubeconfig: Path
    authority: Path
    admin: KeyPair
    kubectl: Path


class PortTakenError(ClusterError):
    """Somebody else took a port between its choice and its use."""


@contextmanager
def control_plane(
    apiserver_flags: Sequence[str] = (),
    controller_manager_flags: Sequence[str] = (),
    *,
    prepare: Callable[[Path], None] = lambda _: None,
) -> Iterator[ControlPlane]:
    """A control plane that leaves no trace at the end; if this process is killed, so is the control plane.

    `prepare` is called with the kubeconfig before the controller manager starts.

    Raises ClusterError if a program cannot be built or does not start.
    """
    packages.ensure(packages.CONTROL_PLANE)
    kubernetes = binaries.ensure("kubernetes", PROGRAMS)
    etcd = binaries.ensure("etcd")
    _remove_stale()
    with ExitStack() as stack:
        directory = stack.enter_context(_directory())
        for attempt in (1, 2, 3):
            try:
                arguments = (apiserver_flags, controller_manager_flags, prepare)
                yield stack.enter_context(_started(directory / str(attempt), kubernetes, etcd, *arguments))
                return
            except PortTakenError:
                if attempt == 3:
                    raise


@contextmanager
def _started(
    directory: Path,
    kubernetes: Path,
    etcd: Path,
    apiserver_flags: Sequence[str],
    controller_manager_flags: Sequence[str],
    prepare: Callable[[Path], None],
) -> Iterator[ControlPlane]:
    directory.mkdir()
    port, etcd_port, etcd_peer_port = free_ports(3)
    endpoints = Endpoints("127.0.0.1", "127.0.0.1", port, etcd_port, etcd_peer_port)
    credentials = Credentials.issue(Authority(directory / "pki"), endpoints.address)
    running: dict[str, subprocess.Popen[bytes]] = {}
    logs = {name: directory / f"{name}.log" for name in ("etcd", "kube-apiserver", "kube-controller-manager")}

    def start(name: str, command: Sequence[str]) -> None:
        running[name] = processes.start(command, mark=str(directory), log=logs[name], die_with_parent=True)

    def explain() -> str:
        return "\n".join(f"--- {name}\n{processes.tail(logs[name])}" for name in running)

    def check_alive() -> None:
        for name, process in running.items():
            if process.poll() is not None:
                text = explain()
                taken = "address already in use" in text
                raise (PortTakenError if taken else ClusterError)(f"{name} ended with {process.returncode}\n{text}")

    def ready(path: str) -> bool:
        check_alive()
        return api.get(path) is not None

    try:
        api = KubeApi(endpoints.url, credentials.authority, credentials.admin)
        start("etcd", etcd_command(etcd, directory / "etcd", endpoints))
        start("kube-apiserver", apiserver_command(kubernetes, credentials, endpoints, apiserver_flags))
        wait_for("the API server is ready", lambda: ready("/readyz"), START_TIMEOUT, explain)
        config = directory / "kubeconfig"
        config.write_text(kubeconfig(endpoints.url, "control-plane", credentials.authority, credentials.admin))
        prepare(config)
        manager_config = directory / "controller-manager.kubeconfig"
        manager_config.write_text(
            kubeconfig(endpoints.url, "local", credentials.authority, credentials.controller_manager)
        )
        manager = controller_manager_command(kubernetes, credentials, manager_config, controller_manager_flags)
        start("kube-controller-manager", manager)
        # Pods are refused in a namespace that has no default service account yet.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        wait_for("the controller manager works", lambda: ready(account), START_TIMEOUT, explain)
        yield ControlPlane(
            directory, endpoints.url, config, credentials.authority, credentials.admin, kubernetes / "kubectl"
        )
    finally:
        for process in running.values():
            process.kill()
        for process in running.values():
            process.wait()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in sockets]


@contextmanager
def _directory() -> Iterator[Path]:
    """A temporary directory, locked while its owner lives, so that a later run can tell it from a stale one."""
    directory = Path(tempfile.mkdtemp(prefix=_DIRECTORY_PREFIX))
    try:
        with locks.exclusive(directory):
            yield directory
    finally:
        shutil.rmtree(directory)


def _remove_stale() -> None:
    """Removes what runs that were killed have left behind; their processes died with them."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_DIRECTORY_PREFIX}*"):
        try:
            if time.time() - directory.stat().st_mtime < _NOT_YET_LOCKED:
                continue
            with locks.attempt(directory) as locked:
                if locked:
                    shutil.rmtree(directory)
        except (PermissionError, FileNotFoundError):
            # Another user's, or another run was faster.
            continue
