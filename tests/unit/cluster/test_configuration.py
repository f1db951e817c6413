"""The configuration of the node's programs, and of pip in image builds."""

import base64
import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.cluster import addons, images, node
from tests.cluster.control_plane import Credentials, Endpoints, apiserver_command
from tests.cluster.kubeapi import object_path
from tests.cluster.paths import ClusterPaths
from tests.cluster.pki import Authority, KeyPair, kubeconfig

PATHS = ClusterPaths("f2af6c09", Path("/state/f2af6c09"))


def test_containerd_keeps_to_the_cluster_s_own_directories() -> None:
    text = node.containerd_config(PATHS, Path("/bin-c"), Path("/bin-cni"), "localhost/pause:1", "overlayfs", True)
    config = tomllib.loads(text)
    assert config["root"] == "/state/f2af6c09/containerd/root"
    assert config["grpc"]["address"] == str(PATHS.containerd_socket)
    plugins = config["plugins"]
    assert plugins["io.containerd.cri.v1.images"]["pinned_images"]["sandbox"] == "localhost/pause:1"
    assert plugins["io.containerd.cri.v1.runtime"]["restrict_oom_score_adj"] is True


def test_kubelet_pods_and_images_stay_within_the_cluster() -> None:
    pair = KeyPair(Path("/pki/kubelet.crt"), Path("/pki/kubelet.key"))
    config = node.kubelet_config(PATHS, Path("/pki/ca.crt"), pair)
    assert config["cgroupRoot"] == "/whatsapp-operator-f2af6c09"
    assert config["containerRuntimeEndpoint"] == f"unix://{PATHS.containerd_socket}"
    assert config["imageGCHighThresholdPercent"] == 100


@pytest.mark.parametrize(("capabilities", "may"), [("000001ffffffffff", True), ("000001fffeffffff", False)])
def test_oom_scores_may_be_lowered_only_with_the_capability(capabilities: str, may: bool) -> None:
    assert node.may_lower_oom_scores(f"Name:\tx\nCapEff:\t{capabilities}\nSeccomp:\t0\n") is may


def test_extra_flags_of_the_api_server_come_last() -> None:
    pair = KeyPair(Path("c"), Path("k"))
    credentials = Credentials(Path("ca"), Path("ca.key"), pair, pair, pair, pair)
    endpoints = Endpoints("127.0.0.1", "127.0.0.1", 6443, 2379, 2380)
    command = apiserver_command(Path("/bin"), credentials, endpoints, ["--authorization-mode=RBAC"])
    assert command[-1] == "--authorization-mode=RBAC"
    assert "--etcd-servers=http://127.0.0.1:2379" in command


def test_certificates_are_valid_for_their_hosts_and_users(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    pair = authority.issue("server", "kube-apiserver", "a group", ["DNS:localhost", "IP:198.18.0.2"])
    verify = ["openssl", "verify", "-x509_strict", "-CAfile", str(authority.certificate)]
    for check in (["-verify_ip", "198.18.0.2"], ["-verify_hostname", "localhost"], ["-purpose", "sslclient"]):
        subprocess.run([*verify, *check, str(pair.certificate)], check=True, capture_output=True)
    wrong = subprocess.run(
        [*verify, "-verify_ip", "198.18.0.6", str(pair.certificate)], check=False, capture_output=True
    )
    assert wrong.returncode != 0

    config = json.loads(kubeconfig("https://198.18.0.2:6443", "ours", authority.certificate, pair))
    user = config["users"][0]["user"]
    assert base64.b64decode(user["client-key-data"]) == pair.key.read_bytes()
    assert config["current-context"] == config["contexts"][0]["name"] == "ours"


def test_an_authority_is_kept_once_it_is_there(tmp_path: Path) -> None:
    before = Authority(tmp_path).certificate.read_bytes()
    assert Authority(tmp_path).certificate.read_bytes() == before


def test_add_ons_ask_for_volumes_on_first_use_and_run_without_privileges() -> None:
    found = addons.manifests("dns:1", "volumes:1", "helper:1", Path("/state/volumes"))
    by_kind = {manifest["kind"]: manifest for manifest in found}
    assert by_kind["StorageClass"]["volumeBindingMode"] == "WaitForFirstConsumer"
    deployments = [manifest for manifest in found if manifest["kind"] == "Deployment"]
    names = [(manifest["metadata"]["namespace"], manifest["metadata"]["name"]) for manifest in deployments]
    assert names == list(addons.DEPLOYMENTS)
    for deployment in deployments:
        context = deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"]
        assert context["runAsNonRoot"]
        assert context["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(
    ("version", "kind", "path"),
    [
        ("v1", "ConfigMap", "/api/v1/namespaces/there/configmaps/it"),
        ("v1", "Namespace", "/api/v1/namespaces/it"),
        ("apps/v1", "Deployment", "/apis/apps/v1/namespaces/there/deployments/it"),
        ("storage.k8s.io/v1", "StorageClass", "/apis/storage.k8s.io/v1/storageclasses/it"),
    ],
)
def test_paths_of_objects(version: str, kind: str, path: str) -> None:
    assert object_path({"apiVersion": version, "kind": kind, "metadata": {"name": "it", "namespace": "there"}}) == path


def test_image_builds_use_the_machine_s_index_variables_before_files(tmp_path: Path) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    low.write_text("[global]\nindex-url = https://low.example/\ntrusted-host = low.example\ntimeout = 3\n")
    high.write_text("[global]\nindex-url = https://high.example/\n")
    text = images.pip_configuration({"PIP_EXTRA_INDEX_URL": "https://extra.example/"}, [low, high, tmp_path / "none"])
    lines = text.splitlines()
    assert lines[:4] == [
        "[global]",
        "index-url = https://high.example/",
        "trusted-host = low.example",
        "extra-index-url = https://extra.example/",
    ]
    assert "timeout" not in text
