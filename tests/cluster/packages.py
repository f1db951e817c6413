"""The Debian packages that the cluster and the images need, in one place."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError

# A plain user's PATH lacks the directories for administrators.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
REMEDY = "use any other cluster by KUBECONFIG=<file> CONTEXT=<name>"


@dataclass(frozen=True)
class Package:
    """A Debian package, and the program (or absolute path) that tells whether what it brings is there."""

    name: str
    probe: str

    @property
    def present(self) -> bool:
        if self.probe.startswith("/"):
            return Path(self.probe).exists()
        return shutil.which(self.probe, path=SEARCH_PATH) is not None


CONTROL_PLANE = (Package("openssl", "openssl"), Package("util-linux", "setpriv"))
NODE = (
    *CONTROL_PLANE,
    Package("runc", "runc"),
    Package("iproute2", "ip"),
    Package("nftables", "nft"),
    Package("conntrack", "conntrack"),
    Package("iptables", "iptables"),
    Package("kmod", "modprobe"),
    Package("mount", "mount"),
    # Static, for the image that pauses pods and makes volumes.
    Package("busybox-static", "busybox"),
)
IMAGES = (
    Package("buildah", "buildah"),
    Package("mmdebstrap", "mmdebstrap"),
    Package("debian-archive-keyring", "/usr/share/keyrings/debian-archive-keyring.gpg"),
)


def missing(packages: Iterable[Package]) -> list[Package]:
    return [package for package in packages if not package.present]


def is_debian() -> bool:
    return Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None


def ensure(packages: Iterable[Package]) -> None:
    """Installs what is missing. Raises ClusterError where it cannot: not Debian, not root, or apt-get fails."""
    lacking = missing(packages)
    if not lacking:
        return
    names = [package.name for package in lacking]
    if not is_debian():
        raise ClusterError(
            f"missing (by their Debian names): {' '.join(names)}. This is not Debian: install them, or {REMEDY}"
        )
    if os.geteuid() != 0:
        raise ClusterError(
            f"missing Debian packages {' '.join(names)}: run `python -m tests.cluster packages` as root, or {REMEDY}"
        )
    print(f"installing Debian packages: {' '.join(names)}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    # A fresh machine has no package lists; a long-lived one has old lists that name files that are gone.
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *names]):
        result = subprocess.run(
            ["apt-get", "-qq", *command],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if result.returncode != 0:
            raise ClusterError(f"apt-get {command[0]} failed:\n{result.stderr.strip()[-2000:]}")
    if still := missing(lacking):
        raise ClusterError(f"installed, but still not found: {', '.join(package.probe for package in still)}")
