import ipaddress

import pytest

from tests.cluster.errors import ClusterError
from tests.cluster.namespace import LINK_POOL, choose_link


@pytest.mark.parametrize("cluster_id", ["00000000", "f2af6c09", "ffffffff"])
def test_a_link_is_two_hosts_within_the_pool_and_always_the_same(cluster_id: str) -> None:
    link = choose_link(cluster_id, [])
    assert link.subnet_of(LINK_POOL)
    assert len(list(link.hosts())) == 2
    assert choose_link(cluster_id, []) == link


def test_a_link_moves_on_if_its_addresses_are_in_use() -> None:
    first = choose_link("ffffffff", [])
    address = ipaddress.IPv4Network((int(first.network_address) + 1, 32))
    second = choose_link("ffffffff", [address])
    assert second.subnet_of(LINK_POOL)
    assert not second.overlaps(first)
    assert choose_link("ffffffff", [first, second]) not in (first, second)


def test_a_pool_in_use_is_an_error_that_names_it() -> None:
    with pytest.raises(ClusterError, match=str(LINK_POOL)):
        choose_link("00000000", [ipaddress.IPv4Network("198.0.0.0/8")])
