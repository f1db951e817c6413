from pathlib import Path

import pytest

from tests.cluster.context import Target, target
from tests.cluster.errors import ClusterError


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own" / "kubeconfig"
    path.parent.mkdir()
    path.write_text("{}")
    return path


def test_our_own_cluster_is_the_default(own: Path) -> None:
    assert target({"HOME": "/home/u"}, own) == Target(str(own), None, own=True)


def test_our_own_kubeconfig_in_the_environment_is_our_own_cluster(own: Path) -> None:
    roundabout = str(own.parent / ".." / "own" / "kubeconfig")
    assert target({"KUBECONFIG": roundabout}, own) == Target(str(own), None, own=True)


@pytest.mark.parametrize("kubeconfig", ["/etc/production", "/etc/production:/etc/other"])
def test_a_foreign_kubeconfig_is_refused_unless_a_context_is_named(own: Path, kubeconfig: str) -> None:
    with pytest.raises(ClusterError, match="CONTEXT"):
        target({"KUBECONFIG": kubeconfig}, own)
    named = target({"KUBECONFIG": kubeconfig, "CONTEXT": "staging"}, own)
    assert named == Target(kubeconfig, "staging", own=False)


def test_a_named_context_without_kubeconfig_is_looked_up_where_kubectl_does(own: Path) -> None:
    assert target({"HOME": "/home/u", "CONTEXT": "staging"}, own) == Target(
        "/home/u/.kube/config", "staging", own=False
    )


def test_a_kubeconfig_in_the_home_directory_is_never_picked_up(tmp_path: Path) -> None:
    config = tmp_path / ".kube" / "config"
    config.parent.mkdir()
    config.write_text("{}")
    with pytest.raises(ClusterError, match="cluster-up"):
        target({"HOME": str(tmp_path)}, tmp_path / "missing")


def test_kubectl_is_told_the_file_and_the_context() -> None:
    named = Target("/a:/b", "staging", own=False)
    assert named.environment({"PATH": "/bin"}) == {"PATH": "/bin", "KUBECONFIG": "/a:/b"}
    assert named.kubectl_arguments == ["--context", "staging"]


def test_what_kubectl_caches_of_our_own_cluster_goes_with_it(own: Path) -> None:
    ours = Target(str(own), None, own=True)
    assert ours.environment({})["KUBECACHEDIR"].startswith(str(own.parent))
    assert ours.kubectl_arguments == []
