"""The proxy that the environment asks for, as kubectl reads it."""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit


def proxy_for(server: str, environment: Mapping[str, str]) -> str | None:
    """The value of HTTPS_PROXY (or HTTP_PROXY), unless NO_PROXY or a loopback address keeps the server from it."""
    url = urlsplit(server)
    variable = f"{url.scheme}_proxy"
    proxy = environment.get(variable.upper()) or environment.get(variable)
    host = (url.hostname or "").lower()
    if not proxy or host == "localhost":
        return None
    address = _address(host)
    if address is not None and address.is_loopback:
        return None
    exempt = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    return None if any(_matches(entry.strip().lower(), host, address) for entry in exempt.split(",")) else proxy


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _matches(entry: str, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    """An entry is *, an address, a network or a domain."""
    if address is not None and "/" in entry:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    domain = entry.removeprefix("*").removeprefix(".")
    return entry == "*" or (bool(domain) and (host == domain or host.endswith(f".{domain}")))
