"""Configuration of what runs on the node: containerd, the network of pods, kubelet, kube-proxy, kube-scheduler."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster.namespace import POD_SUBNET
from tests.cluster.paths import ClusterPaths
from tests.cluster.pki import KeyPair

NODE_NAME = "node-1"
CLUSTER_DNS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"
# A node that has not been heard of for so long is not Ready.
MONITOR_GRACE = "30s"
_CAP_SYS_RESOURCE = 24
# Who wrote what, and not what was written: that would put Secrets into a file. Of the cluster's own parts no reads.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "Metadata",
            "userGroups": ["system:serviceaccounts"],
            "verbs": ["create", "update", "patch", "delete", "deletecollection"],
        },
        {
            "level": "None",
            "userGroups": ["system:serviceaccounts:kube-system", "system:serviceaccounts:local-path-storage"],
        },
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"], "verbs": ["get", "list", "watch"]},
        {"level": "None"},
    ],
}


def may_lower_oom_scores(status: str) -> bool:
    """Whether a process with this /proc/<pid>/status has CAP_SYS_RESOURCE."""
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_SYS_RESOURCE & 1)


def containerd_config(
    paths: ClusterPaths, bin_directory: Path, cni_bin: Path, pause_image: str, snapshotter: str, restrict_oom: bool
) -> str:
    """`restrict_oom`: keep the scores that kubelet asks for within what this process may set."""
    root = paths.root
    return f"""\
version = 3
root = "{root}/containerd/root"
state = "/run/containerd"

[grpc]
  address = "{paths.containerd_socket}"

[plugins.'io.containerd.internal.v1.opt']
  path = "{root}/containerd/opt"

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "{snapshotter}"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{pause_image}"

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = {str(restrict_oom).lower()}
  # Its profile would stay loaded in the kernel.
  disable_apparmor = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    runtime_path = "{bin_directory}/containerd-shim-runc-v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{cni_bin}"]
    conf_dir = "{root}/cni"
"""


def cni_config() -> str:
    return json.dumps(
        {
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": "/run/cni",
                        "ranges": [[{"subnet": POD_SUBNET}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                }
            ],
        },
        indent=2,
    )


def kubelet_config(paths: ClusterPaths, authority: Path, server: KeyPair) -> Mapping[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(server.certificate),
        "tlsPrivateKeyFile": str(server.key),
        "containerRuntimeEndpoint": f"unix://{paths.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{paths.cgroup}",
        # Machines with the old hierarchies are still about.
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "clusterDNS": [CLUSTER_DNS],
        "clusterDomain": CLUSTER_DOMAIN,
        # The host's resolver cannot be reached from here.
        "resolvConf": "",
        # Renewed every quarter of it, in seconds.
        "nodeLeaseDurationSeconds": 20,
        "podLogsDir": "/var/log/pods",
        "volumePluginDir": str(paths.root / "kubelet" / "volume-plugins"),
        "maxPods": 250,
        # Images are loaded, not pulled: one that is removed would not come back.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    }


def kubelet_command(
    bin_directory: Path, paths: ClusterPaths, config: Path, kubeconfig: Path, address: str
) -> list[str]:
    return [
        str(bin_directory / "kubelet"),
        f"--config={config}",
        f"--kubeconfig={kubeconfig}",
        f"--root-dir={paths.root}/kubelet",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={address}",
    ]


def kube_proxy_command(bin_directory: Path, kubeconfig: Path) -> list[str]:
    return [
        str(bin_directory / "kube-proxy"),
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={NODE_NAME}",
        f"--cluster-cidr={POD_SUBNET}",
        "--proxy-mode=nftables",
        # The limit belongs to the whole machine.
        "--conntrack-max-per-core=0",
    ]


def scheduler_command(bin_directory: Path, kubeconfig: Path) -> list[str]:
    return [
        str(bin_directory / "kube-scheduler"),
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
    ]
