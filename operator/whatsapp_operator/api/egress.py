"""Where no proxy of a session may lead: link-local and multicast addresses, and the metadata services of clouds.

What answers there tells credentials of the node. Loopback and private ranges are allowed: proxies live there.
"""

import ipaddress
from collections.abc import Iterator
from typing import Final

_IPV4: Final = (
    "169.254.0.0/16",
    "224.0.0.0/4",
    "100.100.100.200/32",  # Alibaba Cloud
    "168.63.129.16/32",  # Azure
    "192.0.0.192/32",  # Oracle Cloud
)
_IPV6: Final = (
    "fe80::/10",
    "ff00::/8",
    "fd00:ec2::/32",  # AWS
    "fd00:c1::a9fe:a9fe/128",  # Oracle Cloud
    "fd20:ce::254/128",  # Google Cloud
    "64:ff9b:1::/48",  # NAT64 whose form is the network's own
)
# Prefixes of IPv6 addresses that stand for an IPv4 one, which follows at once: mapped, compatible, NAT64, 6to4.
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_STAND_INS: Final = (
    _MAPPED,
    ipaddress.IPv6Network("::/96"),
    ipaddress.IPv6Network("64:ff9b::/96"),
    ipaddress.IPv6Network("2002::/16"),
)


def _networks() -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    yield from map(ipaddress.IPv6Network, _IPV6)
    for network in map(ipaddress.IPv4Network, _IPV4):
        yield network
        for stand_in in _STAND_INS:
            first = int(stand_in.network_address) | int(network.network_address) << 96 - stand_in.prefixlen
            yield ipaddress.IPv6Network((first, stand_in.prefixlen + network.prefixlen))


FORBIDDEN: Final = tuple(_networks())
# What CEL can parse: it knows no mapped addresses.
FORBIDDEN_IN_CEL: Final = tuple(
    str(network)
    for network in FORBIDDEN
    if isinstance(network, ipaddress.IPv4Network) or not network.subnet_of(_MAPPED)
)


def forbidden(address: str) -> bool:
    """Whether nothing may be sent there.

    Args:
        address: as a resolver gives it; an IPv6 one may have a zone.

    Raises:
        ValueError: it is no address.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    return any(found in network for network in FORBIDDEN)
