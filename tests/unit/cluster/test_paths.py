from pathlib import Path

import pytest

from tests.cluster.errors import ClusterError
from tests.cluster.paths import cache_home, cluster_paths, state_home


@pytest.mark.parametrize(
    ("env", "cache", "state"),
    [
        ({"HOME": "/home/u"}, "/home/u/.cache/whatsapp-operator", "/home/u/.local/state/whatsapp-operator"),
        (
            {"HOME": "/home/u", "XDG_CACHE_HOME": "/c", "XDG_STATE_HOME": "/s"},
            "/c/whatsapp-operator",
            "/s/whatsapp-operator",
        ),
        # The specification: relative paths are ignored.
        (
            {"HOME": "/home/u", "XDG_CACHE_HOME": "c", "XDG_STATE_HOME": ""},
            "/home/u/.cache/whatsapp-operator",
            "/home/u/.local/state/whatsapp-operator",
        ),
    ],
)
def test_cache_and_state_follow_the_xdg_variables(env: dict[str, str], cache: str, state: str) -> None:
    assert (str(cache_home(env)), str(state_home(env))) == (cache, state)


def test_two_checkouts_share_nothing_that_could_collide() -> None:
    env = {"HOME": "/home/u"}
    one, other = cluster_paths(Path("/src/one"), env), cluster_paths(Path("/src/other"), env)
    assert one == cluster_paths(Path("/src/one"), env)
    for name in ("id", "root", "link", "cgroup", "mark", "kubeconfig", "containerd_socket"):
        assert getattr(one, name) != getattr(other, name)


def test_interface_names_fit_into_the_kernels_limit() -> None:
    assert len(cluster_paths(Path("/src/one"), {"HOME": "/home/u"}).link) <= 15


def test_a_state_directory_too_long_for_sockets_is_refused_with_the_remedy() -> None:
    with pytest.raises(ClusterError, match="XDG_STATE_HOME"):
        cluster_paths(Path("/src"), {"XDG_STATE_HOME": "/" + "d" * 60})


@pytest.mark.parametrize("hidden", ["/run/state", "/var/lib/state", "/var/log"])
def test_a_state_directory_that_the_node_could_not_see_is_refused(hidden: str) -> None:
    with pytest.raises(ClusterError, match=hidden):
        cluster_paths(Path("/src"), {"XDG_STATE_HOME": hidden})
